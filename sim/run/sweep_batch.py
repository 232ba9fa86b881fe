"""Sweeps one after the other: progress, interrupts, outputs, and the worst exit code."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from sim.files.scenario import Scenario
from sim.record.verdict import ExitCode, worst
from sim.run.batch import read_all, refuse
from sim.run.dask import open_pool
from sim.run.pool import Pool
from sim.run.sweep import (
    VIOLATED,
    CaseResult,
    Sweep,
    SweepOptions,
    choose,
    run,
)
from sim.run.sweep_report import blocks, chosen, summary


class TerminatedError(KeyboardInterrupt):
    """SIGTERM came."""


class SweepBatch:
    """What one `snapdrill sweep` was asked for, and what came of it. `budget` in seconds, for all together; `cluster`
    as open_pool has it.
    """

    def __init__(
        self,
        options: SweepOptions,
        *,
        budget: float | None = None,
        only_list: bool = False,
        quiet: bool = False,
        cluster: str | None = None,
    ) -> None:
        self._options = options
        self._cluster = cluster
        self._deadline = None if budget is None else time.monotonic() + budget
        self._only_list = only_list
        self._quiet = quiet
        self.sweeps: list[Sweep] = []
        self.skipped: list[dict[str, str]] = []

    def run(self, scenarios: Sequence[Scenario]) -> ExitCode:
        """All of them; the worst exit code. An interrupt ends what runs, and what was covered until then is told."""
        codes: list[ExitCode] = []
        try:
            with _terminable(), open_pool(self._cluster, self._options.jobs, self._options.memory) as pool:
                able = [each for each in scenarios if not self._skip(each, pool)]
                codes += [ExitCode.UNSUPPORTED] * len(self.skipped)
                for index, scenario in enumerate(able):
                    codes.append(self._sweep(scenario, pool, after=len(able) - index - 1))
                    if self._options.fail_fast and codes[-1] == ExitCode.VIOLATED:
                        break
        except KeyboardInterrupt as interrupt:
            if self.sweeps and not self._only_list:
                self._report(self.sweeps[-1])
            codes.append(ExitCode.TERMINATED if isinstance(interrupt, TerminatedError) else ExitCode.INTERRUPTED)
        return worst(codes)

    def _skip(self, scenario: Scenario, pool: Pool) -> bool:
        reason = pool.lacks(scenario)
        if reason is not None:
            self.skipped.append({"name": scenario.name, "reason": reason})
            click.echo(f"{scenario.name}: skipped: {reason}", err=True)
        return reason is not None

    def _sweep(self, scenario: Scenario, pool: Pool, after: int) -> ExitCode:
        """`after` is how many scenarios are still to come: each gets an equal share of the budget that is left."""
        sweep = choose(scenario, self._options, pool)
        self.sweeps.append(sweep)
        if self._only_list and sweep.unclean is None:
            if not self._quiet:
                click.echo("".join(f"{case.name}\n" for case in sweep.cases), nl=False)
            if not sweep.cases:
                click.echo(f"{scenario.name}: {chosen(sweep)}", err=True)
            return ExitCode.HELD if sweep.cases else ExitCode.NOTHING_SELECTED
        now, deadline = time.monotonic(), self._deadline
        if deadline is not None:
            deadline = now + (deadline - now) / (after + 1)
        with _progress(sweep, quiet=self._quiet) as told:
            run(sweep, self._options, pool, told, deadline)
        self._report(sweep)
        return sweep.exit_code

    def _report(self, sweep: Sweep) -> None:
        if not self._quiet:
            click.echo(summary(sweep) + "\n")
        if text := blocks(sweep):
            click.echo(text + "\n", err=self._quiet)


def load_scenarios(paths: Sequence[Path]) -> list[Scenario]:
    """Read every file before anything starts; raises UserError with every mistake of every file."""
    scenarios, mistakes = read_all(paths)
    refuse(mistakes)
    return scenarios


@contextlib.contextmanager
def _progress(sweep: Sweep, *, quiet: bool) -> Iterator[Callable[[CaseResult], None]]:
    """A bar on a terminal's stderr; nothing elsewhere."""
    if quiet or not sys.stderr.isatty() or not sweep.cases:
        yield lambda _: None
        return
    bad = 0

    def told(result: CaseResult) -> None:
        nonlocal bad
        bad += result.outcome == VIOLATED
        bar.update(1, f"{result.case.name}{f'  {bad} VIOLATED' if bad else ''}")

    with click.progressbar(
        length=len(sweep.cases),
        label=sweep.scenario.name,
        file=sys.stderr,
        show_pos=True,
        item_show_func=lambda name: name or "",
    ) as bar:
        yield told


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a sweep as an interrupt does: in order."""

    def terminate(_number: int, _frame: object) -> None:
        raise TerminatedError

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
