"""Text with a tone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style as RichStyle
from textual.strip import Strip
from textual.widget import Widget

Tone = Literal[
    "plain", "muted", "title", "good", "calm", "busy", "warn", "bad", "resident", "cached", "punched", "condemned"
]
"""What a piece of text means; `colours` decides how that looks."""


class Span(NamedTuple):
    """A run of text in one tone; a click on it runs `action`, where there is one (textual's words: `app.quit`)."""

    text: str
    tone: Tone = "plain"
    action: str = ""

    @property
    def width(self) -> int:
        """How many cells it takes: letters of some scripts take two."""
        return len(self.text) if self.text.isascii() else cell_len(self.text)


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
    return sum(span.width for span in spans)


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
        kept.append(span._replace(text=span.text if span.width <= left else set_cell_size(span.text, left)))
        left -= span.width
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
        length = word.width
        if used + length - (len(word.text) - len(word.text.rstrip())) > cells and lines[-1]:
            lines.append([Span(indent)])
            used = len(indent)
        lines[-1].append(word)
        used += length
    return [tuple(line) if width(line) <= cells else _cut(tuple(line), cells) for line in map(_finished, lines)]


def wrapped(said: Iterable[Spans], cells: int, lines: int) -> list[Spans]:
    """One after the other, each wrapped; at most so many lines, the last with an ellipsis where there is more."""
    found = [line for spans in said if spans for line in wrap(spans, cells - 1, indent="   ")]
    if len(found) <= lines:
        return found
    more = (*found[lines - 1], Span(" …", "muted"))
    return [*found[: lines - 1], more if width(more) <= cells - 1 else fit(more, cells - 1)][: max(0, lines)]


def whole(said: Iterable[Sequence[Spans]], cells: int, lines: int) -> list[Spans]:
    """One after the other, each in one of its forms, the longest first: in those with which all stand whole on so many
    lines. The last sentences become shorter first. As `wrapped` where even the shortest forms are too long."""
    forms = list(said)
    at = [0] * len(forms)

    def drawn() -> list[Spans]:
        return wrapped((each[index] for each, index in zip(forms, at, strict=True)), cells, 10 * lines)

    while len(drawn()) > lines:
        longer = [place for place, each in enumerate(forms) if at[place] < len(each) - 1]
        if not longer:
            break
        at[longer[-1]] += 1
    for place in range(len(forms)):  # what became shorter in vain
        while at[place]:
            at[place] -= 1
            if len(drawn()) > lines:
                at[place] += 1
                break
    return wrapped((each[index] for each, index in zip(forms, at, strict=True)), cells, lines)


def _words(spans: Spans) -> list[Span]:
    """Each word with the blanks after it."""
    words: list[Span] = []
    for span in spans:
        parts = span.text.split(" ")
        words += [span._replace(text=part + " ") for part in parts[:-1]]
        words += [span._replace(text=parts[-1])] if parts[-1] else []
    return words


def _finished(line: list[Span]) -> list[Span]:
    """Without blanks at its end, and with every blank an ordinary one."""
    if not line:
        return line
    last = line[-1]
    stripped = [*line[:-1], last._replace(text=last.text.rstrip())]
    return [span._replace(text=span.text.replace(HARD, " ")) for span in stripped]


LOOKS: dict[Tone, str] = {
    "plain": "",
    "muted": "$foreground 60%",
    "title": "bold",
    "good": "$tone-good",
    "calm": "$tone-calm",
    "busy": "$tone-busy",
    "warn": "$tone-warn bold",
    "bad": "$tone-bad bold",
    "resident": "$tone-good",
    "cached": "$tone-busy",
    "punched": "$tone-punched",
    "condemned": "$tone-condemned bold",
}
UNCOLOURED: dict[Tone, str] = {"bad": "bold reverse", "condemned": "bold reverse", "warn": "bold underline"}
"""What must be seen where there is no colour (NO_COLOR)."""
DARK = {
    "good": "#5fd787",
    "calm": "#b0c4e8",
    "busy": "#5fafff",
    "warn": "#ffd700",
    "bad": "#ff7070",
    "punched": "#40e0e0",
    "condemned": "#ff87ff",
}
LIGHT = {
    "good": "#2b6b00",
    "calm": "#4a4f6a",
    "busy": "#1550c0",
    "warn": "#755000",
    "bad": "#b5121f",
    "punched": "#006a72",
    "condemned": "#950f91",
}
CURSOR = "on $primary 30%"
SELECTED = "on $primary 15%"


def colours(*, dark: bool) -> dict[str, str]:
    """Variables of the style sheet. They are the same in every theme, so that none draws danger in the colour of good,
    and what is condemned or punched in the colour of anything else."""
    return {f"tone-{name}": colour for name, colour in (DARK if dark else LIGHT).items()}


def draw(widget: Widget, spans: Spans, cells: int, y: int, over: str = "") -> Strip:
    """Line `y` of the widget's text, `cells` wide; `over` is laid on its background, under the tones.

    What the mouse has marked is drawn as marked, and every cell knows where in the text it is.
    """
    base = widget.visual_style
    parse = widget.app.stylesheet.parse_style
    looks = {**LOOKS, **UNCOLOURED} if widget.app.no_color else LOOKS
    if over:
        base += parse(over)

    def style(span: Span) -> RichStyle:
        found = (base + parse(looks[span.tone])).rich_style if looks[span.tone] else base.rich_style
        return found + RichStyle(meta={"@click": span.action}) if span.action else found

    segments = [Segment(span.text, style(span)) for span in spans if span.text]
    strip = Strip(segments, width(spans)).adjust_cell_length(cells, base.rich_style)
    marked = widget.text_selection
    if marked is not None and (span := marked.get_span(y)) is not None:
        start, end = span[0], cells if span[1] == -1 else span[1]
        look = widget.screen.get_component_rich_style("screen--selection")
        strip = Strip.join([strip.crop(0, start), strip.crop(start, end).apply_style(look), strip.crop(end, cells)])
    return strip.apply_offsets(0, y)
