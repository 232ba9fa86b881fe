from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cache import Cache
from engine.incarnation import CondemnedRecords, Incarnation
from engine.memfd import Memfd
from engine.meter import CpuClock, MeterSample, PeakMeter
from engine.ranges import Blocks, chunks

MIB = 1 << 20
PAGE = 4096
SIZE = 4 * MIB
CHUNKS = chunks(Blocks(range(SIZE // PAGE)), SIZE, PAGE, PAGE)


def memory(filled: int) -> Memfd:
    fd = os.memfd_create("memory", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, SIZE)
    os.pwrite(fd, b"\1" * filled, 0)
    return Memfd.adopt(fd, SIZE)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path, "b1", CHUNKS)
    made.create()
    yield made
    made.close()


@pytest.fixture
def memfd() -> Iterator[Memfd]:
    made = memory(SIZE)
    yield made
    made.close()


def store(cache: Cache, number: int) -> None:
    chunk = CHUNKS[number]
    cache.write(memoryview(b"\1" * chunk.length), chunk.cache_offset)
    cache.publish(chunk)


def test_the_peak_is_the_largest_sum_and_not_the_last(cache: Cache, memfd: Memfd, tmp_path: Path) -> None:
    meter = PeakMeter(memfd, cache)
    assert (meter.peak_over, meter.peak_ratio) == (0, 1.0)
    store(cache, 0)
    assert meter.sample() == MeterSample(SIZE, 2 * MIB)
    permit = CondemnedRecords(tmp_path / "condemned").condemn(Incarnation("me", 1, 1, memfd.inode), "b1")
    permit.is_open = True
    memfd.punch(0, SIZE, permit)
    assert meter.sample() == MeterSample(0, 2 * MIB)
    assert (meter.peak_over, meter.peak_ratio) == (2 * MIB, 1.5)
    assert meter.freed() == SIZE


def test_a_memfd_that_held_nothing_has_a_peak_and_no_ratio(cache: Cache) -> None:
    empty = memory(0)
    meter = PeakMeter(empty, cache)
    store(cache, 0)
    meter.sample()
    assert (meter.peak_over, meter.peak_ratio, meter.freed()) == (2 * MIB, None, 0)
    empty.close()


def test_memory_that_grew_since_the_freeze_is_not_counted_as_freed(cache: Cache) -> None:
    half = memory(SIZE // 2)
    meter = PeakMeter(half, cache)
    os.pwrite(half.fd, b"\1" * SIZE, 0)
    assert meter.freed() == 0
    half.close()


def spend(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_cpu_is_of_the_threads_that_carry_a_pause_and_of_no_other() -> None:
    clock, found = CpuClock(), list[float]()

    def rest() -> None:
        clock.begin()
        spend(0.02)
        found.append(clock.so_far())

    clock.begin()
    spend(0.02)
    clock.end()
    spend(0.05)  # what the first thread does after it handed the pause on
    second = threading.Thread(target=rest)
    second.start()
    second.join()
    assert 0.04 <= found[0] < 0.06
