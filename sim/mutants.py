"""Wrong engines, each with one rule broken: a scenario that runs one must be caught. Never the default."""

from __future__ import annotations

import signal

from engine import dirty
from engine.cache import Cache
from engine.dirty import DirtySet, Tracker
from engine.effects import Effects, Memory
from engine.incarnation import GuestProcess
from engine.memfd import Memfd
from engine.permit import CondemnedRecords, PunchPermit
from engine.ranges import Chunk, whole_pages


class ResumeAfterPunch(Effects):
    """A failed copy wakes the guest up again, although its memory was punched."""

    def kill(self, guest: GuestProcess) -> None:
        signal.pidfd_send_signal(guest.pidfd, signal.SIGCONT)

    def retire(self, records: CondemnedRecords, guest: GuestProcess) -> None:
        """The record is left: it is not what is broken here."""


class DiscardSkipped(Effects):
    """A failed copy leaves the condemned guest and its partial cache where they are."""

    def discard(self, cache: Cache, error: BaseException) -> None:
        """Nothing is deleted."""

    def kill(self, guest: GuestProcess) -> None:
        """Nobody is killed."""

    def retire(self, records: CondemnedRecords, guest: GuestProcess) -> None:
        """The record is left: it is not what is broken here."""


class PunchBeforePublish(Effects):
    """A chunk is freed from the memfd before its readers may have it from the cache."""

    def __init__(self) -> None:
        self._memfd: Memfd | None = None
        self._permit: PunchPermit | None = None

    def copy_read(self, memory: Memory, buffer: memoryview, offset: int, chunk: Chunk) -> None:
        self._memfd = memory if isinstance(memory, Memfd) else None
        super().copy_read(memory, buffer, offset, chunk)

    def condemn(self, records: CondemnedRecords, guest: GuestProcess, build: str) -> PunchPermit:
        self._permit = super().condemn(records, guest, build)
        return self._permit

    def copy_write(self, cache: Cache, data: memoryview, chunk: Chunk) -> None:
        super().copy_write(cache, data, chunk)
        memfd, permit = self._memfd, self._permit
        if memfd is None or permit is None:
            return
        pages = whole_pages(chunk.start, chunk.end, memfd.page_size, memfd.size)
        if pages:
            memfd.punch(pages[0], pages[1] - pages[0], permit)


class ScanRearms(Effects):
    """The scan of a pause re-arms, so that a roll-back forgets what was dirty."""

    def scan(self, tracker: Tracker, guest: GuestProcess, memory: Memory, block_size: int) -> DirtySet:
        return dirty.scan(tracker, guest, memory, block_size, rearm=True)


MUTANTS: dict[str, type[Effects]] = {
    "resume-after-punch": ResumeAfterPunch,
    "discard-skipped": DiscardSkipped,
    "punch-before-publish": PunchBeforePublish,
    "scan-rearms": ScanRearms,
}
NAMES = frozenset(MUTANTS)
