"""Reduce a failing run to the smallest scenario file that still fails in the same way.

RUN is the folder of a violated run, or a scenario file that is violated when run. Steps, groups, flags, settings and
memory are removed as long as the same invariant is violated for the same reason; a last run confirms the result. Exit
codes: 0 shrunk, 2 there is nothing to shrink, 3 it does not fail any more, 4 this host cannot run it, 130 interrupted.

Example: snapdrill shrink runs/demo/latest --out smallest.yaml
"""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim.commands import Seconds
from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from sim.run.shrink import Shrinking, Shrunk, Subject, Trials

SMALLEST = "smallest.yaml"


@click.command("shrink")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(0, (1 << 63) - 1),
    help="Use this seed instead of the run's or the file's.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help=f"Write it here.  [default: {SMALLEST} in the run folder, else here]")  # fmt: skip
@click.option(
    "--tries",
    metavar="N",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Try at most this many smaller scenarios.",
)
@click.option("--time-limit", metavar="SECONDS", type=Seconds(), default=600.0,
              show_default=True, help="Stop trying after this many seconds.")  # fmt: skip
@click.option("--jobs", metavar="N", type=click.IntRange(min=1), help="Runs at a time.  [default: one per CPU]")
def command(run: Path, seed: int | None, out: Path | None, tries: int, time_limit: float, jobs: int | None) -> int:
    """Replaced by the module's docstring."""
    from sim.run.batch import Batch, Item, check_writable
    from sim.run.pool import default_jobs, local_pool
    from sim.run.shrink import Subject, Trials, shrink

    subject = Subject.load(run, seed)
    out = out or (run / SMALLEST if run.is_dir() else Path(SMALLEST))
    check_writable(out)
    jobs = jobs or default_jobs()
    pool, batch = local_pool(jobs), Batch(on_stderr=True)

    def show(shrinking: Shrinking) -> None:
        steps = len(shrinking.document["steps"])
        batch.show(f"{shrinking.tried}/{shrinking.tries} tried; {steps} steps left")

    with tempfile.TemporaryDirectory(prefix="snapdrill-shrink-") as folder:
        trials = Trials(pool, subject.path, Path(folder))

        def smallest() -> ExitCode:
            found = shrink(subject, trials, tries=tries, seconds=time_limit, at_a_time=jobs, progress=show)
            batch.show("")
            return _report(found, run, subject, trials, out)

        return batch.run([Item(str(run), smallest, lambda: pool.lacks(subject.scenario()))], pool)


def _text(found: Shrunk, run: Path, out: Path) -> str:
    from sim.files.yaml import scenario_text

    comment = f"The smallest scenario found that violates {found.failure.subject}\n"
    comment += f"({found.failure.sandbox}: {found.failure.reason}), shrunk from {run}.\n"
    return scenario_text(found.document, f"{comment}{_command(out)}")


def _command(out: Path) -> str:
    return shlex.join(["snapdrill", "run", str(out)])


def _report(found: Shrunk | None, run: Path, subject: Subject, trials: Trials, out: Path) -> ExitCode:
    if found is None:
        was = f"; the recorded run had {subject.recorded}" if subject.recorded else ""
        click.echo(f"{run}: it does not fail{' any more' if was else ''}{was}", err=True)
        return ExitCode.INCONCLUSIVE
    out.write_text(_text(found, run, out), encoding="utf-8")
    before, after = (len(each["steps"]) for each in (subject.document, found.document))
    click.echo(f"{out}: {before} steps shrunk to {after} in {trials.runs} runs")
    click.echo(f"  violates   {found.failure}")
    if found.exhausted:
        click.echo("  the budget ended it, so a smaller one may exist; raise --tries or --time-limit")
    click.echo(f"  run it     {_command(out)}")
    if not found.confirmed:
        click.echo(
            f"{out}: its last run did not fail in the same way: the failure is not reproducible every time", err=True
        )
        return ExitCode.INCONCLUSIVE
    return ExitCode.HELD
