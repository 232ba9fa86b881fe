"""What is known of a rehearsal at one moment, and of its decision once it has ended."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from engine.reading import read_regular
from sim.record.ledger import Entry
from sim.record.rollout_events import PlanBegan, PlanStepEnded, StageMeasured

REHEARSAL_FILE = "rehearsal.json"
"""In the run folder of the arm with the flag on, once the rehearsal has ended."""
_MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class RolloutView:
    """The plan, its steps that were concluded, and what each stage (by its number, from 1) has shown so far."""

    plan: PlanBegan
    steps: tuple[PlanStepEnded, ...] = ()
    stages: tuple[StageMeasured, ...] = ()

    @property
    def stopped(self) -> bool:
        """The plan goes no further."""
        return bool(self.steps) and (self.steps[-1].stopped is not None or len(self.steps) == len(self.plan.steps))

    @property
    def current(self) -> int | None:
        """The step (0-based) that is under way."""
        return None if self.stopped else len(self.steps)


def next_rollout(rollout: RolloutView | None, entry: Entry) -> RolloutView | None:
    """The rehearsal after the entry."""
    match entry.event:
        case PlanBegan() as began:
            return RolloutView(began)
        case PlanStepEnded() as step if rollout is not None:
            return replace(rollout, steps=(*rollout.steps, step))
        case StageMeasured() as stage if rollout is not None:
            others = [each for each in rollout.stages if each.stage != stage.stage]
            return replace(rollout, stages=tuple(sorted([*others, stage], key=lambda each: each.stage)))
    return rollout


@dataclass(frozen=True, slots=True)
class RolloutDecision:
    """`go`, `no-go`, `inconclusive` or `waits for approval`, and why."""

    decision: str
    reasons: tuple[str, ...]


def decision_of(folder: Path) -> RolloutDecision | None:
    """Of the rehearsal whose run this is; None where it has not ended, or this run is none."""
    try:
        known = json.loads(read_regular(folder / REHEARSAL_FILE, _MOST_BYTES))
        return RolloutDecision(str(known["decision"]), tuple(map(str, known["reasons"])))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
