from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine import copy
from engine.cache import Cache
from engine.copy import ChunkCopier, ChunkError
from engine.effects import Effects
from engine.events import BuildSpilled, ChunkPublished, Event, PunchFailed, Retried
from engine.memfd import Memfd
from engine.meter import PeakMeter
from engine.plan import MemoryFacts, PauseOptions, PausePlan, plan
from engine.ranges import Blocks, Chunk

PAGE, MIB = 4096, 1 << 20
SIZE = 128 * MIB


@pytest.fixture
def memory() -> Iterator[Memfd]:
    fd = os.memfd_create("guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, SIZE)
    memfd = Memfd.adopt(fd, SIZE)
    yield memfd
    memfd.close()


def planned(memory: Memfd, seed: int) -> PausePlan:
    """A quarter of its pages, all different."""
    dirty = sorted(random.Random(seed).sample(range(SIZE // PAGE), SIZE // PAGE // 4))
    for page in dirty:
        memory.write_from(memoryview(page.to_bytes(4, "little") * (PAGE // 4)), page * PAGE)
    facts = MemoryFacts(SIZE, PAGE, PAGE, 0, consumed=True, parent_finished=True)
    return plan(PauseOptions(), facts, Blocks(dirty))


@pytest.mark.parametrize("seed", range(2))
def test_whatever_readers_want_first_huge_pages_hold_little_more_than_what_is_published(
    huge_folder: Path, memory: Memfd, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = planned(memory, seed)
    cache = Cache(huge_folder, "b1", work.chunks)
    cache.create()
    beyond, published = 0, 0

    def note(event: Event) -> None:
        nonlocal beyond, published
        if isinstance(event, ChunkPublished):
            published += event.length
            beyond = max(beyond, event.cache_resident - published)

    wanted = list(range(1, len(work.chunks)))
    random.Random(seed).shuffle(wanted)
    monkeypatch.setattr(cache, "take_wanted", lambda: wanted.pop() if wanted else None)
    copier = ChunkCopier(memory, work, cache, PeakMeter(memory, cache), Effects(), note)
    copier.copy_first(lambda: None)
    copier.copy_rest(lambda: None)
    assert beyond <= 6 * MIB
    assert cache.resident_bytes() == cache.length == published
    pages = os.pread(cache.fd, cache.length, 0)
    assert pages == b"".join(page.to_bytes(4, "little") * (PAGE // 4) for page in sorted(work.dirty))
    cache.close()


# -- where it fails


class Acts(Effects):
    """A cache that has no space from a chunk on; notes what is tried."""

    def __init__(self, full_from: int) -> None:
        self.full_from = full_from
        self.tried: list[tuple[str, int]] = []

    def copy_write(self, cache: Cache, data: memoryview, chunk: Chunk) -> None:
        self.tried.append(("write", chunk.index))
        if chunk.index >= self.full_from:
            raise OSError(errno.ENOSPC, "no space")
        super().copy_write(cache, data, chunk)

    def spill(self, cache: Cache, data: memoryview, chunk: Chunk) -> None:
        self.tried.append(("spill", chunk.index))
        super().spill(cache, data, chunk)


@pytest.fixture
def copying(tmp_path: Path, memory: Memfd) -> Iterator[tuple[ChunkCopier, Acts, list[Event], Cache]]:
    """Of one page in each of four chunks, into a cache that takes one of them."""
    pages = [512 * number + 7 for number in range(4)]
    for page in pages:
        memory.write_from(memoryview(page.to_bytes(4, "little") * (PAGE // 4)), page * PAGE)
    facts = MemoryFacts(SIZE, PAGE, PAGE, 0, consumed=True, parent_finished=True)
    work = plan(PauseOptions(), facts, Blocks(pages))
    assert len(work.chunks) == 4
    cache = Cache(tmp_path, "b1", work.chunks, tmp_path)
    cache.create()
    acts, told = Acts(1), list[Event]()
    yield ChunkCopier(memory, work, cache, PeakMeter(memory, cache), acts, told.append), acts, told, cache
    cache.close()


def test_from_the_first_chunk_without_space_on_all_go_into_the_spill_and_that_is_said_once(
    copying: tuple[ChunkCopier, Acts, list[Event], Cache],
) -> None:
    copier, acts, told, cache = copying
    copier.copy_left(spill=True)
    assert acts.tried == [("write", 0), ("write", 1), ("spill", 1), ("spill", 2), ("spill", 3)]
    assert [each for each in told if isinstance(each, BuildSpilled)] == [BuildSpilled("b1", 1)]
    assert cache.spilled == {1, 2, 3}
    pages = [(512 * number + 7).to_bytes(4, "little") * (PAGE // 4) for number in range(4)]
    assert cache.read(0, 4 * PAGE) == b"".join(pages)
    published = [each for each in told if isinstance(each, ChunkPublished)]
    places = [(number, PAGE, 2 * MIB, number * 2 * MIB) for number in range(4)]
    assert [(each.chunk, each.length, each.span, each.start) for each in published] == places


def test_without_leave_to_spill_the_first_chunk_without_space_is_the_failure(
    copying: tuple[ChunkCopier, Acts, list[Event], Cache],
) -> None:
    copier, acts, told, cache = copying
    with pytest.raises(ChunkError) as failed:
        copier.copy_left(spill=False)
    assert (failed.value.chunk, failed.value.call) == (1, "copy.write")
    assert isinstance(failed.value.cause, OSError)
    assert failed.value.cause.errno == errno.ENOSPC
    assert acts.tried == [("write", 0), ("write", 1)]
    assert not [each for each in told if isinstance(each, BuildSpilled)]
    acts.full_from = 4
    copier.copy_left(spill=False)
    assert acts.tried[2:] == [("write", number) for number in (1, 2, 3)]
    assert (cache.spilled, cache.is_published(3)) == (frozenset(), True)


def test_what_will_never_be_punched_is_said_with_its_reason(
    copying: tuple[ChunkCopier, Acts, list[Event], Cache],
) -> None:
    copier, _, told, _ = copying
    copier.punch_nothing("no record")
    assert (copier.punch_error, told) == ("no record", [PunchFailed(None, "no record")])


@pytest.mark.parametrize("number", [errno.EINTR, errno.EAGAIN, errno.ENOMEM, errno.EIO])
def test_a_transient_error_is_tried_again_and_reported_and_not_for_ever(
    copying: tuple[ChunkCopier, Acts, list[Event], Cache], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    copier, _, told, _ = copying
    slept: list[float] = []
    monkeypatch.setattr(copy, "time", SimpleNamespace(sleep=slept.append))
    left = [3]

    def act() -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(number, "again")

    def always() -> None:
        raise OSError(number, "again")

    if number == errno.EIO:
        with pytest.raises(OSError, match="again"):
            copier._retry("copy.read", act)
        assert (told, slept) == ([], [])
        return
    copier._retry("copy.read", act)
    retried = [Retried("copy.read", str(OSError(number, "again")), attempt) for attempt in (1, 2, 3)]
    assert (told, slept) == (retried, [0.001, 0.002, 0.004])
    with pytest.raises(OSError, match="again"):
        copier._retry("copy.read", always)
    assert len(told) == 3 + 4


@pytest.mark.parametrize(
    ("method", "call", "chunk"),
    [
        ("copy_read", "copy.read", 0),
        ("copy_write", "copy.write", 0),
        ("publish", "publish", 0),
        ("spill", "spill.write", 1),
    ],
)
def test_what_failed_is_said_by_its_call_and_its_chunk(
    copying: tuple[ChunkCopier, Acts, list[Event], Cache], method: str, call: str, chunk: int
) -> None:
    copier, acts, _, _ = copying

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "no")

    setattr(acts, method, fail)
    with pytest.raises(ChunkError) as failed:
        copier.copy_left(spill=True)
    assert (failed.value.call, failed.value.chunk) == (call, chunk)


@pytest.mark.parametrize(("chunks", "workers"), [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2)])
def test_memory_is_taken_for_as_many_workers_as_find_work(
    tmp_path: Path, memory: Memfd, chunks: int, workers: int
) -> None:
    facts = MemoryFacts(SIZE, PAGE, PAGE, 0, consumed=True, parent_finished=True)
    work = plan(PauseOptions(), facts, Blocks(range(0, 512 * chunks, 512)))
    cache = Cache(tmp_path, "b1", work.chunks)
    cache.create()
    copier = ChunkCopier(memory, work, cache, PeakMeter(memory, cache), Effects(), lambda _: None)
    copier.copy_first(lambda: None)
    assert copier.buffer_bytes == workers * 2 * MIB
    assert [cache.is_published(index) for index in range(chunks)] == [index == 0 for index in range(chunks)]
    cache.close()
