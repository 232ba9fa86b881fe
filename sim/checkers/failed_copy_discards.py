"""`failed_copy_discards`: a failure past the point of no return ends in discarded, with nothing left of it."""

from __future__ import annotations

from typing import Any

from engine.cache import PARTIAL
from sim.checkers.evidence import Evidence, SpawnedGuest, violation
from sim.trace.failed_copy_discards import failed_condemned
from sim.view import PauseView


class FailedCopyDiscards:
    """Looks, once such a pause has settled, for its process, its files, its record and its sandbox's state."""

    name = "failed_copy_discards"

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[dict[str, Any]] = []
        self._done: dict[str, PauseView] = {}

    def observe(self, evidence: Evidence) -> None:
        guests = {each.born.incarnation: each for each in evidence.guests()}
        for pause in evidence.view.pauses:
            if (
                pause.id in self._done
                or pause.settled_at is None
                or not failed_condemned(evidence.of_pause(pause.id), pause)
            ):
                continue
            self._done[pause.id] = pause
            self.checked += 1
            for reason in _left_undone(evidence, pause, guests.get(pause.incarnation)):
                found = violation(pause.sandbox, reason, incarnation=pause.incarnation, pause=pause.id)
                self.violations.append(found)

    def conclude(self, evidence: Evidence) -> None:
        """The state is judged at the end: a node tells it only after the pause has settled."""
        for pause in self._done.values():
            state = evidence.view.sandboxes[pause.sandbox].state
            if state != "discarded":
                reason = f"the sandbox is {state}, not discarded"
                found = violation(pause.sandbox, reason, incarnation=pause.incarnation, pause=pause.id)
                self.violations.append(found)


def _left_undone(evidence: Evidence, pause: PauseView, guest: SpawnedGuest | None) -> list[str]:
    found = []
    if guest is not None and (state := guest.state()) is not None:
        found.append(f"the copy failed past the point of no return, and its guest is still there (state {state})")
    names = (f"{pause.id}{PARTIAL}", pause.id)
    left = [name for name in names if (evidence.builds / name).exists()]
    found += [f"the cache of a failed copy is still there: {name}" for name in left]
    records = evidence.condemned.glob(f"{pause.incarnation}-*.json")
    return found + [f"its condemned record is still there: {path.name}" for path in records]
