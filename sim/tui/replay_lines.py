"""The foot of a replayed screen: the time line with its marks, and where in it the screen is. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from sim.tui.keys import REPLAY
from sim.tui.recording import Mark, MarkKind, Playback
from sim.tui.spans import Piece, Span, Spans, Tone, fit, line_of, opposite

GLYPHS: dict[MarkKind, tuple[str, Tone]] = {
    "pause": ("▴", "calm"),
    "condemn": ("◆", "warn"),
    "discard": ("✗", "bad"),
    "fault": ("!", "warn"),
    "violation": ("‼", "bad"),
}
"""Ascending: where two fall on one cell, the graver one is drawn."""
GRAVITY = {kind: number for number, kind in enumerate(GLYPHS)}


def foot(playback: Playback, marks: Sequence[Mark], said: Span | None, cells: int) -> list[Spans]:
    """Time line, position with what was said last, keys."""
    return [time_line(playback, marks, cells), _position(playback, marks, said, cells), _keys(cells)]


def time_line(playback: Playback, marks: Sequence[Mark], cells: int) -> Spans:
    """From the run's beginning to its end; what is past is drawn heavier."""
    room = max(1, cells - 2)
    here = _cell(playback.t, playback.end, room)
    line = [Span("━", "busy") if cell < here else Span("─", "muted") for cell in range(room)]
    drawn: dict[int, int] = {}
    for mark in marks:
        cell = _cell(mark.t, playback.end, room)
        if GRAVITY[mark.kind] >= drawn.get(cell, 0):
            drawn[cell] = GRAVITY[mark.kind]
            line[cell] = Span(*GLYPHS[mark.kind])
    line[here] = Span("┃", "title")
    return (Span(" "), *line, Span(" "))


def _cell(t: float, end: float, room: int) -> int:
    return min(room - 1, int(t / end * room)) if end > 0 else 0


def _position(playback: Playback, marks: Sequence[Mark], said: Span | None, cells: int) -> Spans:
    sign = "■" if playback.held or playback.t >= playback.end else "▶"
    where = f" {sign} {playback.words}  {playback.t:.3f} s of {playback.end:.3f} s"
    kinds = [kind for kind in GLYPHS if any(mark.kind == kind for mark in marks)]
    signs = [Piece(9 - GRAVITY[kind], (Span(*GLYPHS[kind]), Span(f" {kind}", "muted"))) for kind in kinds]
    left: Spans = (Span(where, "title"),)
    room = cells - len(where) - 3
    if said is not None and room > 0:
        return opposite(left, fit((said,), min(room, len(said.text))), cells - 1)
    return opposite(left, (*line_of(signs, room, gap=2), Span(" ")), cells)


def _keys(cells: int) -> Spans:
    pieces = [
        Piece(key.rank, (Span(key.shown, "title"), Span(f" {key.short}", "muted"))) for key in REPLAY if key.rank < 9
    ]
    return (Span(" "), *line_of(pieces, cells - 2, gap=2))
