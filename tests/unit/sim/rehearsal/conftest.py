"""Rehearsals as they come out, made without a run."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from sim.rehearsal.cohorts import exposures
from sim.rehearsal.compiled import compiled
from sim.rehearsal.figures import Figures
from sim.rehearsal.plan import Plan
from sim.rehearsal.propagation import blast_radius
from sim.rehearsal.results import Rehearsal, StageResult
from sim.runner import RunResult
from sim.verdict import Verdict
from sim.view import View

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
