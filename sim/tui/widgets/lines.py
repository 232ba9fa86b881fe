"""A widget that is a few lines, drawn by a function of its width."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.strip import Strip
from textual.widget import Widget

from sim.tui.spans import Spans
from sim.tui.tones import draw

Lines = Callable[[int, int], Sequence[Spans]]
"""(width, height) in cells -> the lines from the top."""


def no_lines(_width: int, _height: int) -> Sequence[Spans]:
    """Nothing to say."""
    return ()


class LinesWidget(Widget):
    """Draws what `show` was given; repaints only where that changed what is seen."""

    def __init__(self, lines: Lines = no_lines, *, id: str) -> None:  # noqa: A002 - textual's own name
        super().__init__(id=id)
        self._lines = lines
        self._drawn: Sequence[Spans] = ()

    def show(self, lines: Lines) -> None:
        """Draw these from now on."""
        self._lines = lines
        if not self.size:
            return  # not laid out yet: it will be drawn when it is
        if list(lines(self.size.width, self.size.height)) != list(self._drawn):
            self.refresh()

    def render_line(self, y: int) -> Strip:
        if y == 0 or not self._drawn:
            self._drawn = self._lines(self.size.width, self.size.height)
        spans = self._drawn[y] if y < len(self._drawn) else ()
        return draw(self, spans, self.size.width)
