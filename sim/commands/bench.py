"""Measure the engine against the goals for its speed.

Each round copies real guests' memory in whole pauses and, interleaved with them, by mmap + memmove (the original's way)
and by a prefaulted memcpy (the limit). Prints medians of the per-round ratios. Rounds in which other processes took
more than a few percent of the CPUs are dropped and counted; where that was every round, CPU seconds are judged instead
of time. Exit codes, whatever the speed: 0 measured, 4 nothing could be measured on this host, 5 --only matched nothing.

--against PROGRAM has another program copy too, by the protocol in docs/bench.md.

--calibrate FILE writes the costs of a pause on this host, for `snapdrill forecast`: full copies of --size and of 4MiB.

Example: snapdrill bench --only decision --rounds 3
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from sim.rollout.bench import BenchRow
    from sim.rollout.bench_report import Report


@click.command("bench")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--rounds",
    metavar="N",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Measure each row this many times.",
)
@click.option("--size", default="1GiB", show_default=True, metavar="SIZE", help="Guest memory; the goals are for 1GiB.")
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="Only rows with this name or glob, such as copy/full/4KiB; may be repeated.",
)
@click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Seed for the order within each round.",
)
@click.option(
    "--cache-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False, writable=True),
    help="Folder on a disk to copy to; by default below runs/, else the current folder.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, executable=True, resolve_path=True),
    metavar="PROGRAM",
    help="Also have this program copy, in rows named against.",
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the costs of a pause to FILE, for forecast.",
)
def command(
    as_json: bool,
    rounds: int,
    size: str,
    only: tuple[str, ...],
    seed: int,
    cache_dir: Path | None,
    against: Path | None,
    calibrate: Path | None,
) -> ExitCode:
    """Replaced by the module's docstring."""
    from sim.rollout.bench import rows as all_rows
    from sim.run.batch import check_writable

    only = only or (("copy/full",) if calibrate else ())
    every = all_rows(against)
    chosen = [row for row in every if row.is_selected(only)]
    if not chosen:
        names = ", ".join(dict.fromkeys(row.name for row in every))
        click.echo(f"snapdrill: --only {' '.join(only)} matches nothing; rows are named {names}", err=True)
        return ExitCode.NOTHING_SELECTED
    if calibrate is not None:
        check_writable(calibrate)
    report = _measure(chosen, rounds=rounds, size=_size(size), seed=seed, cache_dir=cache_dir)
    if calibrate is not None and report.results:
        _write_calibration(calibrate, chosen, report, cache_dir)
    click.echo(json.dumps(report.document(), indent=2) if as_json else report.text())
    return ExitCode.HELD if report.results else ExitCode.UNSUPPORTED


def _write_calibration(path: Path, chosen: list[BenchRow], report: Report, cache_dir: Path | None) -> None:
    """Small guests are measured too: they show the fixed part of a pause."""
    from datetime import UTC, datetime

    from sim.rollout.bench_report import SMALL, calibration, write

    small = _measure(chosen, rounds=report.rounds, size=SMALL, seed=report.seed, cache_dir=cache_dir)
    write(path, calibration(report, small, datetime.now(UTC)))
    click.echo(f"calibration: {path}", err=True)


def _size(text: str) -> int:
    from sim.files.units import parse_size

    try:
        size = parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--size") from error
    if size < 2 << 20 or size % 4096:
        raise click.BadParameter("give 2MiB or more", param_hint="--size")
    return size


def _measure(chosen: list[BenchRow], *, rounds: int, size: int, seed: int, cache_dir: Path | None) -> Report:
    """Folders, guests and the pool of 2 MiB pages are restored when this returns or raises."""
    from sim.files.units import HUGE_PAGE
    from sim.rollout import bench, bench_host
    from sim.rollout import bench_report as taking
    from sim.rollout.bench_report import MachineLoad, Report
    from sim.rollout.bench_ways import Bench
    from sim.run.batch import rewrite
    from sim.run.host import host

    bench.require_memory(size, chosen)
    huge = any(row.case.page_size == HUGE_PAGE for row in chosen)
    machine, (before, _, _) = host(), os.getloadavg()
    with (
        bench_host.interrupts_between() as check,
        bench_host.destinations(cache_dir) as folders,
        bench_host.pool_of(size if huge else 0) as refusal,
    ):
        left_out = {row: why for row in chosen if (why := bench.reason_to_leave_out(row, size, folders, refusal))}
        measured = [row for row in chosen if row not in left_out]

        def progress(step: str) -> None:
            rewrite(step)
            check()

        taken = taking.run(measured, Bench(size, folders), rounds, seed, progress)
        progress("")
    results = []
    for row in measured:
        found = taking.result(row, taken)
        if isinstance(found, str):
            left_out[row] = found
        else:
            results.append(found)
    load = MachineLoad.of(before, os.getloadavg()[0], taken)
    return Report(size, rounds, seed, machine, results, list(left_out.items()), load)
