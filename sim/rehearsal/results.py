"""What a rehearsal came to: steps, stages, and go or no-go with its reasons. Frozen values that every report reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sim.rehearsal.analysis import MetricResult, Outcome
from sim.rehearsal.cohorts import Exposure
from sim.rehearsal.compiled import Stage
from sim.rehearsal.figures import Figures
from sim.rehearsal.plan import Plan
from sim.rehearsal.propagation import BlastRadius
from sim.rehearsal.weaknesses import Weakness
from sim.runner import RunResult
from sim.verdict import Verdict

Decision = Literal["go", "no-go", "inconclusive"]


@dataclass(frozen=True, slots=True)
class StepResult:
    """One plan step; `at` and `took` seconds of the plan's own clock. `stopped`: the rollout went no further."""

    index: int
    kind: str
    label: str
    weight: float
    outcome: Outcome
    detail: str
    at: float
    took: float
    metrics: tuple[MetricResult, ...] = ()
    stopped: Literal["abort", "wait"] | None = None


@dataclass(frozen=True, slots=True)
class StageResult:
    """One stage with the flag on, the same one with it off, who was exposed, and what a kill switch leaves behind.

    `saved` bytes at peak.
    """

    stage: Stage
    exposure: Exposure
    on: Figures
    off: Figures
    blast: BlastRadius
    lost_by_flag: tuple[str, ...]
    saved: int | None
    complete: bool


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A plan, rehearsed. `reasons` are why not, or what the go rests on; `drawn` sorted seconds of propagation.

    `in_turns`: both arms took each step one after the other; else the one with the flag off came first, as a whole.
    """

    plan: Plan
    decision: Decision
    verdict: Verdict
    reasons: tuple[str, ...]
    steps: tuple[StepResult, ...]
    stages: tuple[StageResult, ...]
    drawn: tuple[float, ...]
    on: RunResult
    off: RunResult
    seconds: float
    virtual: float
    kill_switch_ms: tuple[float, ...] = ()
    in_turns: bool = True
    weaknesses: tuple[Weakness, ...] = ()
    conditions: tuple[str, ...] = field(default=())

    @property
    def folder(self) -> Path:
        """Where the reports lie: the run with the flag on."""
        return self.on.run_dir

    @property
    def first_failing(self) -> StepResult | None:
        """The first step that was not successful."""
        return next((each for each in self.steps if each.outcome is not Outcome.SUCCESSFUL), None)
