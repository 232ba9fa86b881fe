"""`eventually`, `extends` and the time limit in runs on real memory."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from sim.files.scenario import load, load_all
from sim.record.folder import StoredRun
from sim.report.failure import failure_block
from sim.run.runner import RunOptions, run_scenario
from tests.forked import forked_node

FLEET = """\
fleet:
  - {name: web, count: 2, memory: 4MiB, workload: {dirty: 100%, pattern: full}}
  - {name: api, memory: 4MiB}
flags: {memfd-punch-on-snapshot: true}
steps:
  - tick: 1
"""
HELD_UP = """\
  - inject: {fault: copy.write, delay: 1s, at: last, sandboxes: "web-*"}
  - pause: {sandboxes: "web-*", until: returned}
"""


def run(path: pathlib.Path, text: str, time_limit: float = 60.0) -> StoredRun:
    path.write_text(f"name: {path.stem}\n{text}")
    return asyncio.run(
        run_scenario(load(path), RunOptions(path.parent / "runs", time_limit=time_limit, start_node=forked_node))
    )


def verdicts(result: StoredRun) -> dict[str, str]:
    return {each.subject: each.verdict for each in result.view.judged if not each.subject.startswith("invariant:")}


def reason(result: StoredRun, subject: str) -> str:
    (found,) = [each for each in result.view.judged if each.subject == subject]
    return str(found.violations[0]["reason"])


def test_what_is_not_so_at_once_is_so_after_some_ticks(tmp_path: pathlib.Path) -> None:
    expect = "expect:\n  - {metric: pauses, where: {outcome: finished}, min: 2%s}\n"
    hasty = run(tmp_path / "hasty.yaml", FLEET + HELD_UP + expect % "")
    patient = run(tmp_path / "patient.yaml", FLEET + HELD_UP + expect % ", eventually: {within: 20000}")
    assert verdicts(hasty) == {"metric:pauses": "violated"}
    assert verdicts(patient) == {"metric:pauses": "held"}
    assert patient.view.tick > hasty.view.tick == 1


def test_a_step_waits_as_well_and_says_how_long_it_did_in_vain(tmp_path: pathlib.Path) -> None:
    result = run(tmp_path / "vain.yaml", FLEET + "  - expect: {state: paused, eventually: {within: 3}}\n  - tick: 1\n")
    assert verdicts(result) == {"state:*": "violated"}
    assert reason(result, "state:*").endswith("(after 3 ticks)")
    assert result.view.tick == 5


def test_while_the_node_is_down_nothing_is_waited_for(tmp_path: pathlib.Path) -> None:
    expect = "expect:\n  - {state: running, eventually: {within: 1000}}\n"
    result = run(tmp_path / "down.yaml", FLEET + "  - crash: {}\n" + expect)
    assert result.view.tick == 1
    assert result.view.ended is not None


def test_the_time_limit_names_what_was_awaited_and_leaves_the_rest_open(tmp_path: pathlib.Path) -> None:
    more = "  - wait: 60s\nexpect:\n  - {state: paused}\n  - {verdict: violated, invariant: no_leaks}\n"
    result = run(tmp_path / "slow.yaml", FLEET + more, time_limit=2.0)
    assert set(verdicts(result).values()) == {"inconclusive"}
    assert "awaited step 2 (wait)" in reason(result, "time-limit")
    (limit,) = [each for each in result.view.judged if each.subject == "time-limit"]
    assert limit.violations[0]["line"] == 8
    assert result.view.ended is not None
    assert result.view.ended.verdict == "inconclusive"


def test_a_failure_in_what_is_extended_is_shown_in_its_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "base.yaml").write_text(f"name: base\n{FLEET}  - expect: {{state: paused}}\n")
    result = run(tmp_path / "child.yaml", "extends: base.yaml\nexpect:\n  - {state: killed}\n")
    block = failure_block(result.view, result.folder, tmp_path / "child.yaml", result.entries)
    assert f"where      {tmp_path}/base.yaml:8:5" in block
    assert f"where      {tmp_path}/child.yaml:4:5" in block
    assert f"snapdrill run {tmp_path}/child.yaml --seed 0" in block


@pytest.mark.parametrize("rollout", ["0%", "100%"])
def test_a_combination_is_run_again_by_its_name_or_from_its_copy(tmp_path: pathlib.Path, rollout: str) -> None:
    text = FLEET.replace("snapshot: true", 'snapshot: {rollout: "${{ matrix.punch }}", by: sandbox}')
    matrix = "matrix: {punch: [0%, 100%]}\nexpect:\n  - {state: paused}\n"
    path = tmp_path / "both.yaml"
    path.write_text(f"name: both\n{text}  - pause: {{}}\n  - resume: {{}}\n{matrix}")
    (scenario,) = [each for each in load_all(path) if each.chosen["punch"] == rollout]
    result = asyncio.run(run_scenario(scenario, RunOptions(tmp_path / "runs", start_node=forked_node)))
    assert result.view.run is not None
    assert result.view.run.name == f"both[punch={rollout}]"
    stored = result.folder / "scenario.yaml"
    block = failure_block(result.view, result.folder, path, result.entries)
    assert f"where      {path}:12:5" in block
    assert f"snapdrill run {path} --only 'both[punch={rollout}]' --seed 0" in block
    assert f"snapdrill run {stored} --seed 0" in failure_block(result.view, result.folder, stored, result.entries)
    again = asyncio.run(run_scenario(load(stored), RunOptions(tmp_path / "runs", start_node=forked_node)))
    assert again.view.ended is not None
    assert result.view.ended is not None
    assert again.view.ended.digest == result.view.ended.digest
