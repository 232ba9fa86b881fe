"""The ledger of a run that goes on: written by the runner, read on and folded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from engine.events import ChunkPublished, ChunkPunched, Event
from sim.record import events, source_events
from sim.record.fold import Fold
from sim.record.ledger import Entry, Follower, Ledger, read
from sim.record.view import View

UNJUDGED = frozenset({events.Ticked, events.GuestMeasured, events.MemorySampled, source_events.LeaseMeasured})
"""Events that come at every tick, and that no rule, digest or record looks at: only the fold needs them."""


class RunLedger:
    """Nothing before it is opened. `take` gets each entry once, as it is read.

    A run that may last is `long`: of what is in the view or was judged already, it keeps in memory only what is judged
    again. The file has everything, and `recall` reads it again.
    """

    def __init__(self, take: Callable[[Sequence[Entry]], object], *, long: bool = False) -> None:
        self.entries: list[Entry] = []
        self.long = long
        self._take = take
        self._fold = Fold()
        self._ledger: Ledger | None = None
        self._follower: Follower | None = None
        self._path = Path()
        self._brief: set[str] = set()  # pauses whose chunks are no longer kept

    def open(self, path: Path, began: float, sandboxes: int) -> None:
        """Begin it, with disk space for so many sandboxes; raises OSError. `began` as Ledger has it."""
        self._path = path
        self._ledger = Ledger(path, began)
        self._ledger.reserve(sandboxes)
        self._follower = Follower(path, is_own=True)

    def note(self, event: Event) -> None:
        """Append an event of the runner itself."""
        if self._ledger is not None:
            self._ledger.append(event)

    def view(self) -> View:
        """Everything up to now, folded."""
        new = [] if self._follower is None else list(self._follower.new_entries())
        self.entries += self._kept(new)
        self._take(new)
        self._fold.apply(new)
        return self._fold.view()

    def _kept(self, entries: Iterable[Entry]) -> list[Entry]:
        return [each for each in entries if type(each.event) not in UNJUDGED] if self.long else list(entries)

    def judged(self, view: View, violated: Collection[str]) -> None:
        """The rules have seen all of this view's pauses: the chunks of those that have settled are judged for good.

        What was copied up to the first punch stays, of a pause without punches the first chunk; of the `violated`
        pauses everything stays.
        """
        settled = {each.id for each in view.pauses if each.settled_at is not None} - self._brief - {*violated}
        if not self.long or not settled:
            return
        self._brief |= settled
        self.entries = list(_without_chunks(self.entries, settled))

    def recall(self) -> None:
        """Everything that is judged, from the file: the run is about to end."""
        if self.long and self._follower is not None:
            self.long = False
            self.view()
            self.entries = [each for each in read(self._path, is_own=True) if type(each.event) not in UNJUDGED]

    @property
    def lost(self) -> int:
        """Lines that the runner could not write."""
        return 0 if self._ledger is None else self._ledger.lost

    def close(self) -> None:
        """Close the file; harmless when already closed."""
        if self._ledger is not None:
            self._ledger.close()


def _without_chunks(entries: Sequence[Entry], pauses: Collection[str]) -> Iterator[Entry]:
    """All that is judged again of these pauses: that each punched, and that this was not too early."""
    punched = {each.pause for each in entries if isinstance(each.event, ChunkPunched)}
    over: set[str | None] = set()
    for entry in entries:
        if entry.pause not in pauses or not isinstance(entry.event, ChunkPublished | ChunkPunched):
            yield entry
        elif entry.pause not in over:
            yield entry
            if isinstance(entry.event, ChunkPunched) or entry.pause not in punched:
                over.add(entry.pause)
