"""Wrong engines whose fault lies in single acts of a pause; what they do not get wrong they do, faults included."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from engine import dirty, evidence, linux
from engine import mapping as maps
from engine.cache import Cache
from engine.chunk_records import ChunkRecords
from engine.dirty import DirtySet, Tracker
from engine.effects import Before, Boundary, Memory
from engine.errors import GuestRanError
from engine.evidence import Threads
from engine.incarnation import CondemnedRecords, GuestProcess, PunchPermit, state_of
from engine.memfd import Memfd
from engine.ranges import Blocks, Chunk, runs, whole_pages
from engine.snapshot import Header
from sim.node.armed_faults import FaultyEffects

_WOKEN_AT, _WOKEN_FOR = 2, 0.002  # chunk, seconds


class SaidToBeDead(GuestProcess):
    """A guest of which it is only said that it is dead."""

    def is_dead(self) -> bool:
        return True


def _said_to_be_dead(guest: GuestProcess) -> GuestProcess:
    return SaidToBeDead(guest.incarnation, guest.pidfd)


def forged_permit(guest: GuestProcess) -> PunchPermit:
    """A permit that no record of this node and no death stands behind."""
    with tempfile.TemporaryDirectory(prefix="snapdrill-") as folder:
        permit = CondemnedRecords(Path(folder)).condemn(guest.incarnation, "forged")
    permit.open(_said_to_be_dead(guest))
    return permit


class KillsLate(FaultyEffects):
    """Says that it killed the condemned guest, punches, and kills it with the last act of the pause."""

    failed = False
    _owed: GuestProcess | None = None

    def kill(self, guest: GuestProcess) -> None:
        self._owed = guest

    def await_death(self, guest: GuestProcess, permit: PunchPermit | None) -> None:
        if permit is not None and not permit.is_open:
            permit.open(_said_to_be_dead(guest))

    def discard(self, cache: Cache, error: BaseException) -> None:
        self.failed = True  # a failed pause discards its cache first: that distinguishes it from one that has finished
        super().discard(cache, error)

    def end_at_last(self, guest: GuestProcess) -> None:
        """What becomes of the guest in the end."""
        with contextlib.suppress(GuestRanError):
            super().kill(guest)
        super().await_death(guest, None)

    def close(self, memory: Memory | None, cache: Cache | None) -> None:
        guest, self._owed = self._owed, None
        try:
            super().close(memory, cache)
        finally:
            if guest is not None:
                self.end_at_last(guest)


class ResumeAfterPunch(KillsLate):
    """Wakes instead of killing; the record is left, it is not what is broken here."""

    def end_at_last(self, guest: GuestProcess) -> None:
        if not self.failed:
            super().end_at_last(guest)
            return
        signal.pidfd_send_signal(guest.pidfd, signal.SIGCONT)


class OldGuestRunsOn(KillsLate):
    """Wakes every guest that it was to kill, also where all went well: its memory is gone."""

    def end_at_last(self, guest: GuestProcess) -> None:
        signal.pidfd_send_signal(guest.pidfd, signal.SIGCONT)


class DiscardSkipped(KillsLate):
    """Deletes nothing and kills no guest; the record is left, it is not what is broken here."""

    def discard(self, cache: Cache, error: BaseException) -> None:
        self.failed = True

    def end_at_last(self, guest: GuestProcess) -> None:
        if not self.failed:
            super().end_at_last(guest)


class WokenInMidCopy(KillsLate):
    """Lets the guest run before the third chunk is read, and sees nothing of it afterwards."""

    def look(self, guest: GuestProcess, before: Before) -> None:
        if self._owed is None:
            super().look(guest, before)

    def copy_read(self, memory: Memory, buffer: memoryview, offset: int, chunk: Chunk) -> None:
        if self._owed is not None and chunk.index == _WOKEN_AT:
            signal.pidfd_send_signal(self._owed.pidfd, signal.SIGCONT)
            time.sleep(_WOKEN_FOR)
            signal.pidfd_send_signal(self._owed.pidfd, signal.SIGSTOP)
        super().copy_read(memory, buffer, offset, chunk)


class PunchedUnrecorded(FaultyEffects):
    """Records the chunks when all of them are copied, and punched."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._owed: list[tuple[ChunkRecords, Cache, Chunk]] = []

    def record(self, records: ChunkRecords, cache: Cache, chunk: Chunk) -> None:
        self._owed.append((records, cache, chunk))

    def boundary(self, before: Boundary) -> None:
        super().boundary(before)
        while before == "finish" and self._owed:
            super().record(*self._owed.pop())


class OneThreadStopped(FaultyEffects):
    """Stops the guest's first thread and looks at no other one."""

    _stopped: Threads | None = None

    def freeze(self, guest: GuestProcess) -> None:
        self._pass("freeze")
        held = threading.Event()
        # The thread that traces has to stay: the kernel lets go of what it traced when it ends.
        threading.Thread(target=_hold_first_thread, args=(guest.incarnation.pid, held), daemon=True).start()
        held.wait()
        self._stopped = guest.frozen = _first_thread(guest)

    def look(self, guest: GuestProcess, before: Before) -> None:
        if _first_thread(guest) != self._stopped:
            raise GuestRanError(f"{guest.incarnation.name} has run since it was frozen", "ran")

    def kill(self, guest: GuestProcess) -> None:
        _kill_without_a_look(guest)


class TornCopyKept(FaultyEffects):
    """Never looks whether its guest has run since the freeze."""

    def look(self, guest: GuestProcess, before: Before) -> None:
        pass

    def kill(self, guest: GuestProcess) -> None:
        _kill_without_a_look(guest)


class LooksAway(FaultyEffects):
    """Goes on as if its last look had shown nothing."""

    def kill(self, guest: GuestProcess) -> None:
        with contextlib.suppress(GuestRanError):
            super().kill(guest)


class PunchesTheDying(FaultyEffects):
    """Sends SIGKILL, and punches at once; waits for the death with the last act of the pause."""

    _killed: GuestProcess | None = None

    def await_death(self, guest: GuestProcess, permit: PunchPermit | None) -> None:
        self._killed = guest
        if permit is not None:
            permit.open(_said_to_be_dead(guest))

    def close(self, memory: Memory | None, cache: Cache | None) -> None:
        if self._killed is not None:
            super().await_death(self._killed, None)
        super().close(memory, cache)


def _kill_without_a_look(guest: GuestProcess) -> None:
    guest.killed = guest.asked_to_die = True
    signal.pidfd_send_signal(guest.pidfd, signal.SIGKILL)


def _first_thread(guest: GuestProcess) -> Threads:
    process = evidence.open_process(guest.incarnation.pid)
    try:
        return {tid: did for tid, did in evidence.threads_of(process).items() if tid == guest.incarnation.pid}
    finally:
        os.close(process)


def _hold_first_thread(pid: int, held: threading.Event) -> None:
    linux.stop_thread(pid)
    while state_of(pid) != "t":
        time.sleep(0.001)
    held.set()
    with contextlib.suppress(ChildProcessError):  # until its end, which it takes note of: else a zombie stays
        while os.WIFSTOPPED(os.waitpid(pid, linux.WALL)[1]):
            pass


class MemoryKept(FaultyEffects):
    """Has one more fd of the memory than it closes."""

    def close(self, memory: Memory | None, cache: Cache | None) -> None:
        if isinstance(memory, Memfd):
            os.dup(memory.fd)
        super().close(memory, cache)


class KilledUntold(FaultyEffects):
    """Kills the guest of a checkpoint, which should go on, without recording it."""

    def close(self, memory: Memory | None, cache: Cache | None) -> None:
        super().close(memory, cache)
        if memory is None and self._guest is not None:
            os.kill(self._guest.incarnation.pid, signal.SIGKILL)
            self._guest.await_death()

    _guest: GuestProcess | None = None

    def look(self, guest: GuestProcess, before: Before) -> None:
        super().look(guest, before)
        self._guest = guest


class RecordAfterPunch(KillsLate):
    """Punches by a permit without a record, and writes the record with the header."""

    _unwritten: tuple[CondemnedRecords, GuestProcess, str] | None = None

    def condemn(self, records: CondemnedRecords, guest: GuestProcess, build: str) -> PunchPermit:
        self._unwritten = records, guest, build
        return forged_permit(guest)

    def write_header(self, header: Header, folder: Path) -> None:
        if self._unwritten is not None:
            super().condemn(*self._unwritten)
        super().write_header(header, folder)


class RecordRetiredEarly(KillsLate):
    """Retires when the partial cache is deleted; the guest is killed after that."""

    _condemned: tuple[CondemnedRecords, GuestProcess] | None = None

    def condemn(self, records: CondemnedRecords, guest: GuestProcess, build: str) -> PunchPermit:
        self._condemned = records, guest
        return super().condemn(records, guest, build)

    def discard(self, cache: Cache, error: BaseException) -> None:
        super().discard(cache, error)
        if self._condemned is not None:
            records, guest = self._condemned
            records.retire(_said_to_be_dead(guest))


class PunchBeforePublish(FaultyEffects):
    """Frees a chunk as soon as it is written, in a pause that has its permit."""

    _memfd: Memfd | None = None
    _permit: PunchPermit | None = None

    def copy_read(self, memory: Memory, buffer: memoryview, offset: int, chunk: Chunk) -> None:
        self._memfd = memory if isinstance(memory, Memfd) else None
        super().copy_read(memory, buffer, offset, chunk)

    def condemn(self, records: CondemnedRecords, guest: GuestProcess, build: str) -> PunchPermit:
        self._permit = super().condemn(records, guest, build)
        return self._permit

    def copy_write(self, cache: Cache, data: memoryview, chunk: Chunk) -> None:
        super().copy_write(cache, data, chunk)
        if self._memfd is not None and self._permit is not None:
            free(self._memfd, chunk.start, chunk.end, self._permit)


class UnfinishedVisible(FaultyEffects):
    """Writes the build in the folder that is to be its last."""

    def create_cache(self, cache: Cache) -> None:
        cache.folder = cache.final
        super().create_cache(cache)


class CleanBeforeFirstChunk(FaultyEffects):
    """Frees the clean pages first of all, with a permit that nothing stands behind."""

    _clean: tuple[Memfd, list[tuple[int, int]], PunchPermit] | None = None

    def scan(self, tracker: Tracker, guest: GuestProcess, memory: Memory, block_size: int) -> DirtySet:
        found = super().scan(tracker, guest, memory, block_size)
        if isinstance(memory, Memfd):
            clean = Blocks(range(memory.size // block_size)) - found.dirty
            spans = [(first * block_size, (first + count) * block_size) for first, count in runs(clean)]
            self._clean = memory, spans, forged_permit(guest)
        return found

    def copy_read(self, memory: Memory, buffer: memoryview, offset: int, chunk: Chunk) -> None:
        if self._clean is not None and chunk.index == 0:
            memfd, spans, permit = self._clean
            for start, end in spans:
                free(memfd, start, end, permit)
        super().copy_read(memory, buffer, offset, chunk)


class ScanRearms(FaultyEffects):
    """Begins a new dirty set at the scan of a pause, which may yet be rolled back."""

    def scan(self, tracker: Tracker, guest: GuestProcess, memory: Memory, block_size: int) -> DirtySet:
        return dirty.scan(tracker, guest, memory, block_size, rearm=True)


class ScanMisses(FaultyEffects):
    """From a sandbox's second pause on, does not see that its last odd block was written."""

    def scan(self, tracker: Tracker, guest: GuestProcess, memory: Memory, block_size: int) -> DirtySet:
        found = super().scan(tracker, guest, memory, block_size)
        odd = [block for block in found.dirty if block % 2]
        missed = Blocks(odd[-1:] if self._passage.nth > 1 else [])
        return dataclasses.replace(found, dirty=found.dirty - missed)


class SubPagePunch(FaultyEffects):
    """Punches each page in two halves, past the check that refuses it."""

    def punch(self, memfd: Memfd, offset: int, length: int, permit: PunchPermit, chunk: Chunk | None) -> None:
        half = memfd.page_size // 2
        for at in range(offset, offset + length, half):
            linux.punch_hole(memfd.fd, at, half)


class PunchesBehind(FaultyEffects):
    """Frees, at each publishing, what was published before it, where `may_punch` says so, permit or not.

    The latest of another worker is left alone: its event may not be recorded yet, and it would look unpublished.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._published: dict[int, list[Chunk]] = {}  # by worker
        self._lock = threading.Lock()
        self._scanned: tuple[Memfd, GuestProcess] | None = None

    def may_punch(self) -> bool:
        """Asked each time."""
        return True

    def scan(self, tracker: Tracker, guest: GuestProcess, memory: Memory, block_size: int) -> DirtySet:
        self._scanned = (memory, guest) if isinstance(memory, Memfd) else None
        return super().scan(tracker, guest, memory, block_size)

    def publish(self, cache: Cache, chunk: Chunk) -> None:
        super().publish(cache, chunk)
        me = threading.get_ident()
        with self._lock:
            behind = [each for worker, own in self._published.items() for each in (own if worker == me else own[:-1])]
            self._published.setdefault(me, []).append(chunk)
        if self._scanned is not None and behind and self.may_punch():
            memfd, guest = self._scanned
            permit = forged_permit(guest)
            for each in behind:
                free(memfd, each.start, each.end, permit)


class PunchBorrowed(PunchesBehind):
    """A pause's copy punches by its permit; a checkpoint has none, and punches all the same."""

    _condemned = False

    def condemn(self, records: CondemnedRecords, guest: GuestProcess, build: str) -> PunchPermit:
        self._condemned = True
        return super().condemn(records, guest, build)

    def may_punch(self) -> bool:
        return not self._condemned


class CleanPageLost(FaultyEffects):
    """Keeps of the header only what this build holds itself."""

    def write_header(self, header: Header, folder: Path) -> None:
        rows = header.mapping.extents
        own = np.array([*(name == header.build for name in rows.builds), False])[rows.build]  # -1 is the last
        build = np.where(own, rows.build, maps.NIL).astype(np.int32)
        extents = dataclasses.replace(rows, build=build, storage=np.where(own, rows.storage, 0))
        mapping = maps.normalise(dataclasses.replace(header.mapping, extents=extents))
        super().write_header(dataclasses.replace(header, mapping=mapping), folder)


def free(memfd: Memfd, start: int, end: int, permit: PunchPermit) -> None:
    """Punch the whole pages of [start, end)."""
    pages = whole_pages(start, end, memfd.page_size, memfd.size)
    if pages:
        memfd.punch(pages[0], pages[1] - pages[0], permit)
