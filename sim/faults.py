"""Named fault points: armed on sandboxes, fired by wrapping the engine's effects."""

from __future__ import annotations

import errno
import fnmatch
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.cache import Cache
from engine.dedup import Compared, ReadSpan
from engine.dirty import DirtySet, Tracker
from engine.effects import Effects, Memory
from engine.incarnation import GuestProcess
from engine.memfd import Memfd
from engine.permit import CondemnedRecords, PunchPermit
from engine.ranges import Chunk
from engine.snapshot import Header
from sim.places import FaultPoint, Place, chunk_index, delay_of

CRASH = "SIGKILL of the node"
"""The `error` of a fault that ends the node instead of failing a call."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is armed: a point, the error it gives (an errno name, a delay, or CRASH), where, on whom, how often each."""

    fault_id: int
    point: FaultPoint
    error: str
    at: Place
    sandboxes: str
    count: int | None = None


class ArmedFaults:
    """What is armed on one node. Thread-safe: copiers ask, the node arms and clears."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._fired: dict[tuple[int, str], int] = {}
        self._lock = threading.Lock()

    def arm(self, fault: Fault) -> None:
        """From now on, until cleared."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Disarm everything."""
        with self._lock:
            self._faults.clear()

    def take(self, point: FaultPoint, sandbox: str, chunk: int | None, chunks: int) -> Fault | None:
        """The fault that fires here, counted; None where none does. A point without a chunk ignores `at`."""
        with self._lock:
            for fault in self._faults:
                if fault.point != point or not fnmatch.fnmatchcase(sandbox, fault.sandboxes):
                    continue
                if chunk is not None and chunk_index(fault.at, chunks) != chunk:
                    continue
                fired = self._fired.get((fault.fault_id, sandbox), 0)
                if fault.count is None or fired < fault.count:
                    self._fired[fault.fault_id, sandbox] = fired + 1
                    return fault
        return None


class FaultyEffects(Effects):
    """The effects of one pause of one sandbox, with what is armed for it in front of each act."""

    def __init__(
        self, inner: Effects, armed: ArmedFaults, sandbox: str, told: Callable[[Fault, int | None], None]
    ) -> None:
        self._inner = inner
        self._armed = armed
        self._sandbox = sandbox
        self._told = told
        self._chunks = 1

    def planned(self, chunks: int) -> None:
        """How many chunks the pause has: what `last` and a share of the plan mean."""
        self._chunks = chunks

    def _fire(self, point: FaultPoint, chunk: int | None) -> None:
        fault = self._armed.take(point, self._sandbox, chunk, self._chunks)
        if fault is None:
            return
        self._told(fault, chunk)
        if fault.error == CRASH:
            os.kill(os.getpid(), signal.SIGKILL)
        if (seconds := delay_of(fault.error)) is not None:
            time.sleep(seconds)
            return
        number = int(getattr(errno, fault.error))
        raise OSError(number, f"{os.strerror(number)} (injected)")

    def confirm_stopped(self, guest: GuestProcess) -> None:
        self._inner.confirm_stopped(guest)

    def scan(self, tracker: Tracker, guest: GuestProcess, memory: Memory, block_size: int) -> DirtySet:
        return self._inner.scan(tracker, guest, memory, block_size)

    def rearm(self, tracker: Tracker) -> None:
        self._inner.rearm(tracker)

    def compare(self, chunks: Sequence[Chunk], block_size: int, memory: ReadSpan, parent: ReadSpan) -> Compared:
        return self._inner.compare(chunks, block_size, memory, parent)

    def create_cache(self, cache: Cache) -> None:
        self._inner.create_cache(cache)

    def reserve(self, cache: Cache) -> None:
        self._inner.reserve(cache)

    def copy_read(self, memory: Memory, buffer: memoryview, offset: int, chunk: Chunk) -> None:
        self._fire("copy.read", chunk.index)
        self._inner.copy_read(memory, buffer, offset, chunk)

    def copy_write(self, cache: Cache, data: memoryview, chunk: Chunk) -> None:
        self._fire("copy.write", chunk.index)
        self._inner.copy_write(cache, data, chunk)

    def publish(self, cache: Cache, chunk: Chunk) -> None:
        self._fire("publish", chunk.index)
        self._inner.publish(cache, chunk)

    def condemn(self, records: CondemnedRecords, guest: GuestProcess, build: str) -> PunchPermit:
        self._fire("condemn", None)
        return self._inner.condemn(records, guest, build)

    def punch(self, memfd: Memfd, offset: int, length: int, permit: PunchPermit, chunk: Chunk | None) -> None:
        if chunk is not None:
            self._fire("punch", chunk.index)
        self._inner.punch(memfd, offset, length, permit, chunk)

    def write_header(self, header: Header, folder: Path) -> None:
        self._inner.write_header(header, folder)

    def finish(self, cache: Cache) -> None:
        self._inner.finish(cache)

    def discard(self, cache: Cache, error: BaseException) -> None:
        self._inner.discard(cache, error)

    def kill(self, guest: GuestProcess) -> None:
        self._inner.kill(guest)

    def retire(self, records: CondemnedRecords, guest: GuestProcess) -> None:
        self._inner.retire(records, guest)
