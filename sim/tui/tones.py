"""How a tone looks: the theme's own colours, and spans turned into what textual draws."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style as RichStyle
from textual.strip import Strip
from textual.widget import Widget

from sim.tui.spans import Spans, Tone, width

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
