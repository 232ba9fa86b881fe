"""The latest events in words, newest at the bottom; follows the end unless somebody scrolled up."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from sim.ledger import Entry
from sim.report.words import Sentence, tell
from sim.tui.spans import Span, Spans, fit, width, wrap
from sim.tui.tones import draw

KEPT = 1000
GAP = Sentence(0.0, (), "… some events came too fast to show; the run's folder has them all", "muted")


def log_line(said: Sentence, cells: int) -> Spans:
    """Time and sentence on one line; a sentence that is too long ends between words."""
    spans: Spans = (Span(f"{said.t:8.2f} s  ", "muted"), Span(said.text, said.tone))
    if width(spans) > cells:
        spans = (*wrap(spans, cells - 2)[0], Span(" …", said.tone))
    return fit(spans, cells)


def together(entries: Iterable[Entry]) -> list[Sentence]:
    """A sentence each; what is said of several sandboxes alike, wherever it stands among them, is one."""
    found: list[Sentence] = []
    for said in map(tell, entries):
        joined = [each.joined(said) for each in found]
        at = next((index for index, each in enumerate(joined) if each is not None), None)
        if at is None:
            found.append(said)
        else:
            found[at] = joined[at] or said
    return found


class EventLog(ScrollView, can_focus=False):
    """Sentences, one a line; neighbours that say the same of several sandboxes are one."""

    def __init__(self, *, id: str) -> None:  # noqa: A002 - textual's own name
        super().__init__(id=id)
        self._said: deque[Sentence] = deque(maxlen=KEPT)
        self._follows = True

    def add(self, entries: Iterable[Entry], *, gap: bool) -> None:
        """Append what the entries say."""
        new = [said for said in map(tell, entries) if not said.fine]
        if gap:
            self._said.append(GAP)
        for said in new:
            self._add(said)
        if new or gap:
            self.virtual_size = Size(self.size.width, len(self._said))
            self.on_resize()
            self.refresh()

    def on_resize(self) -> None:
        """Where the end was seen it still is."""
        if self._follows:
            self.scroll_end(animate=False)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._follows = new_value >= self.max_scroll_y

    def _add(self, said: Sentence) -> None:
        joined = self._said[-1].joined(said) if self._said else None
        if joined is not None:
            self._said[-1] = joined
        else:
            self._said.append(said)

    def clear(self) -> None:
        """Forget everything: another run begins."""
        self._said.clear()
        self.virtual_size = Size(self.size.width, 0)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        index = y + self.scroll_offset.y
        cells = self.scrollable_content_region.width
        spans = log_line(self._said[index], cells) if index < len(self._said) else ()
        return draw(self, spans, cells)
