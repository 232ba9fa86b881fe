"""Named fault points: armed on sandboxes, fired by wrapping the engine's effects, or by the kernel itself."""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from engine import linux
from engine.cache import Cache
from engine.chunk_records import ChunkRecords
from engine.dedup import PageComparison, ReadPages
from engine.dirty import DirtySet, Tracker
from engine.effects import Before, Boundary, Effects, Memory
from engine.events import Event
from engine.incarnation import CondemnedRecords, GuestProcess, PunchPermit
from engine.keeper import Keeper
from engine.memfd import Memfd
from engine.ranges import Blocks, Chunk
from engine.snapshot import HEADER, Build, Header
from sim.files.faults import CATALOGUE, FaultPoint, Harm, Place, chunk_index
from sim.record import events

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is armed: a point, what it does there, in which chunk, to which sandboxes (a glob), at most how often to
    each, and in which of a sandbox's pauses (all, where None). With `rate` (0 to 1) in that share of them, drawn by
    `seed`. Raises ValueError for what the point does not have."""

    fault_id: int
    point: FaultPoint
    harm: Harm
    at: Place
    sandboxes: str
    count: int | None = None
    nth: int | None = None
    by_kernel: bool = False
    rate: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        spec = CATALOGUE[self.point]
        if self.harm.kind not in spec.kinds:
            raise ValueError(f"{self.point} has no {self.harm.kind}")
        if self.by_kernel and not (spec.by_kernel and self.harm.kind == "errno"):
            raise ValueError(f"the kernel cannot give {self.harm.error} at {self.point}")
        if self.harm.kind == "errno" and not hasattr(errno, self.harm.errno or ""):
            raise ValueError(f"unknown errno {self.harm.errno}")

    def is_drawn(self, sandbox: str, nth: int) -> bool:
        """Whether it is for this pause; the same for the same seed, whatever else happens."""
        if self.rate is None:
            return True
        key = f"{self.seed}:rate of fault {self.fault_id}:{sandbox}:{nth}".encode()
        drawn = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
        return drawn / (1 << 64) < self.rate


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

    def take(self, point: FaultPoint, sandbox: str, chunk: int | None, chunks: int, nth: int = 1) -> Fault | None:
        """The fault that fires here, counted; None where none does. A point without a chunk ignores `at`."""
        with self._lock:
            for fault in self._faults:
                if fault.point != point or not fnmatch.fnmatchcase(sandbox, fault.sandboxes):
                    continue
                if chunk is not None and chunk_index(fault.at, chunks) != chunk:
                    continue
                if fault.nth not in {None, nth} or not fault.is_drawn(sandbox, nth):
                    continue
                fired = self._fired.get((fault.fault_id, sandbox), 0)
                if fault.count is None or fired < fault.count:
                    self._fired[fault.fault_id, sandbox] = fired + 1
                    return fault
        return None


def _nothing() -> None:
    """For a passage with nothing to cancel or to kill."""


def _nothing_of(_how: object) -> None:
    """The same, where a guest would be woken or asked for something."""


@dataclass(frozen=True, slots=True)
class Passage:
    """Which pause or resume passes the points: the `nth` of a sandbox, in whose name events are recorded."""

    sandbox: str
    nth: int
    tell: Callable[[Event], None]
    trace: bool = False
    cancel: Callable[[], object] = _nothing
    kill_guest: Callable[[], object] = _nothing
    wake_guest: Callable[[bool], object] = _nothing_of  # True: by a tracer, not by a signal
    ask_guest: Callable[[str], object] = _nothing_of


class FaultyEffects(Effects):
    """The effects of one pause or resume of one sandbox, with what is armed for it in front of each act."""

    def __init__(self, inner: Effects, armed: ArmedFaults, passage: Passage) -> None:
        self._inner = inner
        self._armed = armed
        self._passage = passage
        self._chunks = 1
        self._reading = False
        self.cancelled = False

    def planned(self, chunks: int) -> None:
        """How many chunks the pause has: what `last` and a share of the plan mean."""
        self._chunks = chunks

    def _pass(self, point: FaultPoint, chunk: int | None = None) -> Fault | None:
        """Fire what is armed here. Gives a fault that the act itself must bring about: short, corrupt, by the kernel.

        Raises OSError where the act fails instead.
        """
        passage = self._passage
        if passage.trace:
            passage.tell(events.PointReached(point, chunk, passage.nth))
        fault = self._armed.take(point, passage.sandbox, chunk, self._chunks, passage.nth)
        if fault is None:
            return None
        harm = fault.harm
        if harm.kind == "trace-guest":  # first: where the kernel refuses it, no fault has fired
            passage.wake_guest(True)
        passage.tell(events.FaultFired(fault.fault_id, fault.point, harm.error, chunk, harm.kind, harm.seconds))
        if harm.kind in {"short", "corrupt"} or fault.by_kernel:
            return fault
        self._disturb(fault)
        return None

    def _disturb(self, fault: Fault) -> None:
        match fault.harm.kind:
            case "kill-node":
                os.kill(os.getpid(), signal.SIGKILL)
            case "kill-guest":
                self._passage.kill_guest()
            case "wake-guest":
                self._passage.wake_guest(False)
            case "trace-guest":
                pass  # done
            case "free-pages" | "second-writer":
                self._passage.ask_guest(fault.harm.kind)
            case "cancel":
                self.cancelled = True
                self._passage.cancel()
            case "delay":
                time.sleep(fault.harm.seconds or 0.0)
            case "hang":
                time.sleep(fault.harm.seconds or 0.0)
                raise _injected(errno.ETIMEDOUT)
            case _:
                raise _injected(_number(fault))

    # -- the node's own acts

    def freeze(self, guest: GuestProcess) -> None:
        """Stop the guest; raises FreezeError."""
        self._pass("freeze")
        guest.freeze()

    def spawn(self, act: Callable[[], Result]) -> Result:
        """Fork the guest of a resume."""
        self._pass("guest.spawn")
        return act()

    # -- the engine's

    def look(self, guest: GuestProcess, before: Before) -> None:
        self._inner.look(guest, before)

    def boundary(self, before: Boundary) -> None:
        self._inner.boundary(before)

    def scan(self, tracker: Tracker, guest: GuestProcess, memory: Memory, block_size: int) -> DirtySet:
        self._pass("scan")
        return self._inner.scan(tracker, guest, memory, block_size)

    def rearm(self, tracker: Tracker) -> None:
        self._inner.rearm(tracker)

    def compare(self, pages: Blocks, memory: ReadPages, parent: ReadPages) -> PageComparison:
        return self._inner.compare(pages, memory, parent)

    def create_cache(self, cache: Cache) -> None:
        self._pass("cache.create")
        self._inner.create_cache(cache)

    def reserve(self, cache: Cache) -> None:
        self._pass("reserve")
        self._inner.reserve(cache)

    def copy_read(self, memory: Memory, buffer: memoryview, offset: int, chunk: Chunk) -> None:
        fault = self._pass("copy.read", chunk.index)
        if fault is not None and fault.by_kernel:
            if isinstance(memory, Memfd):
                linux.fail_calls("preadv", memory.fd, offset, _number(fault))
            else:
                linux.fail_calls("process_vm_readv", memory.pid, None, _number(fault))
        self._inner.copy_read(memory, buffer, offset, chunk)
        if fault is not None and fault.harm.kind == "short":
            half = len(buffer) // 2
            buffer[half:] = bytes(len(buffer) - half)
            raise _injected(errno.EIO)

    def copy_write(self, cache: Cache, data: memoryview, chunk: Chunk) -> None:
        fault = self._pass("copy.write", chunk.index)
        if fault is not None and fault.by_kernel:
            linux.fail_calls("pwrite", cache.fd, chunk.cache_offset, _number(fault))
        if fault is not None and fault.harm.kind == "short":
            self._inner.copy_write(cache, data[: len(data) // 2], chunk)
            raise _injected(errno.EIO)
        self._inner.copy_write(cache, data, chunk)
        if fault is not None and fault.harm.kind == "corrupt":
            _flip(cache.fd, chunk.cache_offset + len(data) // 2)

    def spill(self, cache: Cache, data: memoryview, chunk: Chunk) -> None:
        self._inner.spill(cache, data, chunk)

    def publish(self, cache: Cache, chunk: Chunk) -> None:
        self._pass("publish", chunk.index)
        self._inner.publish(cache, chunk)

    def keep(self, keeper: Keeper, build: str, memory: Memory) -> None:
        self._inner.keep(keeper, build, memory)

    def record(self, records: ChunkRecords, cache: Cache, chunk: Chunk) -> None:
        self._inner.record(records, cache, chunk)

    def condemn(self, records: CondemnedRecords, guest: GuestProcess, build: str) -> PunchPermit:
        self._pass("condemn")
        return self._inner.condemn(records, guest, build)

    def punch(self, memfd: Memfd, offset: int, length: int, permit: PunchPermit, chunk: Chunk | None) -> None:
        if chunk is not None:
            fault = self._pass("punch", chunk.index)
            if fault is not None:
                linux.fail_calls("fallocate", memfd.fd, offset, _number(fault))
        self._inner.punch(memfd, offset, length, permit, chunk)

    def write_header(self, header: Header, folder: Path) -> None:
        fault = self._pass("header.write")
        self._inner.write_header(header, folder)
        if fault is not None:
            _damage_header(folder / HEADER, fault)

    def finish(self, cache: Cache) -> None:
        self._pass("finish")
        self._inner.finish(cache)

    def discard(self, cache: Cache, error: BaseException) -> None:
        self._inner.discard(cache, error)

    def kill(self, guest: GuestProcess) -> None:
        self._pass("teardown")
        self._inner.kill(guest)

    def await_death(self, guest: GuestProcess, permit: PunchPermit | None) -> None:
        self._pass("death")
        self._inner.await_death(guest, permit)

    def retire(self, records: CondemnedRecords, guest: GuestProcess) -> None:
        self._inner.retire(records, guest)

    def close(self, memory: Memory | None, cache: Cache | None) -> None:
        self._pass("close")
        self._inner.close(memory, cache)

    def resume_read(self, source: Build | Cache, offset: int, length: int) -> bytes:
        """The point is passed at the first read of a resume, not at each."""
        first, self._reading = not self._reading, True
        fault = self._pass("resume.read") if first else None
        data = self._inner.resume_read(source, offset, length)
        if fault is None:
            return data
        if fault.harm.kind == "short":
            raise _injected(errno.EIO)
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 0xFF
        return bytes(flipped)


def _number(fault: Fault) -> int:
    return int(getattr(errno, fault.harm.errno or ""))


def _injected(number: int) -> OSError:
    return OSError(number, f"{os.strerror(number)} (injected)")


def _flip(fd: int, offset: int) -> None:
    (byte,) = os.pread(fd, 1, offset)
    os.pwrite(fd, bytes([byte ^ 0xFF]), offset)


def _damage_header(path: Path, fault: Fault) -> None:
    with path.open("r+b") as file:
        half = path.stat().st_size // 2
        if fault.harm.kind == "corrupt":
            _flip(file.fileno(), half)
            return
        file.truncate(half)
    raise _injected(errno.EIO)
