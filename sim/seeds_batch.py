"""`snapdrill run --seeds`: every scenario with every seed, through the local pool; progress, report, exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from sim.cluster import Pool, default_jobs, default_memory, open_pool
from sim.report import seeds as report
from sim.runner import RunOptions
from sim.scenario import Scenario
from sim.seeds import Seed, SeedOptions, Seeds, parse_seeds, run_seeds
from sim.verdict import ExitCode, worst


def seed_options(seeds: str, options: RunOptions, *, jobs: int | None, fail_fast: bool) -> SeedOptions:
    """`--seeds` and `--jobs` beside what every run is asked for; UserError for seeds that are none."""
    return SeedOptions(
        parse_seeds(seeds),
        options.runs_dir.absolute(),
        jobs or default_jobs(),
        time_limit=options.time_limit,
        cache_dir=options.cache_dir.absolute() if options.cache_dir else None,
        fail_fast=fail_fast,
    )


def run_batch(
    scenarios: Sequence[Scenario],
    options: SeedOptions,
    *,
    as_json: bool,
    strict: bool = False,
    cluster: str | None = None,
) -> ExitCode:
    """Run them all; what an interrupt cuts short is told as far as it went. `strict`: a skip decides over HELD.

    `cluster` as open_pool has it.
    """
    batch = _SeedsBatch(options, quiet=as_json)
    try:
        with open_pool(cluster, options.jobs, default_memory()) as pool:
            for scenario in scenarios:
                batch.run(scenario, pool)
    except KeyboardInterrupt:
        batch.codes.append(ExitCode.INTERRUPTED)
    code = worst(batch.codes)
    if strict and batch.skipped and code is ExitCode.HELD:
        code = ExitCode.UNSUPPORTED
    if as_json:
        skipped = {"skipped": batch.skipped} if batch.skipped else {}
        document = {"version": report.VERSION, "exit_code": int(code), "scenarios": batch.documents, **skipped}
        click.echo(json.dumps(document, indent=2))
    return code


class _SeedsBatch:
    def __init__(self, options: SeedOptions, *, quiet: bool) -> None:
        self._options = options
        self._quiet = quiet
        self.codes: list[ExitCode] = []
        self.documents: list[dict[str, Any]] = []
        self.skipped: list[dict[str, str]] = []

    def run(self, scenario: Scenario, pool: Pool) -> None:
        if reason := pool.lacks(scenario):
            self.codes.append(ExitCode.UNSUPPORTED)
            self.skipped.append({"name": scenario.name, "reason": reason})
            click.echo(f"{scenario.name}: skipped: {reason}", err=self._quiet)
            return
        seeds = Seeds(scenario, len(self._options.seeds))
        try:
            run_seeds(seeds, self._options, pool, lambda seed: self._told(seeds, seed))
        finally:
            self._report(seeds)

    def _told(self, seeds: Seeds, seed: Seed) -> None:
        _progress("")
        if seed in seeds.failing:
            click.echo(report.seed_line(seed), err=self._quiet)
        failing = len(seeds.failing)
        _progress(f"{seeds.scenario.name}: {len(seeds.done)}/{seeds.wanted} seeds, {failing} failing")

    def _report(self, seeds: Seeds) -> None:
        _progress("")
        if seeds.done:
            self.codes.append(seeds.exit_code)
            self.documents.append(report.document(seeds))
        if not self._quiet:
            click.echo(("\n" if seeds.failing else "") + report.summary(seeds) + "\n")


def _progress(line: str) -> None:
    """One line on a terminal's stderr, rewritten."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{line}", nl=False, err=True)
