"""Runs a sweep: the clean run, then its cases through the pool, until all are done or something ends it early."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from engine.errors import UserError
from sim.cluster import Pool, Unit, UnitResult
from sim.run_folder import remove
from sim.scenario import Scenario
from sim.sweep.cases import Case, cases_of, only, points_of, shard
from sim.sweep.documents import Swept
from sim.sweep.outcomes import ERROR, INCONCLUSIVE, VIOLATED, CaseResult, out_of_time, result_of, violations
from sim.units import format_size
from sim.verdict import ExitCode, worst

_KEPT = frozenset({VIOLATED, INCONCLUSIVE, ERROR})


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """What is swept, and how. `memory` in bytes for all cases at a time, `time_limit` in seconds a case.

    `shard` is (index from 1, count).
    """

    runs_dir: Path
    jobs: int
    memory: int
    seed: int | None = None
    time_limit: float = 60.0
    only: tuple[str, ...] = ()
    shard: tuple[int, int] = (1, 1)
    fail_fast: bool = False


@dataclass
class Sweep:
    """One scenario's sweep: what its clean run showed, the cases chosen from it, and what came of those that ran."""

    scenario: Scenario
    swept: Swept
    seed: int
    clean: UnitResult
    found: int = 0
    cases: list[Case] = field(default_factory=list)
    results: list[CaseResult] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str | None = None
    """Why cases that were chosen were not run."""

    @property
    def unclean(self) -> str | None:
        """Why nothing could be swept: the clean run did not hold."""
        broken = violations(self.clean)
        told = f"{broken[0].subject}: {broken[0].reasons[0].get('reason')}" if broken and broken[0].reasons else None
        return told or self.clean.error or out_of_time(self.clean)

    @property
    def exit_code(self) -> ExitCode:
        """The worst of its cases; of a sweep without any, what its clean run says."""
        if self.unclean is not None:
            if violations(self.clean):
                return ExitCode.VIOLATED
            return ExitCode.INTERNAL if self.clean.error else ExitCode.INCONCLUSIVE
        if self.cases and not self.results:
            return ExitCode.INCONCLUSIVE
        return worst([each.exit_code for each in self.results])


def choose(scenario: Scenario, options: SweepOptions, pool: Pool) -> Sweep:
    """Run it once clean, traced; gives the sweep with every case that was chosen, and no result yet.

    UserError where one run needs more memory than there is for all.
    """
    seed = scenario.seed if options.seed is None else options.seed
    swept = Swept(scenario, seed)
    unit = replace(_unit(scenario, options, "clean", swept.clean()), trace=True)
    if unit.need > options.memory:
        need, memory = format_size(unit.need), format_size(options.memory)
        raise UserError(f"{scenario.path}: a run of {scenario.name} needs {need}, and --memory is {memory}")
    (clean,) = pool.run([unit])
    sweep = Sweep(scenario, swept, seed, clean)
    if sweep.unclean is None:
        if clean.run_dir is not None:
            remove(clean.run_dir)
        every = cases_of(points_of(clean.points, len(swept.steps)))
        sweep.found = len(every)
        sweep.cases = shard(only(every, options.only), *options.shard)
    return sweep


def run(
    sweep: Sweep,
    options: SweepOptions,
    pool: Pool,
    told: Callable[[CaseResult], None] = lambda _: None,
    deadline: float | None = None,
) -> None:
    """Run its cases; by `deadline`, in seconds of the monotonic clock, none is begun that would end after it.

    Whatever ends it early, an interrupt too, what was run until then is in the sweep.
    """
    began, by_name = time.monotonic(), {each.name: each for each in sweep.cases}
    results = cast("Generator[UnitResult]", pool.run(_units(sweep, options, deadline)))
    try:
        with contextlib.closing(results):
            for result in results:
                done = result_of(by_name[result.name], result)
                if done.outcome not in _KEPT and result.run_dir is not None and not remove(result.run_dir):
                    done = replace(done, run_dir=result.run_dir)  # it has not ended: `snapdrill clean` needs it
                sweep.results.append(done)
                told(done)
                if options.fail_fast and done.outcome == VIOLATED:
                    sweep.stopped = "--fail-fast"
                    break
    except KeyboardInterrupt:
        sweep.stopped = "an interrupt"
        raise
    finally:
        sweep.seconds = time.monotonic() - began


def _units(sweep: Sweep, options: SweepOptions, deadline: float | None) -> Iterator[Unit]:
    for case in sweep.cases:
        mean = sum(each.seconds for each in sweep.results) / max(1, len(sweep.results))
        if deadline is not None and time.monotonic() + mean > deadline:
            sweep.stopped = "--budget"
            return
        yield _unit(sweep.scenario, options, case.name, sweep.swept.case(case))


def _unit(scenario: Scenario, options: SweepOptions, name: str, text: str) -> Unit:
    unit = Unit.of(name, scenario, options.runs_dir)
    return replace(unit, text=text, time_limit=options.time_limit)
