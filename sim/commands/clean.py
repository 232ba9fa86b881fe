"""End the processes and remove the files that dead runs have left.

Looks at every run of yours below --runs-dir that has not ended. If its runner is dead, processes with the run's id are
killed, and its cache, sockets and cgroup are removed. A run whose runner lives is never touched, in whichever container
or machine it runs: it holds a lock on a file of the run folder. Symbolic links out of --runs-dir are not followed.

Example: snapdrill clean --dry-run
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.errors import EngineError, UserError
from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from sim.record.folder import RunRecord


@click.command("clean")
@click.option("--runs-dir", default="runs", show_default=True, type=click.Path(path_type=Path, file_okay=False),
              help="Where the run folders are.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only print what would be ended and removed.")
def command(runs_dir: Path, dry_run: bool) -> ExitCode:
    """HELD if nothing is left, USAGE if something could not be read, ended or removed."""
    found, failed = 0, 0
    for run_dir in _run_dirs(runs_dir):
        try:
            lines = _clean(run_dir, dry_run)
        except (UserError, EngineError, OSError) as error:
            failed += 1
            click.echo(f"snapdrill: {error}", err=True)
            continue
        found += len(lines)
        for line in lines:
            click.echo(line)
    if not found and not failed:
        click.echo(f"nothing to clean in {runs_dir}")
    return ExitCode.USAGE if failed else ExitCode.HELD


def _run_dirs(runs_dir: Path) -> Iterator[Path]:
    """Each `<name>/<stamp>-<seed>`, also in a pool worker's folder; `latest` is skipped: it links to one of them."""
    from sim.record.folder import RUN_FILE
    from sim.run.cases import SCRATCH

    try:
        found = [*runs_dir.glob(f"*/*/{RUN_FILE}"), *runs_dir.glob(f"{SCRATCH}*/*/*/{RUN_FILE}")]
    except OSError as error:
        raise UserError(f"{runs_dir}: cannot be read: {error.strerror}") from None
    yield from sorted(path.parent for path in found if _is_within(path.parent, runs_dir))


def _is_within(run_dir: Path, runs_dir: Path) -> bool:
    """False where a symbolic link is on the way from one to the other."""
    return run_dir.resolve() == runs_dir.resolve() / run_dir.relative_to(runs_dir)


def _clean(run_dir: Path, dry_run: bool) -> list[str]:
    """One line for each thing ended, and one for a run that left only its record open."""
    from sim.record import folder, owner

    record = folder.read_record(run_dir)
    if record.ended or not folder.is_mine(run_dir):
        return []
    with owner.taken_over(run_dir) as free:
        if free is False or (free is None and record.runner_lives):
            return []
        return _end(run_dir, record, dry_run)


def _end(run_dir: Path, record: RunRecord, dry_run: bool) -> list[str]:
    import dataclasses
    import shutil

    from sim.record import folder, leftovers
    from sim.run import cases

    if dry_run:
        return [
            f"{run_dir}: would end {each}"
            for each in leftovers.leftovers(record, run_dir) or ["the record: nothing else is left"]
        ]
    ended = leftovers.end_leftovers(record, run_dir)
    folder.write_record(run_dir, dataclasses.replace(record, ended=True))
    if (worker := run_dir.parents[1]).name.startswith(cases.SCRATCH):  # a worker's folder keeps no run
        shutil.rmtree(worker)
    return [f"{run_dir}: ended {each}" for each in ended or ["the record: nothing else was left"]]
