"""Each planted problem is found for its own reason, and its mended twin is not."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from flags.inline import flag_from
from sim.cli import main
from sim.files.plan import load_plan, load_plan_text
from sim.files.yaml import scenario_text
from sim.record.verdict import ExitCode
from sim.rollout.compiled import compiled
from sim.rollout.critic import Concern, critique, stops
from sim.rollout.exposure import exposures

ROLLOUTS = pathlib.Path(__file__).parents[4] / "scenarios" / "rollouts"
CRITICAL = {"name": "lost_because_of_the_flag", "failureCondition": "result > 0", "critical": True}
SUCCESS = {"name": "pause_success_rate", "successCondition": "result >= 0.99"}
WAIT: dict[str, Any] = {"wait": {"for": "30m"}}
LOOK: dict[str, Any] = {"analysis": {}}
DRILL: dict[str, Any] = {"drill": {"killSwitch": {"maxPropagation": "10s"}}}
FAULT: dict[str, Any] = {"inject": {"fault": "copy.write", "errno": "EIO"}}


def stage(weight: float, *steps: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"setWeight": weight}, *(steps or (WAIT, LOOK))]


def plan(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "kind": "plan",
        "name": "planted",
        "contexts": "all",
        "production": {"sandboxes": 20_000, "pausesPerMinute": 400},
        "fleet": [{"name": "box", "count": 40, "memory": "1MiB", "team": "acme"}],
        "metrics": [CRITICAL, SUCCESS],
        "steps": list(steps or SOUND),
    } | more


SOUND = [*stage(0), *stage(5), *stage(25, WAIT, LOOK, DRILL), *stage(100)]


def concerns(document: dict[str, Any]) -> list[Concern]:
    made = compiled(load_plan_text(scenario_text(document), pathlib.Path("plan.yaml")))
    return critique(made, exposures(made.plan, [each.weight for each in made.stages]))


def named(document: dict[str, Any]) -> list[tuple[str, int | None]]:
    return [(each.name, each.step) for each in stops(concerns(document))]


@pytest.mark.parametrize(("lease", "noted"), [({}, ["half-open"]), ({"lease": "2s"}, [])])
def test_launchdarkly_without_a_heartbeat_is_noted_though_the_kill_switch_is_drilled(
    lease: dict[str, str], noted: list[str]
) -> None:
    found = concerns(plan(flags={"source": "launchdarkly"}, time="real", **lease))
    assert [each.name for each in found if each.severity == "note" and each.name == "half-open"] == noted
    assert all("punch-heartbeat" in each.mend for each in found if each.name == "half-open")


def test_a_sound_plan_has_no_concern() -> None:
    assert concerns(plan()) == []


def test_a_rule_on_what_a_group_says_of_its_sandboxes_is_sound_for_values_of_that_type(tmp_path: pathlib.Path) -> None:
    big = {"contextKind": "sandbox", "attribute": "cores", "op": "greaterThan", "values": [4]}
    flag = flag_from("memfd-punch-on-snapshot", True) | {"rules": [{"variation": 0, "clauses": [big]}]}
    (tmp_path / "own.json").write_text(json.dumps({"flags": {flag["key"]: flag}}))

    def found(cores: Any) -> list[str]:
        group = {"name": "box", "count": 40, "memory": "1MiB", "team": "acme", "attributes": {"cores": cores}}
        document = plan(fleet=[group], flags={"file": "own.json"})
        made = compiled(load_plan_text(scenario_text(document), tmp_path / "plan.yaml"))
        every = exposures(made.plan, [each.weight for each in made.stages])
        return [each.what for each in critique(made, every) if each.name == "flag"]

    assert found(8) == []
    assert "greaterThan compares numbers, and sandbox cores is text" in found("8")[0]


def test_from_1_to_100_percent_is_too_large_a_jump_for_what_1_percent_showed() -> None:
    wide = plan(*stage(0), *stage(5), *stage(100, WAIT, LOOK, DRILL))
    (found,) = stops(concerns(wide))
    assert (found.name, found.step) == ("jump", 6)
    assert "sandboxes exposed up to there rule out no loss rate below" in found.what
    assert found.mend == "put a stage of at most 50 % before it"
    assert named(plan(*stage(0), *stage(11, WAIT, LOOK, DRILL))) == [("jump", 3)]


def test_a_stage_must_last_until_exposed_pauses_are_to_be_expected() -> None:
    short = [*stage(0), *stage(5, LOOK), *stage(25, WAIT, LOOK, DRILL), *stage(100)]
    (found,) = stops(concerns(plan(*short)))
    assert (found.name, found.step) == ("bake", 3)
    assert found.what.startswith("5 % for 0 s: 0 exposed pauses")
    # 400 pauses a minute; 3 of 40 sandboxes are exposed at 5 %: 30 exposed pauses a minute, 3 in 6 s
    assert found.mend == "wait at least 6 s at this weight"
    short[4:4] = [{"wait": {"for": "6s"}}]
    assert named(plan(*short)) == []


def test_a_stage_that_exposes_nobody_or_too_few_contexts_is_found() -> None:
    few = plan(*stage(0), *stage(0.1), *stage(1, WAIT, LOOK, DRILL), *stage(10))
    assert named(few) == [("nobody", 3)]
    asked = [*stage(0), *stage(5, {"wait": {"for": "30m", "minimumContexts": 9}}, LOOK), *stage(25, WAIT, LOOK, DRILL)]
    assert named(plan(*asked)) == [("nobody", 4)]


def test_one_team_that_is_most_of_a_stage_and_not_of_the_fleet_is_found() -> None:
    giant = [{"name": "giant", "count": 40, "memory": "1MiB", "team": "giant-0"}]
    others = [{"name": f"t{n}", "count": 2, "memory": "1MiB", "team": f"t{n}"} for n in range(30)]
    by_team = plan(*stage(0), *stage(10), *stage(50, WAIT, LOOK, DRILL), *stage(100), by="team", fleet=giant + others)
    found = stops(concerns(by_team))
    assert {each.name for each in found} == {"one-team"}
    assert "team giant-0 is" in found[0].what
    assert named(by_team | {"by": "sandbox"}) == []


def test_a_plan_whose_metrics_cannot_stop_it_is_found() -> None:
    without = [each for each in SOUND if "analysis" not in each]
    assert ("no-metrics", None) in named(plan(*without, metrics=[]))
    assert ("all-dry-run", None) in named(plan(metrics=[CRITICAL | {"dryRun": True}]))
    assert ("no-critical", None) in named(plan(metrics=[SUCCESS]))


@pytest.mark.parametrize(
    ("metric", "name", "why"),
    [
        ({"failureCondition": "result > 1"}, "cannot-fire", "no result meets result > 1"),
        ({"successCondition": "result >= 0"}, "cannot-fire", "every result meets result >= 0"),
        ({"successCondition": "result >= 0.9", "failureLimit": -1}, "cannot-fire", "any number of failures"),
        ({"successCondition": "result >= 0.9", "failureLimit": 1}, "cannot-fire", "bears 1 failures of 1 measurement"),
        ({"failureCondition": "result >= 0"}, "must-fire", "every result meets result >= 0"),
        ({"successCondition": "result > 1"}, "must-fire", "no result meets result > 1"),
    ],
)
def test_a_threshold_that_cannot_or_must_fire_is_found(metric: dict[str, Any], name: str, why: str) -> None:
    (found,) = stops(concerns(plan(metrics=[CRITICAL, {"name": "pause_success_rate", **metric}])))
    assert found.name == name
    assert why in found.what


@pytest.mark.parametrize(
    "metric",
    [
        {"name": "budget_used", "failureCondition": "result > 1"},  # a budget can be overrun
        {"name": "bytes_saved", "failureCondition": "result < 0"},
        {"name": "discards", "failureCondition": "result == 3"},
        {"name": "pause_success_rate", "successCondition": "result >= 0.9", "failureCondition": "result > 1"},
    ],
)
def test_a_threshold_that_can_fire_is_not_found(metric: dict[str, Any]) -> None:
    assert named(plan(metrics=[CRITICAL, metric])) == []


@pytest.mark.parametrize(("bound", "found"), [(39, []), (40, ["cannot-fire"])])
def test_no_more_sandboxes_can_be_lost_than_are_rehearsed(bound: int, found: list[str]) -> None:
    metric = {"name": "lost_because_of_the_flag", "failureCondition": f"result > {bound}", "critical": True}
    assert [each.name for each in stops(concerns(plan(metrics=[metric])))] == found


def test_a_metric_that_no_analysis_measures_is_found() -> None:
    only = [each if "analysis" not in each else {"analysis": {"metrics": ["pause_success_rate"]}} for each in SOUND]
    (found,) = stops(concerns(plan(*only)))
    assert (found.name, "no analysis measures it" in found.what) == ("cannot-fire", True)


def test_a_ratio_of_times_is_not_asked_for_before_there_are_six_exposed_rounds() -> None:
    ratio = {"name": "copy_p50_ratio", "successCondition": "result <= 3"}
    found = named(plan(metrics=[CRITICAL, ratio]))
    assert [name for name, _ in found] == ["too-few-rounds"] * 3
    borne = ratio | {"inconclusiveLimit": -1}
    assert named(plan(metrics=[CRITICAL, borne])) == []


def test_a_stream_without_lease_or_drill_is_found() -> None:
    relay: dict[str, Any] = {"flags": {"source": "relay"}, "time": "real", "lease": "none"}
    undrilled = [each for each in SOUND if each is not DRILL]
    assert named(plan(*undrilled, **relay)) == [("half-open", None)]
    assert named(plan(*undrilled, **relay | {"lease": "1s"})) == []
    assert named(plan(**relay)) == []
    frozen = [*SOUND, {"outage": {"fault": "freeze"}}]
    assert named(plan(*frozen, **relay)) == [("half-open", len(SOUND))]
    assert named(plan(*frozen, DRILL, **relay)) == []


def test_a_fault_that_the_next_weight_disarms_is_found() -> None:
    early = [*stage(0), FAULT, *stage(5), *stage(25, WAIT, LOOK, DRILL), *stage(100)]
    assert named(plan(*early)) == [("disarmed", 3)]
    late = [*stage(0), *stage(5), *stage(25, FAULT, WAIT, LOOK, DRILL), *stage(100)]
    assert named(plan(*late)) == []


def notes(document: dict[str, Any]) -> Iterator[str]:
    return (each.name for each in concerns(document) if each.severity == "note")


def test_what_is_only_worth_a_look_stops_nothing() -> None:
    unwatched = [*stage(0), *stage(5, WAIT), *stage(25), *stage(100)]
    assert set(notes(plan(*unwatched))) == {"unwatched", "no-drill"}
    loose = SUCCESS | {"onFailure": "continue"}
    assert list(notes(plan(metrics=[CRITICAL, loose]))) == ["continues"]


def test_the_shipped_plan_has_no_concern_that_stops_it() -> None:
    made = compiled(load_plan(ROLLOUTS / "punch.yaml"))
    found = critique(made, exposures(made.plan, [each.weight for each in made.stages]))
    assert stops(found) == []


TEAM = {"contextKind": "team", "attribute": "key", "op": "in", "values": ["acme"]}
VERSION = {"contextKind": "sandbox", "attribute": "kernel-version", "op": "semVerLessThan", "values": ["6.2.x"]}
MEMBER = {"attribute": "", "op": "segmentMatch", "values": ["early"]}
EARLY = {
    "key": "early",
    "salt": "e",
    "rules": [{"clauses": [], "weight": 5_000, "rolloutContextKind": "team"}],
}
ABSENT = 'no context has the kind "team" when the flag is read'


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        ({"id": "deny", "variation": 0, "clauses": [TEAM]}, ABSENT),
        ({"id": "deny", "variation": 0, "clauses": [VERSION]}, '"6.2.x" is no version'),
        ({"id": "deny", "variation": 0, "clauses": [MEMBER]}, ABSENT),
        ({"id": "early", "variation": 1, "clauses": [MEMBER]}, ABSENT),
    ],
)
def test_a_users_flag_with_a_deny_rule_or_a_share_that_matches_nobody_ends_in_no_go(
    rule: dict[str, Any], what: str, tmp_path: pathlib.Path
) -> None:
    flag = flag_from("memfd-punch-on-snapshot", False) | {"rules": [rule]}
    document = {"flags": {flag["key"]: flag}, "segments": {"early": EARLY}}
    (tmp_path / "flags.json").write_text(json.dumps(document))
    written = plan(flags={"file": "flags.json"}, contexts="original")
    path = tmp_path / "plan.yaml"
    path.write_text(scenario_text(written))
    made = compiled(load_plan(path))
    found = stops(critique(made, exposures(made.plan, [each.weight for each in made.stages])))
    assert [each.what.split(": ")[1] for each in found if each.name == "flag" and what in each.what]
    assert main(["validate", str(path)]) == ExitCode.HELD
    assert main(["rehearse", str(path), "--dry-run"]) == ExitCode.INCONCLUSIVE
