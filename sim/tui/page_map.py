"""Where a sandbox's memory is, page by page: the scan's cells, and what the copiers did to them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import groupby

from sim.record.cells import cell_size, read_cells
from sim.record.stages import Ranges
from sim.record.view import PauseView, SandboxView
from sim.report import words
from sim.tui import rows
from sim.tui.spans import HARD, Piece, Span, Spans, Tone, line_of, wrap

LOOKS: dict[str, tuple[str, Tone, str]] = {
    "d": ("█", "resident", "dirty"),
    "m": ("▄", "resident", "partly dirty"),
    "c": ("▪", "plain", "clean"),
    "z": ("·", "muted", "zero"),
    "u": ("▶", "busy", "being copied"),
    "U": ("▶", "condemned", "being copied"),
    "w": ("▓", "cached", "copied"),
    "p": (rows.FREED, "punched", "punched: nothing is there"),
}
"""A cell by its letter: those of MemoryMapped, then what the copy made of them (U: past the point of no return)."""
ORDER = "uUdmwpcz"
"""Where several cells share a glyph the most frequent is drawn, of equals the first of these."""


def lines(sandbox: SandboxView, cells: int, height: int) -> list[Spans]:
    """A title, the map, and a legend with the size of each kind; `height` lines at most."""
    pause = sandbox.pause
    if pause is None or not pause.track.runs:
        return _unknown(sandbox, cells, height)
    letters = states(sandbox, pause)
    size = cell_size(sandbox.memory, sandbox.block_size)
    legend = _legend(letters, size, sandbox.memory, cells)
    room, across = max(1, height - 1 - len(legend)), max(8, cells - 2)
    per_glyph = -(-len(letters) // (across * room))
    drawn = "".join(_merged(letters[at : at + per_glyph]) for at in range(0, len(letters), per_glyph))
    title = _title(sandbox, pause, size * per_glyph, cells)
    across = min(across, _even(len(drawn), across))
    body = [(Span(" "), *_glyphs(drawn[at : at + across])) for at in range(0, len(drawn), across)]
    return [title, *body[:room], *legend]


def _even(count: int, across: int) -> int:
    """Rows of the same length: as many as are needed anyway, so that no row is a stump."""
    return -(-count // -(-count // across))


def states(sandbox: SandboxView, pause: PauseView) -> str:
    """One letter a cell, in the order of memory."""
    track = pause.track
    size = cell_size(sandbox.memory, sandbox.block_size)
    letters = list(read_cells(track.runs))
    if track.clean_punched:
        letters = ["p" if letter in "cz" else letter for letter in letters]
    under: Ranges = tuple(track.under.values())
    for spans, letter in ((track.copied, "w"), (track.punched, "p"), (under, "U" if pause.condemned else "u")):
        _lay(letters, spans, letter, size)
    return "".join(letters)


def _lay(letters: list[str], spans: Ranges, letter: str, size: int) -> None:
    """A copied chunk holds what was dirty of it; a punch frees all of its span."""
    for start, end in spans:
        for at in range(start // size, min(len(letters), -(-end // size))):
            if letter != "w" or letters[at] in "dm":
                letters[at] = letter


def _merged(letters: str) -> str:
    return max(ORDER, key=letters.count)


def _glyphs(letters: str) -> Iterable[Span]:
    for letter, run in groupby(letters):
        glyph, tone, _ = LOOKS[letter]
        yield Span(glyph * len(list(run)), tone)


def _title(sandbox: SandboxView, pause: PauseView, per_glyph: int, cells: int) -> Spans:
    said = [
        Piece(0, (Span(" pages ", "muted"), Span(_moment(sandbox, pause)))),
        Piece(1, (Span(f"one cell is {words.size(per_glyph)}", "muted"),)),
        Piece(2, (Span(f"{words.plural(max(1, per_glyph // sandbox.page_size), 'page')} a cell", "muted"),)),
    ]
    return line_of(said, cells)


def _moment(sandbox: SandboxView, pause: PauseView) -> str:
    """Which memory is drawn: of a guest that may be gone."""
    if rows.in_flight(sandbox) is not None and sandbox.incarnation in {None, pause.incarnation}:
        return f"of {pause.incarnation or sandbox.name}, being copied"
    if pause.outcome == "rolled-back":
        return f"as pause {pause.id} left them: all are the guest's again"
    if pause.track.cache_deleted:
        return f"as pause {pause.id} left them: guest killed, partial copy deleted"
    return f"as pause {pause.id} left them; that guest is gone"


def _legend(letters: str, size: int, memory: int, cells: int) -> list[Spans]:
    counted = Counter(letters.replace("U", "u"))
    spans: list[Span] = []
    for letter, (glyph, tone, name) in LOOKS.items():
        if counted[letter]:
            said = f"{glyph} {name} {words.mib(min(counted[letter] * size, memory))} MiB".replace(" ", HARD)
            spans.append(Span(f"{said}  ", tone))
    return wrap((Span(" "), *spans), cells - 1, indent=" ")[:2]


def _unknown(sandbox: SandboxView, cells: int, height: int) -> list[Spans]:
    """Before the first scan only the amount is known, not the place."""
    across = max(8, cells - 2)
    filled = 0 if not sandbox.memory else round(across * min(sandbox.resident, sandbox.memory) / sandbox.memory)
    said = f"{words.mib(sandbox.resident)} of {words.mib(sandbox.memory)} MiB resident; where, a pause's scan finds out"
    bar: Spans = (Span(" "), Span("█" * filled, "resident"), Span("·" * (across - filled), "muted"))
    return [*wrap((Span(" pages ", "muted"), Span(said)), cells - 1, indent="   "), bar][:height]
