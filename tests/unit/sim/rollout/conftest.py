"""Rehearsals as they come out, made without a run."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from sim.files.plan import Plan
from sim.files.propagation import blast_radius
from sim.record.verdict import Verdict
from sim.record.view import View
from sim.rollout.compiled import compiled
from sim.rollout.exposure import exposures
from sim.rollout.results import Rehearsal, StageResult
from sim.rollout.stretch import Figures
from sim.run.runner import RunResult

Made = Callable[..., Rehearsal]


@pytest.fixture
def rehearsed() -> Made:
    """A go of a plan; each stage has the same figures."""

    def made(plan: Plan, on: Figures | None = None, off: Figures | None = None, **more: Any) -> Rehearsal:
        stages = compiled(plan).stages
        drawn = tuple(plan.propagation.draw(1, "x"))
        fleet = plan.production.sandboxes if plan.production else len(plan.sandboxes())
        pace = (plan.production or plan.pacing).pauses_per_minute
        results = tuple(
            StageResult(
                stage, exposure, on or Figures(), off or Figures(), blast_radius(fleet, stage.weight, pace, drawn),
                (), None, complete=True,
            )
            for stage, exposure in zip(stages, exposures(plan, [each.weight for each in stages]), strict=True)
        )  # fmt: skip
        run = RunResult(View(), [], pathlib.Path("runs") / plan.name)
        settings: dict[str, Any] = {"decision": "go", "verdict": Verdict.HELD, "reasons": (), "steps": (), **more}
        return Rehearsal(plan=plan, stages=results, drawn=drawn, on=run, off=run, seconds=1.0, virtual=1.0, **settings)

    return made
