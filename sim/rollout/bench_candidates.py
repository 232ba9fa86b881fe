"""What else is measured beside a pause: many at once, and a way of pausing that the engine does not have."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import xxhash

from engine import linux
from engine.effects import Effects
from engine.errors import EngineError
from engine.events import BuildFinished, Event
from engine.outcome import Outcome
from engine.pages import PAGE
from engine.ranges import SPAN
from sim.rollout.bench_guest import has_parent
from sim.rollout.bench_host import Watch
from sim.rollout.bench_ways import GIB, WARM_EXTRA, Bench, BenchCase, BenchTaken, FrozenGuest, frozen_guest, known, warm

WAVE, AT_ONCE = 8, 4


def wave(bench: Bench, case: BenchCase) -> BenchTaken:
    """Eight guests that together have the memory of one, paused four at a time."""
    size = max(bench.size // WAVE // PAGE, 1) * PAGE
    finished: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, BuildFinished):
            finished.append(time.perf_counter())

    def pause_one(frozen: FrozenGuest, folder: Path) -> None:
        pause = frozen.pause(folder, punch=bool(case.punch), emit=note, effects=Effects())
        pause.begin()
        if (result := pause.settle()).outcome is not Outcome.FINISHED:
            raise EngineError(f"a pause of the wave did not finish: {result.error}")
        frozen.end()

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(bench.folder(known(case.dest)))
        guests = [stack.enter_context(frozen_guest(known(case.layout), size, PAGE)) for _ in range(WAVE)]
        folders = [folder / str(number) for number in range(WAVE)]
        for each in folders:
            each.mkdir()
        copied = sum(each.dirty_bytes for each in guests)
        warm(folder, copied + WARM_EXTRA)
        with Watch(sum(each.cpu_seconds for each in guests)) as watch, ThreadPoolExecutor(AT_ONCE) as pool:
            begun = time.perf_counter()
            list(pool.map(pause_one, guests, folders))
    seconds, gib = max(finished) - begun, copied / GIB
    return BenchTaken.by(watch, {"seconds": seconds, "gib_per_s": gib / seconds, "cpu_s_per_gib": watch.own / gib})


def adopt(bench: Bench, case: BenchCase) -> BenchTaken:
    """The guest's own memory becomes the build: nothing is copied, clean pages are punched, all is digested and named.

    The guest's memory is a file without a name on the cache's tmpfs from the start; a memfd cannot be named. The dirty
    ranges are given, and no header is made.
    """
    folders = bench.folder(known(case.dest))
    with folders as folder, frozen_guest(known(case.layout), bench.size, PAGE, folder) as frozen:
        with Watch(frozen.cpu_seconds) as watch:
            begun = time.perf_counter()
            frozen.process.kill()
            frozen.child.wait()
            for offset, length in _clean(frozen):
                linux.punch_hole(frozen.memfd.fd, offset, length)
            _digest(frozen)
            _name(frozen.memfd.fd, folder)
            seconds = time.perf_counter() - begun
            frozen.end()
        stored = (folder / "memfile").stat().st_blocks * 512
    if stored != frozen.dirty_bytes:
        raise EngineError(f"the adopted build holds {stored} bytes, {frozen.dirty_bytes} are dirty")
    gib = frozen.dirty_bytes / GIB
    return BenchTaken.by(watch, {"seconds": seconds, "gib_per_s": gib / seconds, "cpu_s_per_gib": watch.own / gib})


def _clean(frozen: FrozenGuest) -> Iterator[tuple[int, int]]:
    """(offset, length) between its dirty ranges, where something is."""
    at = 0
    for first, count in [*frozen.dirty, (frozen.blocks, 0)] if has_parent(frozen.layout) else []:
        if first > at:
            yield at * PAGE, (first - at) * PAGE
        at = first + count


def _digest(frozen: FrozenGuest) -> None:
    spans = iter(sorted({page * PAGE // SPAN for page, count in frozen.dirty for page in range(page, page + count)}))
    lock = threading.Lock()

    def work() -> None:
        buffer = memoryview(bytearray(SPAN))
        while True:
            with lock:
                span = next(spans, None)
            if span is None:
                return
            got = os.preadv(frozen.memfd.fd, [buffer], span * SPAN)
            xxhash.xxh3_128_digest(buffer[:got])

    second = threading.Thread(target=work)
    second.start()
    work()
    second.join()


def _name(fd: int, folder: Path) -> None:
    """linkat(2) takes the fd by its name in /proc, with both folders given."""
    to = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fds = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.link(str(fd), "memfile", src_dir_fd=fds, dst_dir_fd=to, follow_symlinks=True)
    finally:
        os.close(fds)
        os.close(to)
