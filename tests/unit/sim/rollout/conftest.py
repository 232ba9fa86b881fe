"""Rehearsals as they come out, made without a run."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from sim.files.plan import Plan
from sim.record.folder import StoredRun
from sim.record.ledger import EVENTS_FILE
from sim.record.verdict import Verdict
from sim.record.view import View
from sim.rollout.compiled import compiled
from sim.rollout.exposure import exposures
from sim.rollout.results import Rehearsal, StageResult
from sim.rollout.shown import even_rates, incidents, nodes_of
from sim.rollout.stretch import Figures

Made = Callable[..., Rehearsal]


@pytest.fixture
def rehearsed() -> Made:
    """A go of a plan; each stage has the same figures."""

    def made(plan: Plan, on: Figures | None = None, off: Figures | None = None, **more: Any) -> Rehearsal:
        stages = compiled(plan).stages
        exposed = exposures(plan, [each.weight for each in stages])
        rates = [even_rates(plan, each.weight) for each in stages]
        of = zip(stages, exposed, incidents(plan, stages, rates, nodes_of(plan), None), strict=True)
        results = tuple(
            StageResult(stage, each, on or Figures(), off or Figures(), (), None, complete=True, incident=incident)
            for stage, each, incident in of
        )
        run = StoredRun(pathlib.Path("runs") / plan.name / EVENTS_FILE, [], View())
        settings: dict[str, Any] = {"decision": "go", "verdict": Verdict.HELD, "reasons": (), "steps": (), **more}
        return Rehearsal(plan=plan, stages=results, on=run, off=run, seconds=1.0, virtual=1.0, **settings)

    return made
