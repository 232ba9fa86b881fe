"""The header that a pause makes of its work: whose child it is, and where every byte of it is."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from engine import mapping as maps
from engine.cache import Cache
from engine.dirty import DirtySet
from engine.plan import MemoryFacts, PauseOptions, plan
from engine.ranges import Blocks, Chunk, in_smaller_blocks
from engine.snapshot import Header, template
from engine.work import Work, finished_header, unfinished_header, without_zeros, written_with_room

PAGE, SIZE = 4096, 8 << 20


def work_of(dirty: list[int], empty: list[int], block: int = PAGE) -> Work:
    facts = MemoryFacts(SIZE, PAGE, block, 0, consumed=True, parent_finished=True)
    return Work(plan(PauseOptions(), facts, Blocks(dirty)), DirtySet(Blocks(dirty), Blocks(empty), "", 0.0), block)


def rows(header: Header) -> list[tuple[int, int, str | None, int]]:
    found = maps.normalise(header.mapping).extents
    return [(row.offset // PAGE, row.length // PAGE, row.build, row.storage_offset // PAGE) for row in found]


def test_a_first_build_is_its_own_base_and_the_next_one_stands_on_it() -> None:
    first = unfinished_header(template(SIZE, PAGE), "b1", work_of([1, 2, 600], [2, 7]))
    assert (first.build, first.base_build, first.generation) == ("b1", "b1", 1)
    assert (first.chunk_lengths, first.digests, first.spilled) == ((), (), ())
    assert rows(first) == [(0, 1, None, 0), (1, 2, "b1", 0), (3, 597, None, 0), (600, 1, "b1", 2), (601, 1447, None, 0)]
    second = unfinished_header(first, "b2", work_of([2], [600]))
    assert (second.build, second.base_build, second.generation) == ("b2", "b1", 2)
    assert rows(second) == [(0, 1, None, 0), (1, 1, "b1", 0), (2, 1, "b2", 0), (3, 2045, None, 0)]


def test_a_whole_build_says_zero_where_its_packed_pages_hold_nothing(tmp_path: Path) -> None:
    work = work_of([1, 2, 600], [])
    cache = Cache(tmp_path, "b1", work.plan.chunks, tmp_path)
    cache.create()
    for chunk, data in zip(work.plan.chunks, (b"x" * PAGE + bytes(PAGE), b"y" * PAGE), strict=True):
        cache.write(memoryview(data), chunk.cache_offset)
        cache.digests[chunk.index] = bytes([chunk.index]) * 16
    cache.lies_in_spill(1)
    header = finished_header(unfinished_header(template(SIZE, PAGE), "b1", work), work, cache)
    assert rows(header) == [
        (0, 1, None, 0),
        (1, 1, "b1", 0),
        (2, 598, None, 0),
        (600, 1, "b1", 2),
        (601, 1447, None, 0),
    ]
    assert header.mapping.extents == maps.normalise(header.mapping).extents
    assert (header.chunk_lengths, header.digests) == ((2 * PAGE, PAGE), (bytes(16), b"\1" * 16))
    assert (header.spilled, header.length, header.file_length) == ((1,), 2 * PAGE, 3 * PAGE)
    cache.close()


def test_a_page_of_zeros_in_a_large_block_is_the_page_it_was() -> None:
    work = work_of([1, 3], [], 4 * PAGE)
    mapping = unfinished_header(template(SIZE, 4 * PAGE), "b1", work).mapping
    assert without_zeros(mapping, work, np.empty(0, dtype=np.int64), "b1") is mapping
    made = without_zeros(mapping, work, np.array([0, 5], dtype=np.int64), "b1")
    header = Header("b1", "b1", 1, made, (), ())
    expected = [(0, 5, None, 0), (5, 3, "b1", 1), (8, 4, None, 0), (12, 1, "b1", 4), (13, 1, None, 0), (14, 2, "b1", 6)]
    assert rows(header)[:6] == expected


@pytest.mark.parametrize(
    ("blocks", "per_block", "smaller"),
    [([5], 2, [10, 11]), ([1, 3], 3, [3, 4, 5, 9, 10, 11]), ([7], 1, [7]), ([], 4, [])],
)
def test_the_same_bytes_in_smaller_blocks_are_those_and_no_other(
    blocks: list[int], per_block: int, smaller: list[int]
) -> None:
    assert list(in_smaller_blocks(Blocks(blocks), per_block)) == smaller


# -- room for a header


class Cached:
    """A cache from which chunks are moved."""

    def __init__(self, spilled: set[int], *, can_spill: bool = True) -> None:
        self.spilled, self.can_spill = spilled, can_spill

    def move_to_spill(self, chunk: Chunk, record: Any) -> None:
        record()
        self.spilled.add(chunk.index)


def tried(number: int, times: int, cache: Cached) -> tuple[object, list[int]]:
    """What is written, or the errno; and which chunks were recorded as moved."""
    left, moved = [times], list[int]()
    chunks = cast("list[Chunk]", [SimpleNamespace(index=index) for index in range(3)])

    def write() -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(number, "words")
        return "written"

    try:
        made = written_with_room(write, cast("Cache", cache), chunks, lambda chunk: moved.append(chunk.index))
    except OSError as error:
        return error.errno, moved
    return made, moved


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_chunks_make_room_for_the_header_from_the_last_on_until_there_is_none(number: int) -> None:
    assert tried(number, 0, Cached(set())) == ("written", [])
    assert tried(number, 2, Cached(set())) == ("written", [2, 1])
    assert tried(number, 2, Cached({2})) == ("written", [1, 0])
    assert tried(number, 9, Cached(set())) == (number, [2, 1, 0])
    assert tried(number, 9, Cached(set(), can_spill=False)) == (number, [])
    assert tried(errno.EIO, 9, Cached(set())) == (errno.EIO, [])
