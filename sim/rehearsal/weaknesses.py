"""The weaknesses of a wrong engine, each shown alone by its own scenario: what a plan that runs it answers for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sim.cluster import LocalPool, Unit, UnitResult
from sim.mutants.catalogue import SWITCHES
from sim.rehearsal.plan import Plan
from sim.scenario import load
from sim.shipped_files import scenario_folder


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
    if plan.engine.profile is None:
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
