"""Print a recorded run: its events as sentences, the state at the end, and the summary.

RUN is a run folder, the `latest` link beside it, the folder of a scenario's runs (its latest is taken), or an
events.jsonl. With `--at T` it stops T seconds after the run began. Nothing is run, so any machine can replay a
recording from any other.

`--tui` shows it on screen instead, like a live run: space plays and stops, `[` and `]` go a second back or forward, `n`
goes to the next violation or fault.

Example: snapdrill replay runs/demo/latest --sandbox web-0 --last 20
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.errors import UserError
from sim.tui.available import is_terminal, is_unicode

if TYPE_CHECKING:
    from sim.record.folder import StoredRun
    from sim.record.ledger import Entry


@click.command("replay")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--sandbox", metavar="NAME", help="Only events of this sandbox.")
@click.option("--at", "until", metavar="T", type=click.FloatRange(min=0), help="Stop T seconds after the run began.")
@click.option("--last", metavar="N", type=click.IntRange(min=0), help="Only the last N of these events.")
@click.option("--event", "kinds", metavar="EVENT", multiple=True, help="Only events of this name; may be repeated.")
@click.option("--tui", "on_screen", is_flag=True, help="Watch it on screen: play, stop, scrub.")
def command(
    run: Path, sandbox: str | None, until: float | None, last: int | None, kinds: tuple[str, ...], on_screen: bool
) -> None:
    """Print it, or UserError naming the file that cannot be read."""
    from sim.record.folder import open_run
    from sim.report.table import Paragraph, Section, text
    from sim.report.text import fleet_table, moment, summary

    stored = open_run(run)
    if on_screen and is_terminal():
        _watch(stored, until)
        return
    view = stored.view_at(until)
    if sandbox is not None and sandbox not in view.sandboxes:
        known = ", ".join(view.sandboxes) or "none"
        raise UserError(f"{stored.path}: no sandbox is called {sandbox}; there are: {known}")
    _check_kinds(kinds)
    known_then = [entry for entry in stored.entries if until is None or entry.t <= until]
    for line in _sentences(known_then, sandbox, last, kinds):
        click.echo(line)
    title = f"state at {view.t if until is None else until:.3f} s"
    click.echo("\n" + text(Section(title, (Paragraph(moment(view)), fleet_table(view, sandbox)))))
    if len(known_then) == len(stored.entries):  # the summary is for a whole run
        click.echo(f"\n{summary(view, stored.folder)}")


def _watch(stored: StoredRun, at: float | None) -> None:
    from sim.tui.replay import ReplayApp
    from sim.tui.settings import kept_keys, kept_theme
    from sim.tui.terminal import terminal

    app = ReplayApp(stored, stopped=at is not None, terminal=terminal(ascii_only=not is_unicode()))
    app.use_keys(kept_keys())
    app.theme = kept if (kept := kept_theme()) in app.available_themes and kept is not None else app.theme
    app.playback.t = min(at or 0.0, app.playback.end)
    app.run()


def _check_kinds(kinds: Sequence[str]) -> None:
    from sim.record.ledger import EVENT_TYPES

    for kind in kinds:
        if kind not in EVENT_TYPES:
            from flags.catalog import did_you_mean

            raise UserError(f'no event is called "{kind}"; {did_you_mean(kind, EVENT_TYPES)}')


def _sentences(entries: Sequence[Entry], sandbox: str | None, last: int | None, kinds: Sequence[str]) -> list[str]:
    from sim.report import sentences, words

    shown = [
        entry
        for entry in entries
        if (entry.name in kinds if kinds else not isinstance(entry.event, sentences.SAMPLES))
        and (sandbox is None or entry.sandbox == sandbox)
    ]
    start = 0 if last is None else max(0, len(shown) - last)
    return [f"{words.clock(entry.t)}  {sentences.sentence(entry)}" for entry in shown[start:]]
