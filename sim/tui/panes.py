"""Fleet table, event log, lines."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from textual.events import Click
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.widget import Widget

from sim.record.ledger import Entry
from sim.record.view import SandboxView, View
from sim.report.sentences import Sentence, tell
from sim.tui import rows
from sim.tui.rows import Choice, choice_line
from sim.tui.spans import CURSOR, SELECTED, Span, Spans, draw, text, wrap

FRAMES_PER_SORT = 4
"""Rows that jump are hard to read: what changed is sorted and filtered again once a second."""


class FleetTable(ScrollView, can_focus=True):
    """The rows that are chosen, a cursor that stays on its sandbox, and a selection."""

    class CursorMoved(Message):
        """Another sandbox is under the cursor, others are selected, or others are shown."""

    class Chosen(Message):
        """The sandbox under the cursor is to be shown in full."""

    def __init__(self, *, id: str) -> None:  # noqa: A002 - textual's own name
        super().__init__(id=id)
        self._sandboxes: dict[str, SandboxView] = {}
        self._names: list[str] = []
        self._longest = 0
        self._selected: set[str] = set()
        self._cursor = 0
        self._choice = Choice()
        self._frames = 0

    @property
    def under_cursor(self) -> SandboxView | None:
        """The sandbox that the cursor is on; None where none is shown."""
        return self._sandboxes[self._names[self._cursor]] if self._names else None

    @property
    def selected(self) -> list[str]:
        """In the fleet's order."""
        return [name for name in self._sandboxes if name in self._selected] if self._selected else []

    def targets(self) -> list[str]:
        """The selected sandboxes in the fleet's order, else the one under the cursor."""
        return self.selected or self._names[self._cursor : self._cursor + 1]

    @property
    def choice(self) -> Choice:
        """Which rows are shown, and in which order."""
        return self._choice

    def choose(self, choice: Choice) -> None:
        """Show these rows in this order from now on."""
        self._choice = choice
        self._take_names(self._choice.names(self._sandboxes.values()))

    def choice_line(self, cells: int) -> Spans:
        """What is filtered and selected."""
        shown, selected = set(self._names), len(self._selected)
        hidden = len(self._selected - shown)
        return choice_line(self._choice, len(shown), len(self._sandboxes), selected, hidden, cells)

    def show(self, view: View, changed: Iterable[str]) -> None:
        """Draw the rows that changed again; all of them where others are shown."""
        is_another_fleet = view.sandboxes.keys() != self._sandboxes.keys()
        self._sandboxes = view.sandboxes
        self._frames += 1
        if is_another_fleet or (not self._choice.is_plain and self._frames % FRAMES_PER_SORT == 0):
            names = self._choice.names(view.sandboxes.values())
            if names != self._names:
                self._take_names(names)
                return
        top, height = self.scroll_offset.y, self.size.height
        seen = {name: y for y, name in enumerate(self._names[top : top + height], top)}
        for name in changed:
            if name in seen:
                self.refresh_line(seen[name])

    def _take_names(self, names: list[str]) -> None:
        here = self._names[self._cursor] if self._names else None
        self._names = names
        self._longest = max(map(len, self._sandboxes), default=0)
        self._selected &= self._sandboxes.keys()
        self._cursor = names.index(here) if here in names else max(0, min(self._cursor, len(names) - 1))
        self.virtual_size = Size(self.size.width, len(names))
        self.refresh()
        self._follow_cursor()
        self.post_message(self.CursorMoved())

    def columns(self, cells: int) -> tuple[rows.Column, ...]:
        """The columns at that width."""
        sort = self._choice.sort
        return rows.columns(cells, self._longest, sort.column if sort else "", backwards=self._choice.backwards)

    def render_line(self, y: int) -> Strip:
        index = y + self.scroll_offset.y
        cells = self.scrollable_content_region.width
        if index >= len(self._names):
            return draw(self, (), cells, index)
        cursor, selected = index == self._cursor, self._names[index] in self._selected
        over = CURSOR if cursor else SELECTED if selected else ""
        return draw(self, self._row(index, cells, cursor=cursor, selected=selected), cells, index, over)

    def _row(self, index: int, cells: int, *, cursor: bool, selected: bool) -> Spans:
        sandbox = self._sandboxes[self._names[index]]
        return rows.row(sandbox, self.columns(cells), cursor=cursor, selected=selected)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The rows that the mouse has marked, as text."""
        cells = self.scrollable_content_region.width
        lines = [text(self._row(at, cells, cursor=False, selected=False)) for at in range(len(self._names))]
        return selection.extract("\n".join(lines)), "\n"

    def on_click(self, event: Click) -> None:
        """A click moves the cursor, a second one looks at the sandbox; with ctrl or shift it selects."""
        index = event.y + self.scroll_offset.y
        if index >= len(self._names):
            return
        self.move_cursor(index)
        if event.ctrl or event.shift:
            self._selected ^= {self._names[index]}
            self.refresh_line(index)
            self.post_message(self.CursorMoved())
        elif event.chain == 2:
            self.post_message(self.Chosen())

    # -- the cursor and the selection

    def move_cursor(self, index: int) -> None:
        """Put the cursor on a row, the nearest there is, and scroll it into view."""
        index = max(0, min(len(self._names) - 1, index))
        self.refresh_line(self._cursor)
        self._cursor = index
        self.refresh_line(index)
        self._follow_cursor()
        self.post_message(self.CursorMoved())

    def _follow_cursor(self) -> None:
        index, top, height = self._cursor, self.scroll_offset.y, max(1, self.size.height)
        if index < top:
            self.scroll_to(y=index, animate=False)
        elif index >= top + height:
            self.scroll_to(y=index - height + 1, animate=False)

    def move_to(self, name: str) -> None:
        """Put the cursor on this sandbox, where it is shown."""
        if name in self._names:
            self.move_cursor(self._names.index(name))

    def move_by(self, count: int) -> None:
        """Move the cursor down, or up where `count` is negative."""
        self.move_cursor(self._cursor + count)

    def move_to_edge(self, edge: int) -> None:
        """To the first row (0) or the last (-1)."""
        self.move_cursor(0 if edge == 0 else len(self._names) - 1)

    def toggle_selected(self) -> None:
        """Select or unselect the sandbox under the cursor, and go on to the next."""
        for name in self._names[self._cursor : self._cursor + 1]:
            self._selected ^= {name}
        self.move_by(1)

    def select_shown(self) -> None:
        """Select everything that is shown; nothing else is selected then."""
        self._selected = set(self._names)
        self.refresh()
        self.post_message(self.CursorMoved())

    def unselect(self) -> None:
        """Select nothing."""
        self._selected.clear()
        self.refresh()
        self.post_message(self.CursorMoved())


KEPT = 1000
GAP = Sentence(0.0, (), "… some events came too fast to show; the run's folder has them all", "muted")


def log_lines(said: Sentence, cells: int) -> list[Spans]:
    """Time and sentence, whole: as many lines as it needs."""
    return wrap((Span(f"{said.t:8.2f} s  ", "muted"), Span(said.text, said.tone)), cells, indent=" " * 12)


def together(entries: Iterable[Entry]) -> list[Sentence]:
    """A sentence for each entry; equal sentences about several sandboxes are joined, also when not neighbours."""
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
    """Sentences, each whole; neighbours that say the same of several sandboxes are one.

    With `words` only those that contain all of them are shown; with `fine` the minor ones are shown too.
    """

    def __init__(self, *, id: str) -> None:  # noqa: A002 - textual's own name
        super().__init__(id=id)
        self._said: deque[Sentence] = deque(maxlen=KEPT)
        self._lines: list[Spans] = []
        self._cells = 0
        self._follows = True
        self.words = ""
        self.fine = False

    def add(self, entries: Iterable[Entry], *, gap: bool) -> None:
        """Append what the entries say."""
        new = [said for said in map(tell, entries) if self.fine or not said.fine]
        if gap:
            self._said.append(GAP)
        for said in new:
            self._add(said)
        if new or gap:
            self._break()

    def choose(self, words: str) -> None:
        """Show only sentences with these words from now on."""
        self.words = words
        self._break()

    @property
    def shown(self) -> int:
        """How many sentences are shown."""
        return sum(self._is_shown(said) for said in self._said)

    def on_resize(self) -> None:
        """Where the end was seen it still is."""
        if self.scrollable_content_region.width != self._cells:
            self._break()
        elif self._follows:
            self.scroll_end(animate=False)

    def _break(self) -> None:
        """Sentences into lines."""
        self._cells = self.scrollable_content_region.width
        if not self._cells:
            return  # not laid out yet
        shown = (said for said in self._said if self._is_shown(said))
        self._lines = [line for said in shown for line in log_lines(said, self._cells)]
        self.virtual_size = Size(self.size.width, len(self._lines))
        if self._follows:
            self.scroll_end(animate=False)
        self.refresh()

    def _is_shown(self, said: Sentence) -> bool:
        text = said.text.lower()
        return all(word in text for word in self.words.lower().split())

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
        self._break()

    def render_line(self, y: int) -> Strip:
        index = y + self.scroll_offset.y
        spans = self._lines[index] if index < len(self._lines) else ()
        return draw(self, spans, self.scrollable_content_region.width, index)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The lines that the mouse has marked, as text."""
        return selection.extract("\n".join(map(text, self._lines))), "\n"


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
        self._whole: tuple[int, int] | None = None

    def on_resize(self) -> None:
        """Another width needs another height."""
        if self._whole is not None:
            self.show_whole(self._lines, *self._whole)

    def show(self, lines: Lines) -> None:
        """Draw these from now on."""
        self._lines = lines
        if not self.size:
            return  # not laid out yet: it will be drawn when it is
        if list(lines(self.size.width, self.size.height)) != list(self._drawn):
            self.refresh()

    def show_whole(self, lines: Lines, least: int, most: int) -> None:
        """The same, as high as all of it needs: from `least` to `most` lines."""
        self._lines, self._whole = lines, (least, most)
        cells = self.screen.size.width
        if not cells:
            return  # not laid out yet
        height = max(least, min(most, len(lines(cells, most))))
        self.set_class(height == 0, "-empty")
        if self.styles.height is None or self.styles.height.value != height:
            self.styles.height = max(1, height)
        self.show(lines)

    def render_line(self, y: int) -> Strip:
        if y == 0 or not self._drawn:
            self._drawn = self._lines(self.size.width, self.size.height)
        spans = self._drawn[y] if y < len(self._drawn) else ()
        return draw(self, spans, self.size.width, y)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The lines that the mouse has marked, as text."""
        return selection.extract("\n".join(map(text, self._drawn))), "\n"

    class Pressed(Message):
        """A line was clicked, the first is 0; `widget` is which widget's."""

        def __init__(self, widget: str, line: int) -> None:
            super().__init__()
            self.widget = widget
            self.line = line

    def on_click(self, event: Click) -> None:
        """What is to be clicked does it by itself; else its screen may know what that line is."""
        if "@click" not in event.style.meta:
            self.post_message(self.Pressed(self.id or "", event.y))
