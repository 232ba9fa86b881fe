"""The ways of copying a frozen guest."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyroaring import BitMap

from engine import linux
from engine import mapping as maps
from engine.cache import MEMFILE
from engine.dedup import ParentReader, compare
from engine.dirty import DirtySet, Tracker, WriteProtectScan, in_pages
from engine.effects import Effects
from engine.errors import EngineError
from engine.events import BuildFinished, Event
from engine.incarnation import CondemnedRecords, GuestProcess, Incarnation, PunchPermit, start_time_of
from engine.memfd import Memfd
from engine.pages import PAGE
from engine.pause import Outcome, Pause, PauseResult
from engine.plan import DedupOptions, PauseOptions
from engine.plan import Path as PausePath
from engine.prepare import PauseRequest
from engine.ranges import Blocks
from engine.snapshot import Build, Header, template, write_header
from sim.rollout.bench_guest import Runs, block_size_of, dirty_runs, has_parent
from sim.rollout.bench_host import Watch, cpu_seconds_of

GIB = 1 << 30
WARM_EXTRA = 64 << 20
_WARM_BLOCK = 2 << 20


@dataclass(frozen=True, slots=True)
class BenchCase:
    """What is copied, where to and how; None where it does not apply. `dest` is disk or tmpfs, page size in bytes."""

    layout: str | None = None
    page_size: int | None = None
    dest: str | None = None
    punch: bool | None = None


@dataclass(frozen=True, slots=True)
class BenchTaken:
    """The figures of one measurement, whether other processes disturbed it, and what they took of all CPUs (0 to 1)."""

    figures: Mapping[str, float]
    noisy: bool
    others: float = 0.0

    @classmethod
    def by(cls, watch: Watch, figures: Mapping[str, float]) -> BenchTaken:
        """With what the watch saw."""
        return cls(figures, watch.noisy, watch.share)


@dataclass(frozen=True, slots=True)
class Bench:
    """What all measurements share: guest memory in bytes, and a folder for each kind of destination."""

    size: int
    folders: Mapping[str, Path] = field(default_factory=dict)

    @contextlib.contextmanager
    def folder(self, dest: str) -> Iterator[Path]:
        """A folder there for one measurement."""
        folder = Path(tempfile.mkdtemp(dir=self.folders[dest]))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def warm(folder: Path, size: int) -> None:
    """Write `size` bytes to a file there and delete it, so that the copy finds warm free memory.

    A virtual machine hands free pages back to its host, and the first touch of such a page is several times slower.
    Written as a copy is: freed pages of a memfd are not those that a file's page cache takes next
    (1 GiB to ext4 after a warm memfd: 0.6-1.2 s; after a file: 0.21-0.28 s).
    """
    block = bytes(_WARM_BLOCK)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for offset in range(0, size, len(block)):
            os.pwrite(file.fileno(), block, offset)


def pause_copy(bench: Bench, case: BenchCase) -> BenchTaken:
    """Our way: a whole pause, with scan, digests, header and teardown.

    `seconds` is to the finished build, `free_seconds` until guest and memfd are gone.
    """
    return _whole_pause(bench, case, Effects())


def kill_last(bench: Bench, case: BenchCase) -> BenchTaken:
    """The same, but the guest is killed once all is copied and punched, as it was before a condemnation killed it."""
    return _whole_pause(bench, case, _KillsLast())


class _KillsLast(Effects):
    """Punches while the guest is only stopped. Unsafe anywhere but here, where nothing is lost with a guest."""

    def kill(self, guest: GuestProcess) -> None:
        """Its memory is given back before it is killed, by the one who started it."""

    def await_death(self, guest: GuestProcess, permit: PunchPermit | None) -> None:
        if permit is not None:
            permit.is_open = True


def _whole_pause(bench: Bench, case: BenchCase, effects: Effects) -> BenchTaken:
    guest, dest, punch = _guest(bench, case), known(case.dest), bool(case.punch)
    with guest as frozen, bench.folder(dest) as folder:
        finished: list[float] = []

        def note(event: Event) -> None:
            if isinstance(event, BuildFinished):
                finished.append(time.perf_counter())

        pause = frozen.pause(folder, punch=punch, emit=note, effects=effects)
        warm(folder, frozen.dirty_bytes + WARM_EXTRA)
        with Watch(frozen.cpu_seconds) as watch:
            begun = time.perf_counter()
            pause.begin()
            result = pause.settle()  # memfd closed
            frozen.end()  # dead already, but where it is killed last
            freed = time.perf_counter()
        peaks = _judged(result, frozen.dirty_bytes, (folder / "builds" / "build" / "memfile").stat().st_size, punch)
    seconds = finished[0] - begun
    copied = frozen.dirty_bytes / GIB
    figures = {"seconds": seconds, "free_seconds": freed - begun, "gib_per_s": copied / seconds}
    figures["cpu_s_per_gib"] = watch.own / copied
    return BenchTaken.by(watch, {**figures, **peaks})


def _judged(result: PauseResult, dirty: int, stored: int, punch: bool) -> dict[str, float]:
    """The peaks; EngineError unless it did what it was measured for: a fast copy that is not one is no result."""
    if result.outcome is not Outcome.FINISHED or result.punch_error or stored != dirty:
        raise EngineError(f"the pause did not copy: {result.error or result.punch_error or f'{stored} of {dirty} B'}")
    if punch and not result.punched_bytes:
        raise EngineError("the pause was to punch and freed nothing")
    return {"peak_over": float(result.peak_over or 0), "peak_ratio": result.peak_ratio or 0.0}


def mmap_memmove(bench: Bench, case: BenchCase) -> BenchTaken:
    """The original's way: one mapping of each file, memmove a whole dirty range, then punch it; one thread.

    It is given the dirty ranges, and calls from Python add about 1 µs a range.
    """
    with _guest(bench, case) as frozen, bench.folder(known(case.dest)) as folder:
        page, runs = frozen.memfd.page_size, frozen.dirty
        warm(folder, frozen.dirty_bytes + WARM_EXTRA)
        with Watch(frozen.cpu_seconds) as watch:
            begun = time.perf_counter()
            with _mapped(frozen, folder / "memfile") as (source, destination):
                to, start = linux.address_of(destination), linux.address_of(source)
                for first, count in runs:
                    linux.copy_memory(to, start + first * page, count * page)
                    if case.punch:
                        source.madvise(mmap.MADV_REMOVE, first * page, count * page)
                    to += count * page
            seconds = time.perf_counter() - begun
            left = frozen.memfd.resident_bytes()
            frozen.end()
            freed = time.perf_counter() - begun
    if case.punch and case.layout == "full" and left:
        raise EngineError(f"mmap + memmove punched and left {left} bytes")
    copied = frozen.dirty_bytes / GIB
    figures = {"seconds": seconds, "free_seconds": freed, "gib_per_s": copied / seconds}
    return BenchTaken.by(watch, {**figures, "cpu_s_per_gib": watch.own / copied})


@contextlib.contextmanager
def _mapped(frozen: FrozenGuest, path: Path) -> Iterator[tuple[mmap.mmap, mmap.mmap]]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, frozen.dirty_bytes)
        with mmap.mmap(frozen.memfd.fd, frozen.memfd.size) as source, mmap.mmap(fd, frozen.dirty_bytes) as destination:
            yield source, destination
    finally:
        os.close(fd)


def memcpy(bench: Bench, _case: BenchCase) -> BenchTaken:
    """The limit: memmove, one thread, between mappings whose pages are all there."""
    flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    with mmap.mmap(-1, bench.size, flags=flags) as source, mmap.mmap(-1, bench.size, flags=flags) as destination:
        to, start = linux.address_of(destination), linux.address_of(source)
        with Watch() as watch:
            begun = time.perf_counter()
            linux.copy_memory(to, start, bench.size)
            seconds = time.perf_counter() - begun
    return BenchTaken.by(watch, {"gib_per_s": bench.size / GIB / seconds})


def background_return(bench: Bench, case: BenchCase) -> BenchTaken:
    """A background pause: `return_ms` to its answer, then `reader_ms` until a reader has the last page of the cache.

    `copy_ms` is the whole copy; all from the same start. `return_cpu_ms`: CPU of this process until the answer.
    """
    with _guest(bench, case) as frozen, bench.folder(known(case.dest)) as folder:
        pause = frozen.pause(folder, punch=bool(case.punch), background=True)
        warm(folder, frozen.dirty_bytes + WARM_EXTRA)
        with Watch(frozen.cpu_seconds) as watch:
            begun, cpu = time.perf_counter(), time.process_time()
            pause.begin()
            answered, cpu = time.perf_counter(), time.process_time() - cpu
            if pause.cache is not None:
                pause.cache.read(pause.cache.length - mmap.PAGESIZE, mmap.PAGESIZE)
            read = time.perf_counter()
            result = pause.settle()
            frozen.end()
    if result.outcome is not Outcome.FINISHED or result.copy_ms is None:
        raise EngineError(f"the background pause did not finish: {result.error}")
    figures = {"return_ms": (answered - begun) * 1e3, "reader_ms": (read - begun) * 1e3, "copy_ms": result.copy_ms}
    return BenchTaken.by(watch, {**figures, "return_cpu_ms": cpu * 1e3})


def dedup_return(bench: Bench, case: BenchCase) -> BenchTaken:
    """`return_ms` and `return_cpu_ms` of a pause that compares with its parent before it answers."""
    with _guest(bench, case) as frozen, bench.folder(known(case.dest)) as folder:
        pause = frozen.pause(folder, punch=bool(case.punch), background=True, dedup=True)
        warm(folder, frozen.dirty_bytes + WARM_EXTRA)
        with Watch(frozen.cpu_seconds) as watch:
            begun, cpu = time.perf_counter(), time.process_time()
            pause.begin()
            answered, cpu = time.perf_counter(), time.process_time() - cpu
            result = pause.settle()
            frozen.end()
    if result.outcome is not Outcome.FINISHED or pause.plan is None or pause.plan.path is not PausePath.DEDUP:
        raise EngineError(f"the pause with dedup did not finish: {result.error}")
    return BenchTaken.by(watch, {"return_ms": (answered - begun) * 1e3, "return_cpu_ms": cpu * 1e3})


def holes(bench: Bench, case: BenchCase) -> BenchTaken:
    """What it takes to find the pages that a guest freed, in ms a GiB: as if its parent build held every page."""
    with _guest(bench, case) as frozen:
        page = frozen.memfd.page_size
        parent = maps.create(BitMap(range(frozen.blocks)), _PARENT, bench.size, page)
        nothing = DirtySet(BitMap(), BitMap(), "bench", 0.0)
        with Watch() as watch:
            begun = time.perf_counter()
            found = in_pages(nothing, frozen.memfd, parent, page)
            seconds = time.perf_counter() - begun
        frozen.end()
    freed = len(found.empty) if found is not None else 0
    if freed != (0 if has_parent(known(case.layout)) else frozen.blocks - frozen.dirty_bytes // page):
        raise EngineError(f"{freed} pages were found freed, which is not what the guest left out")
    return BenchTaken.by(watch, {"value": seconds * 1e3 * GIB / bench.size})


def dirty_scan(bench: Bench, case: BenchCase) -> BenchTaken:
    """What it takes to ask the kernel for the dirty set, in ms a GiB of guest memory."""
    with _guest(bench, case) as frozen:
        with Watch() as watch:
            begun = time.perf_counter()
            written = frozen.tracker.written(rearm=False)
            seconds = time.perf_counter() - begun
        frozen.end()
    if written is None or len(written) * frozen.memfd.page_size != frozen.dirty_bytes:
        raise EngineError("the scan did not find what the guest wrote")
    return BenchTaken.by(watch, {"value": seconds * 1e3 * GIB / bench.size})


def dedup_compare(bench: Bench, case: BenchCase) -> BenchTaken:
    """GiB of guest memory a second, compared with a parent build that holds the same: nothing can stop early."""
    with bench.folder(known(case.dest)) as folder:
        with _guest(bench, case) as earlier:
            pause = earlier.pause(folder, punch=True)
            pause.begin()
            pause.settle()
            earlier.end()
        with contextlib.closing(Build.open(folder / "builds", "build")) as build, _guest(bench, case) as frozen:
            every = Blocks(range(bench.size // PAGE))
            parent = ParentReader(build.header.mapping, {"build": build})
            with Watch() as watch:
                begun = time.perf_counter()
                found = compare(every, frozen.memfd.read_pages, parent.read_pages)
                seconds = time.perf_counter() - begun
            frozen.end()
    if len(found.equal) * PAGE != bench.size:
        raise EngineError("memory like its parent's was not found equal to it")
    return BenchTaken.by(watch, {"value": bench.size / GIB / seconds})


def _guest(bench: Bench, case: BenchCase) -> contextlib.AbstractContextManager[FrozenGuest]:
    return frozen_guest(known(case.layout), bench.size, case.page_size or mmap.PAGESIZE)


def known(value: str | None) -> str:
    """What the case says; EngineError where it says nothing."""
    if value is None:
        raise EngineError("a case without a layout or a destination was measured")
    return value


_DEADLINE = 60.0
_PARENT = "parent"


class NoTracker:
    """Stands where the kernel refuses write-protection: it cannot answer, so every resident block counts as dirty."""

    name = "none"

    def written(self, *, rearm: bool) -> Blocks | None:
        return None

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True)
class FrozenGuest:
    """A stopped guest, ready to be paused or copied from."""

    process: GuestProcess
    memfd: Memfd
    tracker: Tracker
    layout: str
    child: subprocess.Popen[bytes]
    cpu_seconds: float  # spent before it was frozen

    @property
    def block_size(self) -> int:
        """Unit of its dirty tracking, bytes."""
        return block_size_of(self.layout, self.memfd.page_size)

    @property
    def blocks(self) -> int:
        """How many pages its memory has."""
        return self.memfd.size // self.memfd.page_size

    @property
    def dirty(self) -> Runs:
        """(first page, count) of what it wrote since its parent."""
        return dirty_runs(self.layout, self.blocks)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The same in bytes: (offset, length)."""
        page = self.memfd.page_size
        return [(first * page, count * page) for first, count in self.dirty]

    @property
    def dirty_bytes(self) -> int:
        """What a copy must store."""
        return sum(count for _, count in self.dirty) * self.memfd.page_size

    def pause(
        self, folder: Path, *, punch: bool, background: bool = False, dedup: bool = False, **listening: Any
    ) -> Pause:
        """A pause of this guest into `folder`, not yet begun; `emit` and `effects` may be given."""
        request = PauseRequest(
            guest=self.process,
            memory=self.memfd,
            tracker=self.tracker,
            block_size=self.block_size,
            parent=self._parent(folder / "builds"),
            build="build",
            builds=folder / "builds",
            condemned=CondemnedRecords(folder / "condemned"),
            options=PauseOptions(background_copy=background, punch=punch, dedup=DedupOptions(dedup)),
        )
        return Pause(request, **listening)

    def _parent(self, builds: Path) -> Header:
        """The zero template, or a finished build that holds every block (a hole: no pause reads what is clean)."""
        size, block = self.memfd.size, self.block_size
        if not has_parent(self.layout):
            return template(size, block)
        (builds / _PARENT).mkdir(parents=True)
        with (builds / _PARENT / MEMFILE).open("wb") as memfile:
            memfile.truncate(size)
        every = maps.create(BitMap(range(self.blocks)), _PARENT, size, block)
        parent = Header(_PARENT, _PARENT, 1, every, (size,), (bytes(16),))
        write_header(parent, builds / _PARENT)
        return parent

    def end(self) -> None:
        """Kill and reap it, and give its memory back."""
        self.process.kill()
        self.child.wait()
        self.memfd.close()


@contextlib.contextmanager
def frozen_guest(layout: str, size: int, page_size: int, folder: Path | None = None) -> Iterator[FrozenGuest]:
    """Start a guest, have it filled, freeze it; it is dead and reaped when the block is left.

    With `folder`, on a tmpfs, its memory is a file without a name there, in place of a memfd.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    told = [theirs.fileno(), os.getpid(), size, page_size, layout, folder or ""]
    command = [sys.executable, "-m", "sim.rollout.bench_guest", *map(str, told)]
    with ours, contextlib.ExitStack() as stack:
        with theirs:
            # A session of its own: a terminal's Ctrl-C is for the bench alone, and a stopped guest stays stopped.
            child = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        stack.callback(child.wait)
        stack.callback(child.kill)
        guest = _received(ours, child, layout, size, is_memfd=folder is None)
        stack.callback(guest.process.close)
        stack.callback(guest.tracker.close)
        stack.callback(guest.memfd.close)
        yield guest


def _received(
    control: socket.socket, child: subprocess.Popen[bytes], layout: str, size: int, *, is_memfd: bool
) -> FrozenGuest:
    control.settimeout(_DEADLINE)
    message, fds, _, _ = socket.recv_fds(control, 4096, 1)
    if not fds:
        raise EngineError("a bench guest died while it filled its memory")
    hello = json.loads(message)
    memfd = Memfd.adopt(fds[0], size) if is_memfd else Memfd(fds[0], size, PAGE, 0, os.fstat(fds[0]).st_ino)
    incarnation = Incarnation("bench", child.pid, start_time_of(child.pid) or 0, memfd.inode)
    process = GuestProcess(incarnation, os.pidfd_open(child.pid))
    tracker: Tracker = NoTracker()
    if hello["refusal"] is None:
        tracker = WriteProtectScan(child.pid, hello["address"], memfd, block_size_of(layout, memfd.page_size))
    process.freeze()
    return FrozenGuest(process, memfd, tracker, layout, child, cpu_seconds_of(child.pid))
