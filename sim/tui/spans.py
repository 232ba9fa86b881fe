"""Text with a tone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rich.segment import Segment
from rich.style import Style as RichStyle
from textual.strip import Strip
from textual.widget import Widget

Tone = Literal["plain", "muted", "title", "good", "calm", "busy", "warn", "bad", "resident", "cached", "punched"]
"""What a piece of text means; the theme decides how that looks."""


class Span(NamedTuple):
    """A run of text in one tone. Every character used is one cell wide."""

    text: str
    tone: Tone = "plain"


Spans = tuple[Span, ...]
HARD = "\u00a0"
"""A blank that no line breaks at."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a line that is shown whole or not at all; the highest rank goes first where room is short."""

    rank: int
    spans: Spans


def text(spans: Iterable[Span]) -> str:
    """The characters alone."""
    return "".join(span.text for span in spans)


def width(spans: Iterable[Span]) -> int:
    """How many cells the spans take."""
    return sum(len(span.text) for span in spans)


def fit(spans: Spans, cells: int, *, right: bool = False) -> Spans:
    """Exactly `cells` wide: padded with blanks, or cut with an ellipsis."""
    missing = cells - width(spans)
    if missing < 0:
        return _cut(spans, cells)
    if missing == 0:
        return spans
    padding = Span(" " * missing)
    return (padding, *spans) if right else (*spans, padding)


def _cut(spans: Spans, cells: int) -> Spans:
    kept: list[Span] = []
    left = cells - 1
    for span in spans:
        if left <= 0:
            break
        kept.append(Span(span.text[:left], span.tone))
        left -= len(span.text)
    tone = kept[-1].tone if kept else "plain"
    return (*kept, Span("…", tone)) if cells > 0 else ()


def line_of(pieces: Sequence[Piece], cells: int, gap: int = 3) -> Spans:
    """The pieces in order with `gap` blanks between, without those that there is no room for."""
    kept = list(pieces)
    while kept and sum(width(piece.spans) for piece in kept) + gap * (len(kept) - 1) > cells:
        kept.remove(max(reversed(kept), key=lambda piece: piece.rank))
    spans: list[Span] = []
    for piece in kept:
        spans += [Span(" " * gap)] if spans else []
        spans += piece.spans
    return tuple(spans)


def opposite(left: Spans, right: Spans, cells: int) -> Spans:
    """One at each end of a line."""
    return (*left, Span(" " * max(1, cells - width(left) - width(right))), *right)


def wrap(spans: Spans, cells: int, indent: str = "  ") -> list[Spans]:
    """Broken between words, not at HARD, into lines of at most `cells`; a word longer than a line stands alone, cut."""
    lines: list[list[Span]] = [[]]
    used = 0
    for word in _words(spans):
        length = len(word.text)
        if used + len(word.text.rstrip()) > cells and lines[-1]:
            lines.append([Span(indent)])
            used = len(indent)
        lines[-1].append(word)
        used += length
    return [tuple(line) if width(line) <= cells else _cut(tuple(line), cells) for line in map(_finished, lines)]


def wrapped(said: Iterable[Spans], cells: int, lines: int) -> list[Spans]:
    """One after the other, each wrapped; at most so many lines, the last with an ellipsis where there is more."""
    found = [line for spans in said for line in wrap(spans, cells - 1, indent="   ")]
    if len(found) <= lines:
        return found
    more = (*found[lines - 1], Span(" …", "muted"))
    return [*found[: lines - 1], more if width(more) <= cells - 1 else fit(more, cells - 1)][: max(0, lines)]


def _words(spans: Spans) -> list[Span]:
    """Each word with the blanks after it."""
    words: list[Span] = []
    for span in spans:
        parts = span.text.split(" ")
        words += [Span(part + " ", span.tone) for part in parts[:-1]]
        words += [Span(parts[-1], span.tone)] if parts[-1] else []
    return words


def _finished(line: list[Span]) -> list[Span]:
    """Without blanks at its end, and with every blank an ordinary one."""
    if not line:
        return line
    last = line[-1]
    stripped = [*line[:-1], Span(last.text.rstrip(), last.tone)]
    return [Span(span.text.replace(HARD, " "), span.tone) for span in stripped]


LOOKS: dict[Tone, str] = {
    "plain": "",
    "muted": "$foreground 60%",
    "title": "bold",
    "good": "$text-success",
    "calm": "$text-secondary",
    "busy": "$text-primary",
    "warn": "$text-warning bold",
    "bad": "$text-error bold",
    "resident": "$success",
    "cached": "$primary",
    "punched": "$text-accent",
}
CURSOR = "on $primary 30%"
SELECTED = "on $primary 15%"


def draw(widget: Widget, spans: Spans, cells: int, over: str = "") -> Strip:
    """A line of the widget, `cells` wide; `over` is laid on its background, under the tones."""
    base = widget.visual_style
    parse = widget.app.stylesheet.parse_style
    if over:
        base += parse(over)

    def style(tone: Tone) -> RichStyle:
        return (base + parse(LOOKS[tone])).rich_style if LOOKS[tone] else base.rich_style

    segments = [Segment(span.text, style(span.tone)) for span in spans if span.text]
    return Strip(segments, width(spans)).adjust_cell_length(cells, base.rich_style)
