from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from junitparser import JUnitXml

from sim.cli import main
from sim.files.plan import load_plan
from sim.files.wrong_engines import SWITCHES
from sim.record.folder import open_run
from sim.record.rollout_view import RolloutDecision, decision_of
from sim.rollout.matrix import FAULTS, FaultMatrix, faults_for, run_matrix, table
from sim.run.batch import Batch
from sim.run.dask import open_pool
from tests.command_line import rehearse
from tests.production_fleet import flags

ROLLOUTS = Path(__file__).parents[3] / "scenarios" / "rollouts"

SMALL = """\
kind: plan
name: small
seed: 3
pacing: {mostRounds: 1}
fleet:
  - {name: code, count: 3, memory: 6MiB, workload: {dirty: 100%, pattern: full}}
flags: {memfd-background-copy: false}
metrics:
  - {name: discards, failureCondition: result > 0, onFailure: ACTION}
  - {name: lost_because_of_the_flag, failureCondition: result > 0, onFailure: ACTION}
steps:
  - setWeight: 0
  - wait: {for: 1m}
  - setWeight: 100
  - inject: {fault: copy.write, at: after_condemn, sandboxes: code-1}
  - wait: {for: 1m}
  - analysis: {}
  - clear: {}
  - wait: {for: 1m}
"""

NOBODY = """\
kind: plan
name: nobody
fleet:
  - {name: web, count: 3, memory: 1MiB}
steps:
  - setWeight: 1
  - wait: {for: 1m}
  - setWeight: 100
"""


CELLS = """\
kind: plan
name: cells
fleet:
  - {name: code, count: 3, memory: 6MiB, workload: {dirty: 100%, pattern: full}}
flags: {memfd-background-copy: false}
steps:
  - setWeight: 0
  - setWeight: 100
  - wait: {for: 1m}
"""


@pytest.fixture(scope="module")
def goes_on(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A plan whose metrics fail and let the rollout go on."""
    folder = tmp_path_factory.mktemp("goes-on")
    return rehearse(written(folder, SMALL.replace("ACTION", "continue")), folder)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return path


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_shipped_rollout_passes_and_hands_over_its_patches(tmp_path: Path) -> None:
    found = rehearse(ROLLOUTS / "punch.yaml", tmp_path, "--export", str(tmp_path / "evidence"))
    assert (found["decision"], found["exit_code"], found["first_failing_step"]) == ("go", 0, None)
    assert [len(each["exposed"]["sandboxes"]) for each in found["stages"]] == [0, 1, 3, 6, 15]
    assert [len(each["on"]["punched"]) for each in found["stages"]] == [0, 1, 3, 6, 15]
    assert all(each["lost_because_of_the_flag"] == [] for each in found["stages"])
    assert found["stages"][-1]["saved_at_peak"]["largest_pauses_at_once"] > 0
    patch = json.loads((tmp_path / "evidence/launchdarkly/stage-3-10-percent.json").read_text())
    assert patch["instructions"][1]["rolloutWeights"] == {"VARIATION_ID_OF_FALSE": 90000, "VARIATION_ID_OF_TRUE": 10000}
    assert (tmp_path / "evidence/README.md").read_text().startswith("# GO: punch\n")
    suites = JUnitXml.fromfile(str(Path(found["folders"]["on"]) / "junit.xml"))
    first = next(iter(suites))
    assert (first.name, first.failures, first.errors) == ("rehearse punch", 0, 0)
    _both_arms_were_compared_in_turns(found)


def _both_arms_were_compared_in_turns(found: dict[str, Any]) -> None:
    """Times have a ratio as soon as six rounds have exposed somebody, and none before."""
    assert found["arms"] == "in turns"
    analyses = [{each["name"]: each for each in step["metrics"]} for step in found["steps"] if step["metrics"]]
    few, enough = analyses[1]["copy_p50_ratio"], analyses[-1]["copy_p50_ratio"]
    assert (few["values"], few["bands"]) == ([None], [[None, None]])
    (low, high), (value,) = enough["bands"][0], enough["values"]
    assert 0 < low <= value <= high
    assert enough["intervals"][0]["rounds"] == 8


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("lease", "step", "punched_late"), [("none", 7, True), ("1s", 8, False)])
def test_a_half_open_outage_stops_the_rollout_with_a_lease_and_exposes_without(
    lease: str, step: int, punched_late: bool, tmp_path: Path
) -> None:
    found = rehearse(ROLLOUTS / "punch-under-outage.yaml", tmp_path, "--lease", lease)
    assert (found["decision"], found["exit_code"], found["first_failing_step"]) == ("no-go", 1, step)
    assert any("EXPOSED" in each for each in found["reasons"]) is punched_late
    assert found["stages"][-1]["weight"] == 10
    assert found["arms"] == "flag off first"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_pull_request_as_written_is_no_go_with_a_line_for_each_weakness_that_is_not_mended(tmp_path: Path) -> None:
    left = ("range-granular", "two-mib-alignment")
    mended = [name for name in SWITCHES if name not in left]
    options = [each for name in mended for each in ("--mend", name)]
    found = rehearse(ROLLOUTS / "pr-2902-as-written.yaml", tmp_path, *options)
    assert (found["decision"], found["exit_code"], found["first_failing_step"]) == ("no-go", 1, 6)
    lines = [each for each in found["reasons"] if each.startswith("weakness ")]
    assert [each.split(":")[0] for each in lines] == [f"weakness {name}" for name in left]
    assert {f"mended: {name}" for name in mended} <= set(found["weaknesses"])


def test_a_budget_that_is_too_small_without_the_flag_is_enough_with_it(tmp_path: Path) -> None:
    found = rehearse(ROLLOUTS / "budget-too-small.yaml", tmp_path)
    assert (found["decision"], found["exit_code"]) == ("go", 0)
    last = found["stages"][-1]
    assert (last["off"]["refused"], last["on"]["refused"], last["on"]["finished"]) == (4, 0, 4)
    assert any("overran the node's budget" in each for each in found["reasons"])


def test_a_deadline_that_ran_out_is_inconclusive_in_both_arms_and_says_what_was_awaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.rollout.compiled.round_deadline", lambda _: "1ms")
    found = rehearse(written(tmp_path, SMALL.replace("ACTION", "abort").replace("count: 3", "count: 4")), tmp_path)
    assert (found["decision"], found["exit_code"]) == ("inconclusive", 3)
    (late,) = [each for each in found["reasons"] if each.startswith("deadline:pause")]
    assert re.search(r"passed while code-\d.* had not settled; that ended the run", late)
    assert any(each.startswith("with the flag off: deadline:pause") for each in found["reasons"])


def test_a_failed_metric_aborts_rolls_back_and_leaves_the_rest_untaken(tmp_path: Path) -> None:
    found = rehearse(written(tmp_path, SMALL.replace("ACTION", "abort")), tmp_path)
    assert (found["decision"], found["exit_code"], found["first_failing_step"]) == ("no-go", 1, 5)
    assert (found["steps"][-1]["stopped"], found["not_taken"]) == ("abort", 2)
    after = found["runs"]["on"]["pauses"][-2:]
    assert [each["punched_bytes"] for each in after] == [0, 0]
    assert len(found["runs"]["off"]["pauses"]) == 6  # where the one arm stops, so does the other


def test_a_metric_that_may_fail_lets_the_rollout_go_on_with_a_condition(goes_on: dict[str, Any]) -> None:
    assert (goes_on["steps"][-1]["kind"], goes_on["not_taken"]) == ("wait", 0)
    assert goes_on["conditions"] != []


def test_its_ledger_tells_its_steps_and_stages_and_the_decision_lies_beside_it(goes_on: dict[str, Any]) -> None:
    stored = open_run(Path(goes_on["folders"]["on"]))
    rollout = stored.view.rollout
    assert rollout is not None
    assert [each.detail for each in rollout.steps] == [each["detail"] for each in goes_on["steps"]]
    assert [each.weight for each in rollout.stages] == [0.0, 100.0]
    assert (rollout.stages[-1].lost_by_flag, rollout.stages[-1].complete) == (1, True)
    assert rollout.stages[-1].rate == goes_on["bound"]["rate"]
    assert rollout.current is None
    assert decision_of(stored.folder) == RolloutDecision(goes_on["decision"], tuple(goes_on["reasons"]))
    assert open_run(Path(goes_on["folders"]["off"])).view.rollout is None


def test_what_is_only_lost_with_the_flag_on_is_lost_because_of_it(goes_on: dict[str, Any]) -> None:
    last = goes_on["stages"][-1]
    assert last["on"]["lost"] == ["code-1"]
    assert last["off"]["lost"] == []
    assert last["lost_because_of_the_flag"] == ["code-1"]


def test_a_stage_that_exposes_nobody_is_inconclusive_and_says_how_many_it_takes(tmp_path: Path) -> None:
    found = rehearse(written(tmp_path, NOBODY), tmp_path)
    assert (found["decision"], found["exit_code"], found["first_failing_step"]) == ("inconclusive", 3, 1)
    assert "takes about 100" in found["steps"][1]["detail"]


def test_an_invalid_plan_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = written(tmp_path, SMALL)
    assert main(["rehearse", str(plan), "--runs-dir", str(tmp_path / "runs")]) == 2
    assert 'plan.yaml:9:63: error: metrics[0].onFailure: unknown value "ACTION"' in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_says_who_would_be_exposed_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = written(tmp_path, NOBODY)
    assert main(["rehearse", str(plan), "--dry-run", "--runs-dir", str(tmp_path / "runs")]) == 3
    said = capsys.readouterr().out
    assert "none: one takes about 100 sandbox contexts" in said
    assert "stops: nobody: 1 % exposes none of" in said
    assert not (tmp_path / "runs").exists()
    assert main(["rehearse", str(plan), "--dry-run", "--json", "--runs-dir", str(tmp_path / "runs")]) == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["exit_code"], document["warnings"]) == (3, [])
    assert "nobody" in {each["name"] for each in document["concerns"]}


def cells(folder: Path, cluster: str | None, *faults: str) -> FaultMatrix:
    plan = load_plan(written(folder, CELLS))
    chosen = [each for each in FAULTS if each.name in faults]
    with open_pool(cluster, 2, 1 << 30) as pool:
        return run_matrix(plan, folder / "runs", pool, Batch(quiet=True), faults=chosen)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_matrix_has_an_outcome_for_each_step_under_each_fault(tmp_path: Path) -> None:
    found = cells(tmp_path, None, "first-chunk", "mid-copy", "freeze")
    assert found.bad == ()
    by = {(each.step, each.fault): each.what for each in found.cells}
    assert len(by) == 3 * 3
    assert (by[0, "first-chunk"], by[0, "mid-copy"]) == ("3 rolled back", "3 rolled back")  # nobody is condemned
    assert (by[2, "first-chunk"], by[2, "mid-copy"], by[2, "freeze"]) == ("3 rolled back", "3 discarded", "held")
    assert table(found).head == ("step", "first-chunk", "mid-copy", "freeze")


OWN = """\
kind: plan
name: own
contexts: all
fleet:
  - {name: box, count: 3, memory: 4MiB, workload: {dirty: 100%, pattern: full}}
flags: {file: own.json}
steps:
  - setWeight: 100
  - drill: {killSwitch: {maxPropagation: 10s}}
"""


def test_the_matrix_of_a_users_own_flag_holds_though_its_file_is_torn_at_each_change(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(json.dumps(flags(safe_first=True)))
    plan = load_plan(written(tmp_path, OWN))
    chosen = [each for each in faults_for(plan) if each.name in {"tear", "first-chunk"}]
    with open_pool(None, 2, 1 << 30) as pool:
        found = run_matrix(plan, tmp_path / "runs", pool, Batch(quiet=True), faults=chosen)
    assert found.bad == ()
    by = {(each.step, each.fault): each.what for each in found.cells}
    assert by == {
        (0, "first-chunk"): "3 rolled back",
        (0, "tear"): "held",
        (1, "first-chunk"): "3 rolled back",
        (1, "tear"): "held",
    }


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="needs the extra: snapdrill[cluster]")
def test_on_a_cluster_the_matrix_is_the_same_table(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    here, there = cells(tmp_path / "here", None, "mid-copy"), cells(tmp_path, "local", "mid-copy")
    assert table(there) == table(here)
    assert there.bad == ()


def test_a_plan_over_a_fleet_that_checkpoints_shows_what_is_lost_there(tmp_path: Path) -> None:
    found = rehearse(ROLLOUTS / "checkpoints-lost.yaml", tmp_path)
    assert (found["decision"], found["first_failing_step"]) == ("no-go", 6)
    last = found["stages"][-1]
    assert (last["on"]["lost_at_checkpoint"], last["off"]["lost_at_checkpoint"]) == (["box-3"], [])
    assert (len(last["exposed"]["sandboxes"]), last["exposed"]["can_punch"]) == (8, 6)
    assert last["on"]["checkpoints"] > 0
    assert set(last["on"]["punched"]) == {f"box-{number}" for number in range(6)}


APPROVED = """\
kind: plan
name: approved
seed: 3
pacing: {mostRounds: 1}
fleet:
  - {name: code, count: 4, memory: 1MiB}
metrics:
  - {name: lost_because_of_the_flag, failureCondition: result > 0, critical: true}
accept: {jump: four sandboxes}
steps:
  - setWeight: 50
  - wait: {for: 10m}
  - analysis: {}
  - approve: {}
  - setWeight: 100
  - wait: {for: 10m}
  - analysis: {}
"""


def test_a_rehearsal_waits_for_approval_and_goes_on_without_running_a_stage_again(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(APPROVED)
    waits = rehearse(plan, tmp_path)
    assert (waits["decision"], waits["exit_code"], len(waits["stages"])) == ("waits for approval", 3, 1)
    goes = rehearse(plan, tmp_path, "--continue", waits["folders"]["on"])
    assert (goes["decision"], goes["continues"], goes["reasons"][0][:8]) == ("go", waits["folders"]["on"], "2 stages")
    assert goes["stages"][0]["on"] == waits["stages"][0]["on"]
    rollout = open_run(Path(goes["folders"]["on"])).view.rollout
    assert rollout is not None
    assert [each.step for each in rollout.steps] == list(range(len(goes["steps"]))), "those before the approval too"
    assert len(goes["runs"]["on"]["pauses"]) == 4  # of the last stage alone
    assert goes["bound"]["tried"] == 4
