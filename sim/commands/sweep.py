"""Run scenarios once for every fault at every point, and judge every invariant each time.

Each SCENARIO (a file, or a folder of them) is run once clean, which shows the fault points that it passes; then once
more for each of them and each kind of fault, SIGKILL of the node included. A case drops what the scenario expects and
adds an epilogue without faults: in the end every sandbox runs, or was discarded or killed. A case that fails leaves a
run folder whose scenario.yaml can be run by itself. Exit codes: 0 held, 1 violated, 3 a fault never fired or a case
ran out of time, 4 this host cannot run it, 5 nothing selected, 70 a run broke, 130 interrupted.

Example: snapdrill sweep scenarios/sweep/small.yaml --only 'copy.write/*'
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sim.record.verdict import ExitCode


def _shard(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, int]:
    index, slash, count = (text or "1/1").partition("/")
    if slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count):
        return int(index), int(count)
    raise click.BadParameter(f'expected the i-th of n parts, such as 2/4, got "{text}"')


def _unit(parse: str) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """A callback that reads a size or a duration with its unit, by a function of sim.files.units."""

    def read(_context: click.Context, _option: click.Parameter, text: str | None) -> Any:
        from sim.files import units

        try:
            return None if text is None else getattr(units, parse)(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return read


@click.command("sweep")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="SCENARIO...")
@click.option("--points", is_flag=True, help="Print the fault points and kinds there are; run nothing.")
@click.option("--list", "as_list", is_flag=True, help="Print the names of the cases, after the clean run; run none.")
@click.option("--only", multiple=True, metavar="GLOB", help="Cases by name, or by its end: 'copy.write/*'; repeat.")
@click.option("--shard", callback=_shard, metavar="I/N", help="Run the I-th of N parts that together are all.")
@click.option("--budget", callback=_unit("parse_duration"), metavar="TIME", help="Begin no case that would end later.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first violation.")
@click.option("--jobs", metavar="N", type=click.IntRange(min=1), help="Cases at a time.  [default: one a CPU]")
@click.option("--memory", callback=_unit("parse_size"), metavar="SIZE", help="For all of them.  [default: 3/4 of free]")
@click.option(
    "--cluster", metavar="ADDRESS", help="Run them on the Dask cluster there, or on one of this process: local."
)
@click.option("--seed", metavar="N", type=click.IntRange(0, (1 << 63) - 1), help="Use this seed instead of the file's.")
@click.option("--time-limit", metavar="SECONDS", type=click.FloatRange(min=0, min_open=True), default=60.0,
              show_default=True, help="What a case may take.")  # fmt: skip
@click.option("--runs-dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
              help="Where the runs of cases that fail are kept.")  # fmt: skip
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write a JUnit file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def command(
    paths: tuple[Path, ...],
    points: bool,
    as_list: bool,
    only: tuple[str, ...],
    shard: tuple[int, int],
    budget: float | None,
    fail_fast: bool,
    jobs: int | None,
    memory: int | None,
    cluster: str | None,
    seed: int | None,
    time_limit: float,
    runs_dir: Path,
    junit: Path | None,
    as_json: bool,
) -> int:
    """Replaced by the module's docstring."""
    from sim.run import sweep_report
    from sim.run.batch import NEVER, Batch, check_writable, nothing_in, read_all, refuse
    from sim.run.dask import is_elsewhere
    from sim.run.pool import default_jobs, default_memory
    from sim.run.sweep import SweepOptions
    from sim.run.sweep_batch import Sweeps

    if points:
        click.echo(sweep_report.points())
        return ExitCode.HELD
    if not paths:
        raise click.UsageError("Missing argument 'SCENARIO...'.")
    if is_elsewhere(cluster) and (jobs or memory):
        raise click.UsageError("--jobs and --memory are of this machine; the workers of a cluster say their own")
    swept = SweepOptions(
        runs_dir=runs_dir.absolute(),
        jobs=jobs or default_jobs(),
        memory=sys.maxsize if is_elsewhere(cluster) else memory or default_memory(),
        seed=seed,
        time_limit=time_limit,
        only=only,
        shard=shard,
    )
    if junit is not None:
        check_writable(junit)
    batch = Batch(quiet=as_json, on_stderr=True, stops_at=frozenset({ExitCode.VIOLATED}) if fail_fast else NEVER)
    sweeping = Sweeps(swept, batch, budget=budget, only_list=as_list, cluster=cluster)
    scenarios, mistakes = read_all(paths)
    refuse(mistakes)
    if not scenarios:
        click.echo(nothing_in(paths), err=True)
    code = sweeping.run(scenarios) if scenarios else ExitCode.NOTHING_SELECTED
    if as_json:
        click.echo(json.dumps(sweep_report.document(sweeping.sweeps, code, batch.skipped), indent=2))
    if junit is not None:
        sweep_report.write_suites(junit, sweeping.sweeps)
    sweep_report.tell_github(sweeping.sweeps)
    return code
