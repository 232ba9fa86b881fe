"""The result of a rehearsal; weaknesses of a wrong engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sim.files.plan import Plan
from sim.files.scenario import load
from sim.files.shipped import scenario_folder
from sim.files.wrong_engines import SWITCHES
from sim.record.folder import StoredRun
from sim.record.verdict import Verdict
from sim.rollout.analysis import MetricOutcome, MetricResult, Pair
from sim.rollout.arm_losses import ThreeArms
from sim.rollout.compiled import Stage
from sim.rollout.critic import Concern
from sim.rollout.exposure import Exposure
from sim.rollout.incident_clock import StageIncident
from sim.rollout.shown import LossBound
from sim.rollout.stretch import Figures
from sim.rollout.user_fleet import UserFleet
from sim.run.cases import Unit, UnitResult
from sim.run.pool import LocalPool

Decision = Literal["go", "no-go", "inconclusive", "waits for approval"]


@dataclass(frozen=True, slots=True)
class StepResult:
    """One plan step; `at` and `took` seconds of the plan's own clock. `stopped`: the rollout went no further."""

    index: int
    kind: str
    label: str
    weight: float
    outcome: MetricOutcome
    detail: str
    at: float
    took: float
    metrics: tuple[MetricResult, ...] = ()
    stopped: Literal["abort", "wait", "approve"] | None = None


@dataclass(frozen=True, slots=True)
class StageResult:
    """One stage with the flag on, the same one with it off, who was exposed, and what a kill switch leaves behind.

    `saved` bytes at peak.
    """

    stage: Stage
    exposure: Exposure
    on: Figures
    off: Figures
    lost_by_flag: tuple[str, ...]
    saved: int | None
    complete: bool
    incident: StageIncident | None = None


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A plan, rehearsed. `reasons` are why not, or what the go rests on.

    `bound` is what the exposed sandboxes show about losses, `concerns` what the plan's critic says.
    `continues` is the run that stopped for approval, whose stages are among `stages`; `compared` are the same pauses in
    both arms, for a run that goes on from this one. `in_turns`: both arms took each step one after the other; else the
    one with the flag off came first, as a whole. `three` is None unless there was a third arm, with salvage.
    """

    plan: Plan
    decision: Decision
    verdict: Verdict
    reasons: tuple[str, ...]
    steps: tuple[StepResult, ...]
    stages: tuple[StageResult, ...]
    on: StoredRun
    off: StoredRun
    seconds: float
    virtual: float
    kill_switch_ms: tuple[float, ...] = ()
    in_turns: bool = True
    weaknesses: tuple[Weakness, ...] = ()
    conditions: tuple[str, ...] = field(default=())
    bound: LossBound | None = None
    concerns: tuple[Concern, ...] = ()
    fleet: UserFleet | None = None
    continues: Path | None = None
    compared: tuple[Pair, ...] = ()
    three: ThreeArms | None = None

    @property
    def folder(self) -> Path:
        """Where the reports lie: the run with the flag on."""
        return self.on.folder

    @property
    def went_on_after(self) -> int:
        """The approve step (from 0) after which its run began; -1 where it began with the plan."""
        return max((each.index for each in self.steps if each.kind == "approve" and each.stopped is None), default=-1)

    @property
    def first_failing(self) -> StepResult | None:
        """The first step that was not successful."""
        return next((each for each in self.steps if each.outcome is not MetricOutcome.SUCCESSFUL), None)


@dataclass(frozen=True, slots=True)
class Weakness:
    """`shown` by its scenario, `caught_by` that subject; or `mended` in this plan."""

    name: str
    sentence: str
    caught_by: str
    mended: bool
    shown: bool

    def __str__(self) -> str:
        if self.mended:
            return f"mended: {self.name}"
        caught = f"caught by {self.caught_by.partition(':')[2]}" if self.shown else "not shown by its scenario"
        return f"{self.name}: {self.sentence} ({caught})"


def weaknesses(plan: Plan, runs_dir: Path, *, jobs: int, memory: int) -> tuple[Weakness, ...]:
    """One a switch of the plan's profile; each that is not mended is run alone. Nothing for a sound engine."""
    if plan.engine.weak is None:
        return ()
    mended = set(plan.engine.choice()["mended"])
    shown = _shown([name for name in SWITCHES if name not in mended], runs_dir, jobs, memory)
    return tuple(
        Weakness(name, each.sentence, each.caught_by, name in mended, shown.get(name, False))
        for name, each in SWITCHES.items()
    )


def _shown(names: Sequence[str], runs_dir: Path, jobs: int, memory: int) -> Mapping[str, bool]:
    """Each scenario is a canary: it holds where the weakness was caught."""
    folder = scenario_folder("self-test")
    units = [Unit.of(name, load(folder / SWITCHES[name].scenarios[0]), runs_dir) for name in names]
    with LocalPool(jobs, memory) as pool:
        return {result.name: _held(result) for result in pool.run(units)}


def _held(result: UnitResult) -> bool:
    return result.verdict == "held"
