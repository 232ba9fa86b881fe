"""Drive a live fleet on screen: pause, resume, flip the flag, break a copy, and watch memory.

SCENARIO gives fleet and flags, its steps are left to you; without one it is the demo. Leaving (q) judges every
invariant, tears everything down and ends with the verdict. Where there is no terminal the scenario is run instead.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import sys

import click

from sim.verdict import ExitCode, Verdict
from sim.view import View


@click.command("tui")
@click.argument("scenario", required=False, type=click.Path(path_type=pathlib.Path))
@click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), help="Instead of the scenario's own.")
@click.option("--runs-dir", default="runs", type=click.Path(path_type=pathlib.Path, file_okay=False), show_default=True)
@click.pass_context
def command(context: click.Context, scenario: pathlib.Path | None, seed: int | None, runs_dir: pathlib.Path) -> int:
    """Run the screen; the exit code is the verdict's, or 128 + the signal's number."""
    from sim.scenario import load
    from sim.shipped_files import scenario_path

    path = scenario or scenario_path("demo.yaml")
    if not _is_terminal():
        from sim.commands.run import command as run

        click.echo(f"snapdrill: no terminal for the screen; this is: snapdrill run {path}", err=True)
        code: int = context.invoke(run, paths=(path,), seed=seed, runs_dir=runs_dir)
        return code
    loaded = load(path)

    from sim.drill import Drill
    from sim.tui.app import FleetApp, drive

    app = FleetApp(lambda: Drill(loaded, runs_dir=runs_dir, seed=seed))
    asyncio.run(drive(app))
    if app.signal is not None:
        return 128 + app.signal
    return _told(app.last)


def _is_terminal() -> bool:
    """Textual draws on stderr and reads stdin, and would draw its escape codes into a pipe as well."""
    return sys.stdin.isatty() and sys.stderr.isatty() and os.environ.get("TERM", "") not in {"", "dumb"}


def _told(last: View | None) -> int:
    """The verdict on one line, what did not hold on one each; the exit code."""
    from sim.tui.words import judgement

    if last is None or last.run is None or last.ended is None:
        click.echo("snapdrill: the run was cut off before it was judged", err=True)
        return ExitCode.INCONCLUSIVE
    click.echo(f"{last.ended.verdict.upper()}  {last.run.name}  seed {last.run.seed}  run {last.run.run}")
    for judged in last.judged:
        if judged.verdict != Verdict.HELD:
            click.echo(f"  {judgement(judged)}")
    return last.ended.exit_code
