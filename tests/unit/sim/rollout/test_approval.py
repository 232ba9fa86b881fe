from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.errors import UserError
from sim.files.guests import plan_with_guests
from sim.files.plan import Metric, Plan, changed, load_plan
from sim.rollout.analysis import Arms, Measurement, MetricOutcome, MetricResult, Pair
from sim.rollout.approval import APPROVAL_FILE, approval_document, approved
from sim.rollout.compiled import compiled
from sim.rollout.exposure import exposures_of
from sim.rollout.gates import Gates, Recorder
from sim.rollout.ratio_interval import RatioInterval
from sim.rollout.rehearse import decided
from sim.rollout.results import Rehearsal, StepResult
from sim.rollout.stretch import Figures, PauseCost

Made = Callable[..., Rehearsal]
TEXT = """\
kind: plan
name: approved
seed: 7
fleet: [{name: web, count: 4, memory: 1MiB}]
flags: {file: flags.json}
metrics:
  - {name: copy_p50_ratio, successCondition: result <= 3, inconclusiveLimit: -1}
steps:
  - setWeight: 50
  - wait: {for: 1m}
  - analysis: {}
  - approve: {}
  - setWeight: 100
  - wait: {for: 1m}
"""
KEY = "memfd-punch-on-snapshot"
FLAG = {
    "key": KEY,
    "version": 1,
    "on": True,
    "salt": "s",
    "variations": [False, True],
    "fallthrough": {"variation": 0},
    "offVariation": 0,
}
COST = PauseCost("web-0", 1, 2.5, on=True, punched=True, copy_ms=1.5, peak_over=4096)
PAIRS = (Pair(COST, replace(COST, on=False, punched=False)),)
FIGURES = Figures(asked=3, punched=("web-0",), costs=(COST,), reasons={"FALLTHROUGH": 3})


@pytest.fixture
def plan(tmp_path: pathlib.Path) -> Plan:
    (tmp_path / "flags.json").write_text(json.dumps({"flags": {KEY: FLAG}}))
    (tmp_path / "plan.yaml").write_text(TEXT)
    return load_plan(tmp_path / "plan.yaml")


@pytest.fixture
def found(plan: Plan, rehearsed: Made) -> Rehearsal:
    """Stopped at the approval: one stage, with a ratio of seven rounds."""
    interval = RatioInterval(rounds=7, value=1.1, low=0.9, high=1.4, level=0.95, lag1=0.2)
    measured = Measurement(1.1, MetricOutcome.SUCCESSFUL, 0.9, 1.4, "", interval)
    metric = MetricResult(plan.metrics[0], (measured,), MetricOutcome.SUCCESSFUL, "x")
    steps = [
        StepResult(number, kind, kind, 50.0, MetricOutcome.SUCCESSFUL, "", 0.0, 0.0)
        for number, kind in enumerate(("setWeight", "wait", "analysis", "approve"))
    ]
    steps[2], steps[3] = replace(steps[2], metrics=(metric,)), replace(steps[3], stopped="approve")
    made = rehearsed(plan, on=FIGURES, steps=tuple(steps), compared=PAIRS)
    return replace(made, stages=made.stages[:1])


def stored(found: Rehearsal, folder: pathlib.Path) -> pathlib.Path:
    (folder / APPROVAL_FILE).write_text(json.dumps(approval_document(found, 7)))
    return folder


def test_an_approval_is_neither_a_go_nor_a_refusal_and_says_how_to_go_on(found: Rehearsal) -> None:
    decision = decided(found)
    assert (decision.decision, int(decision.verdict.exit_code)) == ("waits for approval", 3)
    assert f"--continue {found.folder}" in decision.reasons[0]


def test_a_critical_metric_that_failed_before_an_approval_is_a_refusal(found: Rehearsal) -> None:
    bad = Metric.model_validate({"name": "lost", "failureCondition": "result > 0", "critical": True})
    failed = MetricResult(bad, (), MetricOutcome.FAILED, "one lost")
    steps = (*found.steps[:2], replace(found.steps[2], metrics=(failed,)), found.steps[3])
    assert decided(replace(found, steps=steps)).decision == "no-go"


def test_what_was_shown_before_an_approval_comes_back_from_its_file(
    plan: Plan, found: Rehearsal, tmp_path: pathlib.Path
) -> None:
    since = approved(stored(found, tmp_path), plan)
    on = compiled(plan, after=since.last)
    gates = Gates(on, exposures_of(on), Recorder(compiled(plan, "off", since.last)))
    since.put_into(gates)
    assert (since.last, since.seed, gates.clock) == (3, 7, found.virtual)
    assert gates.results[:3] == list(found.steps[:3])
    assert (gates.results[3].stopped, gates.results[3].detail[:8]) == (None, "approved")
    assert gates.arms == {1: Arms(FIGURES, Figures(), plan.node.memory, plan.pacing.at_once)}
    (pair,) = gates.earlier
    assert pair.on == replace(COST, nth=-1)  # before round 0 of the run that goes on


@pytest.mark.parametrize(
    "what", ["plan", "flag file", "lease", "guest", "seed", "nothing stored", "cut off", "version"]
)
def test_a_rehearsal_goes_on_only_with_what_was_approved(
    what: str, plan: Plan, found: Rehearsal, tmp_path: pathlib.Path
) -> None:
    folder, seed = stored(found, tmp_path), None
    match what:
        case "plan":
            (tmp_path / "plan.yaml").write_text(TEXT.replace("1m", "2m"))
            plan = load_plan(tmp_path / "plan.yaml")
        case "flag file":
            served = {"flags": {KEY: {**FLAG, "salt": "t"}}}
            (tmp_path / "flags.json").write_text(json.dumps(served))
        case "lease":
            plan = changed(plan, lease="3s")
        case "guest":
            plan = plan_with_guests(plan, "vm")
        case "seed":
            seed = 8
        case "nothing stored":
            (folder / APPROVAL_FILE).unlink()
        case "cut off":
            (folder / APPROVAL_FILE).write_text((folder / APPROVAL_FILE).read_text()[:-9])
        case "version":
            (folder / APPROVAL_FILE).write_text(json.dumps(approval_document(found, 7) | {"version": 2}))
    with pytest.raises(UserError, match=r"^--continue: [^\n]+$"):
        approved(folder, plan, seed)
