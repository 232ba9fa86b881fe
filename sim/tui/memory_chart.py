"""The node's memory over time: guests and caches stacked, budget, 1x and 2x as lines, pauses marked. Pure."""

from __future__ import annotations

from sim.report import words
from sim.tui import headlines, stacked
from sim.tui.spans import Piece, Span, Spans, Tone, line_of
from sim.view import PauseView, View

MARKS: dict[str, tuple[str, Tone, str]] = {
    "off": ("△", "plain", "pause"),
    "on": ("▲", "punched", "punching pause"),
    "lost": ("✗", "bad", "discarded"),
}


def lines(view: View, cells: int, height: int) -> list[Spans]:
    """A title, the chart, the pauses under it, the time; `height` lines at most."""
    room, high = max(8, cells - stacked.LABEL - 1), max(2, height - 3)
    once = sum(sandbox.memory for sandbox in view.sandboxes.values())
    top = _top(view, once)
    end = max(view.t, 1.0)
    found = stacked.columns(view.samples, 0.0, end, room)
    levels: dict[str, tuple[int, Tone]] = {
        "budget": (view.memory.budget, "bad"),
        f"1x {words.mib(once)}": (once, "muted"),
        f"2x {words.mib(2 * once)}": (2 * once, "muted"),
    }
    chart = stacked.area(found, top, high, levels)
    return [_title(view, top, cells), *chart, _pauses(view, end, room), _time(end, room)][:height]


def _top(view: View, once: int) -> int:
    """The upper edge, bytes: of the budget, unless all that matters would be squeezed at its foot."""
    matters = max(view.memory.peak, 2 * once, 1)
    return int(1.05 * (view.memory.budget if view.memory.budget <= 2 * matters else matters))


def _title(view: View, top: int, cells: int) -> Spans:
    memory = view.memory
    above = " (above the chart)" if memory.budget > top else ""
    over = memory.peak > memory.budget
    pieces = [
        Piece(0, (Span(" memory ", "muted"), Span("█ guests", "resident"), Span("  "), Span("▓ caches", "cached"))),
        Piece(0, (Span("now ", "muted"), Span(f"{words.mib(memory.now)} MiB"))),
        Piece(0, (Span("peak ", "muted"), Span(f"{words.mib(memory.peak)} MiB", "bad" if over else "title"))),
        Piece(1, (Span(f"budget {words.mib(memory.budget)} MiB{above}", "muted"),)),
        *headlines.page_cache(memory, 2),
    ]
    return line_of(pieces, cells)


def _pauses(view: View, end: float, room: int) -> Spans:
    """A mark where each pause began; where several are, the worst."""
    marks = [" "] * room
    tones: list[Tone] = ["plain"] * room
    for kind, (glyph, tone, _) in MARKS.items():
        for pause in view.pauses:
            if kind_of(pause) == kind:
                at = min(room - 1, int(room * pause.began / end))
                marks[at], tones[at] = glyph, tone
    drawn = [Span(mark, tone) for mark, tone in zip(marks, tones, strict=True)]
    return (Span(f"{'pauses':>{stacked.LABEL - 2}} │", "muted"), *drawn)


def kind_of(pause: PauseView) -> str:
    """Which mark a pause gets."""
    return "lost" if pause.outcome == "discarded" else "on" if pause.punch else "off"


def _time(end: float, room: int) -> Spans:
    said = f"{end:.1f} s"
    legend = "   ".join(f"{glyph} {name}" for glyph, _, name in MARKS.values())
    gap = room - len(said) - len(legend) - 4
    middle = f"  {legend}  " if gap >= 0 else ""
    axis = "─" * max(0, room - len(said) - len(middle) - 1)
    return (Span(f"{'0 s':>{stacked.LABEL - 2}} └{middle}{axis} {said}", "muted"),)
