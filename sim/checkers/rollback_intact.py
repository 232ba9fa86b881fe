"""`rollback_intact`: an uncondemned failure loses nothing: same bytes, a running guest, a complete next pause."""

from __future__ import annotations

import os
from typing import Any

from sim.checkers.bytes_exact import BytesExact
from sim.checkers.evidence import Evidence, SpawnedGuest, page_violation, violation
from sim.view import PauseView


class RollbackIntact:
    """Looks into the guest after each roll-back, and at the next snapshot of the same incarnation."""

    name = "rollback_intact"

    def __init__(self, bytes_exact: BytesExact) -> None:
        self.checked = 0
        self.violations: list[dict[str, Any]] = []
        self._bytes_exact = bytes_exact
        self._done: set[str] = set()

    def observe(self, evidence: Evidence) -> None:
        guests = {each.born.incarnation: each for each in evidence.guests()}
        for pause in evidence.view.pauses:
            if pause.outcome != "rolled-back" or pause.id in self._done or pause.settled_at is None:
                continue
            self._done.add(pause.id)
            self.checked += 1
            if pause.incarnation in guests and evidence.view.sandboxes[pause.sandbox].state == "running":
                self._check_guest(evidence, pause, guests[pause.incarnation])
        self._check_next_pauses(evidence)

    def conclude(self, evidence: Evidence) -> None:
        """Everything was judged at its barrier."""

    def _check_guest(self, evidence: Evidence, pause: PauseView, guest: SpawnedGuest) -> None:
        if not guest.is_running():
            reason = f"the pause was rolled back, and the guest does not run (state {guest.state()})"
            self.violations.append(violation(pause.sandbox, reason, incarnation=pause.incarnation, pause=pause.id))
            return
        try:
            pages, fd = guest.generations(), guest.open_memory()
        except OSError:  # it died meanwhile
            return
        for mismatch in evidence.mismatches(pause.sandbox, pages, fd):
            reason = "the pause was rolled back, and memory is not what it was"
            found = page_violation(pause.sandbox, reason, mismatch, incarnation=pause.incarnation, pause=pause.id)
            self.violations.append(found)
            break
        os.close(fd)

    def _check_next_pauses(self, evidence: Evidence) -> None:
        """A roll-back that forgets dirty blocks shows in the next snapshot of the same incarnation."""
        rolled_back = {each.incarnation for each in evidence.view.pauses if each.outcome == "rolled-back"}
        for pause in evidence.view.pauses:
            if pause.id in self._bytes_exact.failed_pauses and pause.incarnation in rolled_back:
                self._bytes_exact.failed_pauses.discard(pause.id)
                lost = next(v for v in self._bytes_exact.violations if v.get("pause") == pause.id)
                reason = "the pause after a roll-back is not complete"
                self.violations.append({**lost, "reason": reason, "incarnation": pause.incarnation})
