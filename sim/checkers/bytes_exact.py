"""`bytes_exact`: resuming a finished snapshot gives what the guest held at the freeze, page by page."""

from __future__ import annotations

import os
from typing import Any

from engine.errors import CorruptBuildError, EngineError
from engine.memfd import Memfd
from engine.resume import fill
from engine.snapshot import Build, Header
from sim import events
from sim.checkers.evidence import Evidence, page_violation, violation
from sim.oracle import generations
from sim.pausing import GENERATIONS
from sim.view import PauseView


class BytesExact:
    """Fills a memfd of its own from every finished build, and looks into every resumed guest."""

    name = "bytes_exact"

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[dict[str, Any]] = []
        self._done: set[str] = set()
        self.failed_pauses: set[str] = set()

    def observe(self, evidence: Evidence) -> None:
        for pause in evidence.view.pauses:
            if pause.outcome == "finished" and pause.id not in self._done:
                self._done.add(pause.id)
                self._check_build(evidence, pause)
        for entry in evidence.entries:
            if isinstance(entry.event, events.Resumed) and entry.event.incarnation not in self._done:
                self._done.add(entry.event.incarnation)
                self._check_guest(evidence, entry.event)

    def conclude(self, evidence: Evidence) -> None:
        """Builds are gone after teardown."""

    def _check_build(self, evidence: Evidence, pause: PauseView) -> None:
        try:
            build = Build.open(evidence.builds, pause.id)
            pages = generations(build.attachment(GENERATIONS))
            build.close()
            memfd = _filled(evidence, build.header)
        except (EngineError, OSError) as error:
            if isinstance(error, CorruptBuildError) and any(f"{each}:" in str(error) for each in evidence.damaged()):
                self.checked += 1  # it was written wrong on purpose, and is refused by name
                return
            self._report(pause.id, violation(pause.sandbox, f"its snapshot cannot be resumed: {error}", pause=pause.id))
            return
        self.checked += 1
        if pause.id in evidence.damaged():
            reason = "a byte of its snapshot was flipped, and it is taken for whole"
            self._report(pause.id, violation(pause.sandbox, reason, pause=pause.id))
        for mismatch in evidence.mismatches(pause.sandbox, pages, memfd.fd):
            reason = f"snapshot {pause.id} does not hold what the guest held at the freeze"
            self._report(pause.id, page_violation(pause.sandbox, reason, mismatch, pause=pause.id))
            break
        memfd.close()

    def _check_guest(self, evidence: Evidence, resumed: events.Resumed) -> None:
        guest = next((g for g in evidence.guests() if g.born.incarnation == resumed.incarnation), None)
        if guest is None or not guest.is_running():
            return
        try:
            pages, fd = guest.generations(), guest.open_memory()
        except OSError:  # it died meanwhile
            return
        self.checked += 1
        for mismatch in evidence.mismatches(guest.sandbox, pages, fd):
            reason = f"resumed from {resumed.build}, the guest does not hold what was paused"
            self.violations.append(
                page_violation(guest.sandbox, reason, mismatch, incarnation=resumed.incarnation, pause=resumed.build)
            )
            break
        os.close(fd)

    def _report(self, pause: str, found: dict[str, Any]) -> None:
        self.failed_pauses.add(pause)
        self.violations.append(found)


def _filled(evidence: Evidence, header: Header) -> Memfd:
    """A memfd of the checker's own with what the header says."""
    fd = os.memfd_create(f"snapdrill-{evidence.run}-check", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, header.mapping.size)
    memfd = Memfd.adopt(fd, header.mapping.size)
    try:
        fill(memfd, evidence.builds, header)
    except (EngineError, OSError):
        memfd.close()
        raise
    return memfd
