"""End the processes and remove the files that dead runs have left.

Looks at every run below --runs-dir that has not ended. If its runner is dead, processes with the run's id are killed,
and its cache, sockets and cgroup are removed. A run whose runner lives is never touched.

Example: snapdrill clean --dry-run
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from engine.errors import EngineError, UserError
from sim.record.verdict import ExitCode


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
    yield from sorted(path.parent for path in found if not path.parent.is_symlink())


def _clean(run_dir: Path, dry_run: bool) -> list[str]:
    """One line for each thing ended, and one for a run that left only its record open."""
    import dataclasses
    import shutil

    from sim.record import folder, leftovers
    from sim.run import cases

    record = folder.read_record(run_dir)
    if record.ended or record.runner_lives:
        return []
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
