"""Plans with one planted problem each are stopped for its own reason, by critic or gate; mended they are a go."""

from __future__ import annotations

import asyncio
import json
import pathlib
from dataclasses import replace
from typing import Any

import pytest

from sim.cli import main
from sim.files.plan import load_plan, load_plan_text
from sim.files.yaml import scenario_text
from sim.record.verdict import ExitCode
from sim.rollout.analysis import MetricOutcome
from sim.rollout.compiled import compiled
from sim.rollout.critic import critique, stops
from sim.rollout.exposure import exposures_of
from sim.rollout.rehearse import decided, rehearse
from sim.rollout.results import Rehearsal
from sim.run.runner import RunOptions
from tests.forked import forked_node

Document = dict[str, Any]
LOST = {"name": "lost_because_of_the_flag", "failureCondition": "result > 0", "critical": True}
SUCCESS = {"name": "pause_success_rate", "successCondition": "result >= 0.99"}
WAIT: Document = {"wait": {"for": "10m"}}
LOOK: Document = {"analysis": {}}
DRILL: Document = {"drill": {"killSwitch": {"maxPropagation": "10s"}}}
TWO_PERCENT: Document = {"inject": {"fault": "copy.write", "at": "after_condemn", "rate": "2%", "count": 1}}
FIRST = [{"setWeight": 10}, WAIT, LOOK, DRILL]
HALF = [{"setWeight": 50}, WAIT, LOOK]
LAST = [{"setWeight": 100}, TWO_PERCENT, WAIT, LOOK]
BOX = {
    "name": "box",
    "count": 10,
    "memory": "4MiB",
    "team": "giant",
    "workload": {"dirty": "20%", "pattern": "scattered"},
}
OTHERS = [BOX | {"name": f"t{number}", "count": 1, "team": f"team-{number}"} for number in (1, 2, 3, 4, 6, 8, 9)]


def sound(*steps: Document, **changed: Any) -> Document:
    """Two of a hundred copies fail, and are salvaged; a key that is changed to None is left out."""
    made = {
        "kind": "plan",
        "name": "planted",
        "seed": 28,  # draws a fault for box-4 in its fourth pause
        "contexts": "all",
        "pacing": {"mostRounds": 1, "concurrency": 4},
        "production": {"sandboxes": 20_000, "pausesPerMinute": 400},
        "engine": {"on_copy_failure": "salvage"},
        "fleet": [BOX, *OTHERS],
        "flags": {"memfd-background-copy": False},
        "metrics": [LOST, SUCCESS],
        "steps": list(steps) or [*FIRST, *HALF, *LAST],
    } | changed
    return {key: value for key, value in made.items() if value is not None}


def run(document: Document, folder: pathlib.Path) -> Rehearsal:
    plan = load_plan_text(scenario_text(document), pathlib.Path("plan.yaml"))
    return asyncio.run(rehearse(plan, RunOptions(folder / "runs", start_node=forked_node)))


@pytest.fixture(scope="module")
def mended(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    """The twin of every plan below: each of them differs from it in one thing."""
    return run(sound(), tmp_path_factory.mktemp("mended"))


def test_the_mended_plan_is_a_go_although_a_copy_failed_and_was_salvaged(mended: Rehearsal) -> None:
    assert (mended.decision, mended.verdict.exit_code) == ("go", ExitCode.HELD)
    assert list(mended.concerns) == []
    assert sum(each.fired for each in mended.on.view.faults) == 1


SOON: Document = {"wait": {"for": "50ms"}}


def streamed(*drill: Document) -> Document:
    """Over the relay, in real time, without a lease."""
    steps = [{"setWeight": 10}, SOON, LOOK, *drill, {"setWeight": 100}, SOON, LOOK]
    fleet = [BOX | {"count": 7, "memory": "1MiB"}]
    return sound(*steps, time="real", lease="none", flags={"source": "relay"}, fleet=fleet, engine=None)


PLANTED: dict[str, tuple[Document, str, int | None]] = {
    "from 5 to 100 %": (sound({"setWeight": 5}, *FIRST[1:], *LAST), "jump", 4),
    "no bake": (sound(*FIRST, {"setWeight": 50}, LOOK, *LAST), "bake", 4),
    "a threshold that cannot fire": (
        sound(metrics=[LOST, SUCCESS | {"successCondition": "result >= 0"}]),
        "cannot-fire",
        None,
    ),
    "no metrics": (sound(*[each for each in sound()["steps"] if each is not LOOK], metrics=[]), "no-metrics", None),
    "a giant team": (sound(by="team"), "one-team", 4),
    "half-open without a drill": (streamed(), "half-open", None),
}


@pytest.mark.parametrize("problem", PLANTED)
def test_the_critic_stops_a_planted_problem_for_its_own_reason(
    problem: str, mended: Rehearsal, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document, name, step = PLANTED[problem]
    path = tmp_path / "plan.yaml"
    path.write_text(scenario_text(document))
    assert main(["rehearse", str(path), "--dry-run", "--json"]) == ExitCode.INCONCLUSIVE
    found = [each for each in json.loads(capsys.readouterr().out)["concerns"] if each["severity"] == "stop"]
    assert [(each["name"], each["step"]) for each in found] == [(name, step)]
    plan = load_plan(path)
    made = compiled(plan)
    run_all_the_same = replace(mended, plan=plan, concerns=tuple(critique(made, exposures_of(made))))
    assert decided(run_all_the_same).decision == "inconclusive"
    assert [f"{name}: {found[0]['what']}" in each for each in decided(run_all_the_same).reasons] == [True]


def test_a_stream_whose_kill_switch_is_drilled_is_a_go(tmp_path: pathlib.Path) -> None:
    soon = {"drill": {"killSwitch": {"maxPropagation": "500ms"}}}  # real time: it is waited for in both arms
    found = run(streamed(soon), tmp_path)
    assert (found.decision, stops(found.concerns)) == ("go", [])


def without(key: str, **changed: Any) -> Document:
    return sound(**{key: None}, **changed)


@pytest.mark.parametrize(
    ("document", "metric", "weight"),
    [
        pytest.param(without("engine"), "lost_because_of_the_flag", 100.0, id="2 % failures without salvage"),
        pytest.param(sound(node={"memory": "72MiB"}), "pause_success_rate", 10.0, id="a budget that is too small"),
    ],
)
def test_a_gate_stops_a_planted_problem_for_its_own_reason(
    document: Document, metric: str, weight: float, tmp_path: pathlib.Path
) -> None:
    found = run(document, tmp_path)
    assert (found.decision, found.verdict.exit_code, stops(found.concerns)) == ("no-go", ExitCode.VIOLATED, [])
    last = found.steps[-1]
    assert (last.kind, last.stopped, last.weight) == ("analysis", "abort", weight)
    bad = [each.metric.name for each in last.metrics if each.outcome is not MetricOutcome.SUCCESSFUL]
    assert metric in bad
