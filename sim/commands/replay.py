"""Tell a recorded run again: its events as sentences, the state they led to, and the summary.

RUN is a run folder, the `latest` link beside it, the folder of a scenario's runs (its latest is taken), or an
events.jsonl. Nothing is run: any machine can tell a recording from any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.errors import UserError

if TYPE_CHECKING:
    from sim.ledger import Entry
    from sim.view import View


@click.command("replay")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--sandbox", metavar="NAME", help="Only what happened to this sandbox.")
@click.option("--at", "until", metavar="T", type=float, help="Stop T seconds after the run began.")
@click.option("--last", metavar="N", type=click.IntRange(min=0), help="Only the last N of these events.")
def command(run: Path, sandbox: str | None, until: float | None, last: int | None) -> None:
    """Print it, or UserError naming what cannot be read."""
    from sim.report.text import summary
    from sim.view import Fold

    path = events_file(run)
    entries = [entry for entry in _read(path) if until is None or entry.t <= until]
    fold = Fold()
    fold.apply(entries)
    view = fold.view()
    if sandbox is not None and sandbox not in view.sandboxes:
        raise UserError(f"{path}: no sandbox is called {sandbox}; there are: {', '.join(view.sandboxes) or 'none'}")
    for line in _told(entries, sandbox, last):
        click.echo(line)
    click.echo(f"\nstate at {view.t:.3f} s")
    for line in _states(view, sandbox):
        click.echo(line)
    click.echo(f"\n{summary(view, path.parent)}")


def events_file(run: Path) -> Path:
    """The ledger that RUN means; UserError where it means none."""
    from sim.ledger import EVENTS_FILE

    for path in (run, run / EVENTS_FILE, run / "latest" / EVENTS_FILE):
        if path.is_file():
            return path
    raise UserError(f"{run}: no {EVENTS_FILE} there; give a run folder such as runs/demo/latest")


def _read(path: Path) -> list[Entry]:
    from sim.ledger import LedgerError, read

    try:
        return read(path)
    except LedgerError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _told(entries: Sequence[Entry], sandbox: str | None, last: int | None) -> list[str]:
    from sim.report import words

    told = [
        entry
        for entry in entries
        if not isinstance(entry.event, words.SAMPLES) and (sandbox is None or entry.sandbox == sandbox)
    ]
    start = 0 if last is None else max(0, len(told) - last)
    return [f"{words.clock(entry.t)}  {words.sentence(entry)}" for entry in told[start:]]


def _states(view: View, sandbox: str | None) -> list[str]:
    from sim.report.words import size

    rows = [each for each in view.sandboxes.values() if sandbox is None or each.name == sandbox]
    width = max((len(each.name) for each in rows), default=0)
    return [
        f"  {each.name:<{width}}  {each.state:<13} {size(each.resident):>10} resident"
        + (f"  build {each.build}" if each.build else "")
        + (f"  ({each.reason})" if each.reason else "")
        for each in rows
    ]
