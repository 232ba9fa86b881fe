"""Run scenarios on real memory and judge them.

PATHS are scenario files, or folders whose *.yaml files are scenarios. Each scenario gets a run folder with its ledger,
report.json and junit.xml. Exit codes: 0 held, 1 violated, 2 invalid file (nothing was started), 3 inconclusive, 4 this
host cannot run it, 5 nothing selected, 130 interrupted.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from sim.verdict import ExitCode


@click.command("run")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), help="Use this seed instead of the file's.")
@click.option("--only", multiple=True, metavar="SANDBOX", help="Run with this sandbox alone; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@click.option(
    "--cache-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where caches go, on disk or tmpfs, instead of what the scenario says.",
)
@click.option("--runs-dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option(
    "--keep",
    type=click.Choice(["never", "failed", "always"]),
    default="never",
    show_default=True,
    help="Keep the caches (guest memory) of which runs.",
)
@click.option("--time-limit", type=click.FloatRange(min=0, min_open=True), default=120.0, show_default=True,
              help="Seconds a scenario may take.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would run and what it needs; start nothing.")
@click.option("--strict", is_flag=True, help="Exit 4 where a scenario was skipped.")
def command(
    paths: tuple[Path, ...],
    seed: int | None,
    only: tuple[str, ...],
    as_json: bool,
    cache_dir: Path | None,
    runs_dir: Path,
    keep: str,
    time_limit: float,
    dry_run: bool,
    strict: bool,
) -> int:
    """Replaced by the module's docstring."""
    from sim.batch import Batch
    from sim.runner import RunOptions

    options = RunOptions(runs_dir=runs_dir, seed=seed, cache_dir=cache_dir, only=only, keep=keep, time_limit=time_limit)
    batch = Batch.load(paths, options)
    if dry_run:
        click.echo(batch.plan())
        return ExitCode.HELD if batch.scenarios else ExitCode.NOTHING_SELECTED
    code = batch.exit_code(batch.run(quiet=as_json), strict=strict)
    if as_json:
        click.echo(json.dumps(batch.document(code), indent=2))
    return code
