"""KVM's own log of what a virtual machine wrote: a second opinion beside the tracker."""

from __future__ import annotations

from collections.abc import Callable

from engine.dirty import DirtySet, SharedBitmap, Tracker, WriteProtectScan
from engine.events import DirtyCompared, Event
from engine.ranges import Blocks, in_smaller_blocks


class LoggedTracker:
    """A tracker, and the log that must name the same blocks: the guest adds to it before each freeze.

    The log is in units of `per_unit` blocks: a write to a huge page is one of all its blocks to the tracker.
    """

    def __init__(self, tracker: WriteProtectScan, log: SharedBitmap, per_unit: int = 1) -> None:
        self.name = tracker.name
        self._tracker = tracker
        self._log = log
        self._per_unit = per_unit

    def written(self, *, rearm: bool) -> Blocks | None:
        """What the tracker says; a new dirty set is a new log as well."""
        found = self._tracker.written(rearm=rearm)
        if rearm:
            self._log.written(rearm=True)
        return found

    def logged(self) -> Blocks | None:
        """What KVM's log says, since the same moment."""
        units = self._log.written(rearm=False)
        return None if units is None else in_smaller_blocks(units, self._per_unit)

    def close(self) -> None:
        self._tracker.close()


def compared(tracker: Tracker, found: DirtySet) -> DirtyCompared | None:
    """Both answers side by side; None where there is no log, or where the tracker's answer was not used."""
    logged = tracker.logged() if isinstance(tracker, LoggedTracker) else None
    if logged is None or found.tracker != tracker.name:
        return None
    missed, unlogged = logged - found.dirty, found.dirty - logged
    return DirtyCompared(
        tracker=found.tracker,
        tracked=len(found.dirty),
        logged=len(logged),
        missed=len(missed),
        unlogged=len(unlogged),
        first_missed=missed.min() if missed else None,
        first_unlogged=unlogged.min() if unlogged else None,
    )


def witness(tracker: Tracker, tell: Callable[[Event], object]) -> Callable[[DirtySet], None]:
    """Compares what a scan found with the log, and records it."""

    def compare(found: DirtySet) -> None:
        if (told := compared(tracker, found)) is not None:
            tell(told)

    return compare
