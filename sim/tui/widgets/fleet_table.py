"""The fleet, a row a sandbox: only rows that are seen are drawn, only those that changed are drawn again."""

from __future__ import annotations

from collections.abc import Iterable

from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from sim.tui import rows
from sim.tui.spans import Spans
from sim.tui.tones import CURSOR, SELECTED, draw
from sim.view import SandboxView, View


class FleetTable(ScrollView, can_focus=True):
    """Rows in the fleet's order, a cursor, and a selection."""

    class CursorMoved(Message):
        """Another sandbox is under the cursor."""

    def __init__(self, *, id: str) -> None:  # noqa: A002 - textual's own name
        super().__init__(id=id)
        self._sandboxes: dict[str, SandboxView] = {}
        self._names: list[str] = []
        self._longest = 0
        self._selected: set[str] = set()
        self._cursor = 0

    @property
    def under_cursor(self) -> SandboxView | None:
        """The sandbox that the cursor is on; None in an empty fleet."""
        return self._sandboxes[self._names[self._cursor]] if self._names else None

    def targets(self) -> list[str]:
        """The selected sandboxes in the fleet's order, else the one under the cursor."""
        chosen = [name for name in self._names if name in self._selected]
        return chosen or self._names[self._cursor : self._cursor + 1]

    def show(self, view: View, changed: Iterable[str]) -> None:
        """Draw the rows that changed again; all of them where the fleet itself changed."""
        self._sandboxes = view.sandboxes
        if list(view.sandboxes) != self._names:
            self._take_names(list(view.sandboxes))
            return
        top, height = self.scroll_offset.y, self.size.height
        seen = {name: y for y, name in enumerate(self._names[top : top + height], top)}
        for name in changed:
            if name in seen:
                self.refresh_line(seen[name])

    def _take_names(self, names: list[str]) -> None:
        self._names = names
        self._longest = max(map(len, names), default=0)
        self._selected &= set(names)
        self._cursor = min(self._cursor, max(0, len(names) - 1))
        self.virtual_size = Size(self.size.width, len(names))
        self.refresh()
        self.post_message(self.CursorMoved())

    def columns(self, cells: int) -> tuple[rows.Column, ...]:
        """The columns at that width."""
        return rows.columns(cells, self._longest)

    def render_line(self, y: int) -> Strip:
        index = y + self.scroll_offset.y
        cells = self.scrollable_content_region.width
        if index >= len(self._names):
            return draw(self, (), cells)
        cursor, selected = index == self._cursor, self._names[index] in self._selected
        over = CURSOR if cursor else SELECTED if selected else ""
        return draw(self, self._row(index, cells, cursor=cursor, selected=selected), cells, over)

    def _row(self, index: int, cells: int, *, cursor: bool, selected: bool) -> Spans:
        sandbox = self._sandboxes[self._names[index]]
        return rows.row(sandbox, self.columns(cells), cursor=cursor, selected=selected)

    # -- the cursor and the selection

    def move_cursor(self, index: int) -> None:
        """Put the cursor on a row, the nearest there is, and scroll it into view."""
        index = max(0, min(len(self._names) - 1, index))
        self.refresh_line(self._cursor)
        self._cursor = index
        self.refresh_line(index)
        top, height = self.scroll_offset.y, max(1, self.size.height)
        if index < top:
            self.scroll_to(y=index, animate=False)
        elif index >= top + height:
            self.scroll_to(y=index - height + 1, animate=False)
        self.post_message(self.CursorMoved())

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

    def unselect(self) -> None:
        """Select nothing."""
        self._selected.clear()
        self.refresh()
