"""The sweeps of one `snapdrill sweep`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import click

from sim.files.scenario import Scenario
from sim.record.verdict import ExitCode
from sim.run.batch import Batch, Item
from sim.run.dask import open_pool
from sim.run.sweep import Sweep, SweepOptions, choose, run
from sim.run.sweep_report import blocks, chosen, junit, summary


class Sweeps:
    """`budget` in seconds, for all together; `cluster`: see open_pool; `only_list` prints the cases' names."""

    def __init__(
        self,
        options: SweepOptions,
        batch: Batch,
        *,
        budget: float | None = None,
        only_list: bool = False,
        cluster: str | None = None,
    ) -> None:
        self._options = options
        self._batch = batch
        self._deadline = None if budget is None else time.monotonic() + budget
        self._only_list = only_list
        self._pool = open_pool(cluster, options.jobs, options.memory)
        self.sweeps: list[Sweep] = []

    def run(self, scenarios: Sequence[Scenario]) -> ExitCode:
        """Run all of them; the worst exit code. A sweep that is interrupted reports its results so far."""
        items = [
            Item(
                each.name,
                partial(self._sweep, each, scenarios[place + 1 :]),
                partial(self._pool.lacks, each),
                each.path,
            )
            for place, each in enumerate(scenarios)
        ]
        return self._batch.run(items, self._pool)

    def _sweep(self, scenario: Scenario, after: Sequence[Scenario]) -> ExitCode:
        self._batch.show(f"{scenario.name}: its clean run")
        sweep = choose(scenario, self._options, self._pool)
        self._batch.show("")
        self.sweeps.append(sweep)
        if self._only_list and sweep.unclean is None:
            return self._list(sweep)
        try:
            run(sweep, self._options, self._pool, self._batch, self._share(after))
        finally:
            self._report(sweep)
        return sweep.exit_code

    def _list(self, sweep: Sweep) -> ExitCode:
        if not self._batch.quiet:
            click.echo("".join(f"{case.name}\n" for case in sweep.cases), nl=False)
        if not sweep.cases:
            click.echo(f"{sweep.scenario.name}: {chosen(sweep)}", err=True)
        return ExitCode.HELD if sweep.cases else ExitCode.NOTHING_SELECTED

    def _share(self, after: Sequence[Scenario]) -> float | None:
        """When a sweep must end: the remaining budget is shared equally with the sweeps after it."""
        if self._deadline is None:
            return None
        now, others = time.monotonic(), sum(self._pool.lacks(each) is None for each in after)
        return now + (self._deadline - now) / (others + 1)

    def _report(self, sweep: Sweep) -> None:
        if self._batch.junit is not None:
            self._batch.junit.add(junit(sweep))
        if not self._batch.quiet:
            click.echo(summary(sweep) + "\n")
        if text := blocks(sweep):
            click.echo(text + "\n", err=self._batch.quiet)
