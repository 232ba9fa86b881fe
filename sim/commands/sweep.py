"""Run scenarios once for every kind of fault at every fault point, and judge every invariant each time.

Each SCENARIO (a file, or a folder of them) is first run clean, to find the fault points that it passes; then once for
each of these points and each kind of fault, SIGKILL of the node included. Such a case drops the scenario's own
expectations and adds an epilogue without faults: in the end every sandbox must run, or have been discarded or killed. A
failing case leaves a run folder whose scenario.yaml runs on its own. Exit codes: 0 held, 1 violated, 3 a fault never
fired or a case ran out of time, 4 this host cannot run it, 5 nothing selected, 70 a run broke, 130 interrupted.

Example: snapdrill sweep scenarios/sweep/small.yaml --only 'copy.write/*'
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sim.commands import Seconds, guest_option, junit_options
from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from sim.files.fleet import GuestKind
    from sim.report.junit import Family


def _shard(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, int]:
    index, slash, count = (text or "1/1").partition("/")
    if slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count):
        return int(index), int(count)
    raise click.BadParameter(f'expected part i of n, such as 2/4, got "{text}"')


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
@click.option("--points", is_flag=True, help="Print all fault points and kinds of fault; run nothing.")
@click.option("--list", "as_list", is_flag=True, help="After the clean run, print the names of the cases; run none.")
@click.option(
    "--only",
    multiple=True,
    metavar="GLOB",
    help="Only cases with this name, or end of a name, such as 'copy.write/*'; may be repeated.",
)
@click.option("--shard", callback=_shard, metavar="I/N", help="Run only the I-th of N parts of the cases.")
@click.option(
    "--budget", callback=_unit("parse_duration"), metavar="TIME", help="Start no case that would end after this time."
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first violation.")
@click.option("--jobs", metavar="N", type=click.IntRange(min=1), help="Cases at a time.  [default: one per CPU]")
@click.option(
    "--memory",
    callback=_unit("parse_size"),
    metavar="SIZE",
    help="Memory for all cases at a time.  [default: 3/4 of the available memory]",
)
@click.option("--cluster", metavar="ADDRESS", help="Run on this Dask cluster; `local` starts one in this process.")
@click.option("--seed", metavar="N", type=click.IntRange(0, (1 << 63) - 1), help="Use this seed instead of the file's.")
@guest_option
@click.option("--time-limit", metavar="SECONDS", type=Seconds(), default=60.0,
              show_default=True, help="Time limit of a case, in seconds.")  # fmt: skip
@click.option("--runs-dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
              help="Where the runs of cases that fail are kept.")  # fmt: skip
@junit_options
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
    guest: GuestKind | None,
    time_limit: float,
    runs_dir: Path,
    junit: Path | None,
    junit_family: Family,
    as_json: bool,
) -> int:
    """Replaced by the module's docstring."""
    from sim.report.junit import JunitFile
    from sim.run import sweep_report
    from sim.run.addresses import is_elsewhere
    from sim.run.batch import NEVER, Batch, nothing_in, read_all, refuse
    from sim.run.pool import default_jobs, default_memory
    from sim.run.sweep import SweepOptions
    from sim.run.sweep_batch import Sweeps

    if points:
        click.echo(sweep_report.points())
        return ExitCode.HELD
    if not paths:
        raise click.UsageError("Missing argument 'SCENARIO...'.")
    if is_elsewhere(cluster) and (jobs or memory):
        raise click.UsageError(
            "--jobs and --memory are for this machine; give them to the workers of the cluster instead"
        )
    swept = SweepOptions(
        runs_dir=runs_dir.absolute(),
        jobs=jobs or default_jobs(),
        memory=sys.maxsize if is_elsewhere(cluster) else memory or default_memory(),
        seed=seed,
        time_limit=time_limit,
        only=only,
        shard=shard,
    )
    results = JunitFile.of(junit, junit_family)
    stops_at = frozenset({ExitCode.VIOLATED}) if fail_fast else NEVER
    batch = Batch(quiet=as_json, on_stderr=True, stops_at=stops_at, junit=results)
    sweeping = Sweeps(swept, batch, budget=budget, only_list=as_list, cluster=cluster)
    scenarios, mistakes = read_all(paths, guest=guest)
    refuse(mistakes)
    if not scenarios:
        click.echo(nothing_in(paths), err=True)
    code = sweeping.run(scenarios) if scenarios else ExitCode.NOTHING_SELECTED
    if as_json:
        click.echo(json.dumps(sweep_report.document(sweeping.sweeps, code, batch.skipped), indent=2))
    sweep_report.annotate_github(sweeping.sweeps)
    return code
