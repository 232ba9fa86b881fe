"""`never_resumed`: an incarnation with a punched byte never runs again, in any process, after any crash."""

from __future__ import annotations

import os
import time
from typing import Any

from sim.checkers.evidence import Evidence, SpawnedGuest, violation, zeroed_pages
from sim.oracle import PAGE, content, describe, key_of

_DYING = 2.0  # seconds in which a process that was sent SIGKILL may still be seen


class NeverResumed:
    """Looks at every incarnation that runs: is it condemned, and are pages gone that it wrote?"""

    name = "never_resumed"

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[dict[str, Any]] = []
        self._reported: set[str] = set()

    def observe(self, evidence: Evidence) -> None:
        pauses = [each for each in evidence.view.pauses if each.incarnation]
        self.checked = len({each.incarnation for each in pauses if each.punched_bytes})
        condemned = {each.incarnation: each.id for each in pauses if each.condemned}
        end = time.monotonic() + _DYING
        for guest in evidence.guests():
            if guest.born.incarnation not in self._reported and guest.is_running():
                self._look_at(guest, condemned.get(guest.born.incarnation), evidence.seed, end)

    def conclude(self, evidence: Evidence) -> None:
        """No process is left after teardown; no_leaks looks for those that are."""

    def _look_at(self, guest: SpawnedGuest, condemned_by: str | None, seed: int, end: float) -> None:
        if condemned_by is not None and not _goes_on_running(guest, end):
            return
        page = _first_lost_page(guest, seed)
        if not guest.is_running() or (condemned_by is None and page is None):
            return
        reason = "a condemned guest runs again" if condemned_by else "a guest runs although its memory was freed"
        self._reported.add(guest.born.incarnation)
        self.violations.append(
            violation(guest.sandbox, reason, incarnation=guest.born.incarnation, pause=condemned_by, **(page or {}))
        )


def _goes_on_running(guest: SpawnedGuest, end: float) -> bool:
    while guest.is_running():
        if time.monotonic() > end:
            return True
        time.sleep(0.005)
    return False


def _first_lost_page(guest: SpawnedGuest, seed: int) -> dict[str, Any] | None:
    """The first page that the guest wrote and that the kernel holds no more."""
    try:
        pages, fd = guest.generations(), guest.open_memory()
    except OSError:  # it died meanwhile
        return None
    try:
        for page in zeroed_pages(pages, fd).tolist():
            expected = content(key_of(seed, guest.sandbox), page, pages[page])
            found = os.pread(fd, PAGE, page * PAGE)
            return {"page": page, "expected": describe(expected), "found": describe(found)}
    finally:
        os.close(fd)
    return None
