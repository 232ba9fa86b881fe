"""A rehearsal's steps and stages as events, in the ledger of its arm with the flag on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sim.record.rollout_events import PlanBegan, PlanStepEnded, StageMeasured
from sim.rollout.compiled import Compiled
from sim.rollout.exposure import Exposure
from sim.rollout.gates import label
from sim.rollout.results import StageResult, StepResult
from sim.rollout.shown import LossBound


def plan_began(made: Compiled, exposures: Sequence[Exposure]) -> PlanBegan:
    """As the run begins."""
    fleet = len(made.plan.sandboxes())
    stages = [
        {
            "weight": stage.weight,
            "first": stage.steps[0],
            "exposed": len(exposure.sandboxes),
            "able": len(exposure.able),
            "of": fleet,
        }
        for stage, exposure in zip(made.stages, exposures, strict=True)
    ]
    return PlanBegan(made.plan.name, made.plan.flag, made.plan.by, [label(each) for each in made.plan.steps], stages)


def step_ended(result: StepResult) -> PlanStepEnded:
    """One step, concluded."""
    return PlanStepEnded(
        step=result.index,
        label=result.label,
        weight=result.weight,
        outcome=result.outcome.value,
        detail=result.detail,
        at=result.at,
        took=result.took,
        stopped=result.stopped,
    )


def stage_measured(result: StageResult, bound: LossBound) -> StageMeasured:
    """A stage so far; its incident clock where it has one."""
    on, incident = result.on, result.incident
    measured = StageMeasured(
        stage=result.stage.number,
        weight=result.stage.weight,
        exposed=len(result.exposure.sandboxes),
        pauses=on.asked,
        punched=len(on.punched),
        discarded=on.discarded,
        lost=len(on.lost),
        lost_by_flag=len(result.lost_by_flag),
        complete=result.complete,
        rate=bound.rate,
        tried=bound.tried,
        confidence=bound.confidence,
        demanded=None if bound.demanded is None else str(bound.demanded),
        met=bound.is_met,
    )
    if incident is None:
        return measured
    return replace(
        measured,
        obeyed=list(incident.obeyed),
        reached=[incident.punched.p50, incident.punched.p99],
        at_stake=incident.exposed,
        any=incident.punched.any,
        parts=[
            {"name": part.name, "p50": part.delay.quantile(0.5), "p99": part.delay.quantile(0.99), "known": part.known}
            for part in incident.parts
        ],
    )
