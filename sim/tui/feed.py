"""What is new since the last look: views in, frames out. No screen in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sim.ledger import Entry
from sim.view import SandboxView, View


@dataclass(frozen=True, slots=True)
class Frame:
    """A view, the sandboxes that changed, and the entries that came; `gap` where some had left the log unseen."""

    view: View
    changed: frozenset[str]
    entries: tuple[Entry, ...]
    gap: bool


class Feed:
    """Asks `source` for a view and compares: an unchanged sandbox is the same object in both."""

    def __init__(self, source: Callable[[], View]) -> None:
        self._source = source
        self._sandboxes: dict[str, SandboxView] = {}
        self._last: Entry | None = None

    def next(self) -> Frame:
        """The frame for now."""
        view = self._source()
        known = self._sandboxes
        changed = frozenset(name for name, sandbox in view.sandboxes.items() if known.get(name) is not sandbox)
        entries, gap = self._new_entries(view.log)
        self._sandboxes = view.sandboxes
        return Frame(view, changed, entries, gap)

    def _new_entries(self, log: tuple[Entry, ...]) -> tuple[tuple[Entry, ...], bool]:
        last, self._last = self._last, log[-1] if log else self._last
        for index in range(len(log) - 1, -1, -1):
            if log[index] is last:
                return log[index + 1 :], False
        return log, last is not None and bool(log)
