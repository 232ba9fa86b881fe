"""The ledger of a run that goes on: written by the runner, read on and folded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from engine.events import Event
from sim.record.fold import Fold
from sim.record.ledger import Entry, Follower, Ledger
from sim.record.view import View


class RunLedger:
    """Nothing before it is opened. `take` gets each entry once, as it is read."""

    def __init__(self, take: Callable[[Sequence[Entry]], object]) -> None:
        self.entries: list[Entry] = []
        self._take = take
        self._fold = Fold()
        self._ledger: Ledger | None = None
        self._follower: Follower | None = None

    def open(self, path: Path, began: float, sandboxes: int) -> None:
        """Begin it, with disk space for so many sandboxes; raises OSError. `began` as Ledger has it."""
        self._ledger = Ledger(path, began)
        self._ledger.reserve(sandboxes)
        self._follower = Follower(path)

    def note(self, event: Event) -> None:
        """Append an event of the runner itself."""
        if self._ledger is not None:
            self._ledger.append(event)

    def view(self) -> View:
        """Everything up to now, folded."""
        new = [] if self._follower is None else list(self._follower.new_entries())
        self.entries += new
        self._take(new)
        self._fold.apply(new)
        return self._fold.view()

    @property
    def lost(self) -> int:
        """Lines that the runner could not write."""
        return 0 if self._ledger is None else self._ledger.lost

    def close(self) -> None:
        """Close the file; harmless when already closed."""
        if self._ledger is not None:
            self._ledger.close()
