from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import EngineError
from engine.ranges import Blocks, RangeError, chunks, from_indexes, from_ranges, indexes, run_columns, runs, whole_pages

KIB4 = 4 << 10
KIB16 = 16 << 10
MIB2 = 2 << 20


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Blocks, int, int, int]:
    """(dirty, size, block size, page size): either of the last two the larger, ragged ends too."""
    block_size, page_size = draw(st.sampled_from([(KIB4, KIB4), (KIB4, KIB16), (KIB16, KIB4)]))
    count = draw(st.integers(1, 60))
    return Blocks(draw(st.sets(st.integers(0, count - 1)))), count * block_size, block_size, page_size


def dirty_bytes(dirty: Blocks, block_size: int) -> set[int]:
    """The 4 KiB pieces of the dirty blocks."""
    piece = range(block_size // KIB4)
    return {block * (block_size // KIB4) + part for block in dirty for part in piece}


def test_no_block_has_no_run() -> None:
    assert runs(Blocks()) == []


def test_runs_are_first_block_and_count() -> None:
    assert runs(Blocks([0, 1, 2, 7, 9, 10])) == [(0, 3), (7, 1), (9, 2)]


def test_a_block_at_the_end_of_the_index_space_is_a_run() -> None:
    assert runs(Blocks([2**32 - 2, 2**32 - 1])) == [(2**32 - 2, 2)]


@given(st.sets(st.integers(0, 200)))
def test_runs_are_maximal_and_hold_every_block(blocks: set[int]) -> None:
    grouped = groupby(enumerate(sorted(blocks)), key=lambda pair: pair[1] - pair[0])
    members = [[block for _, block in group] for _, group in grouped]
    assert runs(Blocks(blocks)) == [(group[0], len(group)) for group in members]


def test_run_columns_of_no_block_are_empty() -> None:
    firsts, counts = run_columns(Blocks())
    assert (len(firsts), len(counts)) == (0, 0)


def test_indexes_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        indexes(Blocks([1]))[0] = 2


def test_indexes_come_back_as_the_same_set() -> None:
    blocks = Blocks([5, 0, 70_000, 2**32 - 1])
    assert from_indexes(indexes(blocks)) == blocks


def test_an_unordered_repeated_index_is_one_block() -> None:
    assert from_indexes(np.array([3, 1, 3], dtype=np.uint32)) == Blocks([1, 3])


def test_a_range_dirties_every_block_it_touches() -> None:
    starts, ends = np.array([4095, 20_480]), np.array([4097, 20_481])
    assert from_ranges(starts, ends, KIB4) == Blocks([0, 1, 5])


def test_an_empty_range_touches_nothing_even_inside_a_block() -> None:
    assert from_ranges(np.array([100]), np.array([100]), KIB4) == Blocks()


def test_no_range_touches_nothing() -> None:
    assert from_ranges(np.array([], dtype=np.uint64), np.array([], dtype=np.uint64), KIB4) == Blocks()


def test_unsigned_ranges_as_the_kernel_writes_them_are_taken() -> None:
    starts, ends = np.array([MIB2], dtype=np.uint64), np.array([MIB2 + KIB4], dtype=np.uint64)
    assert from_ranges(starts, ends, MIB2) == Blocks([1])


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 30))))
def test_ranges_in_any_order_and_overlapping_are_a_union(spans: list[tuple[int, int]]) -> None:
    starts = np.array([start for start, _ in spans], dtype=np.int64)
    ends = np.array([start + length for start, length in spans], dtype=np.int64)
    touched = {byte // 8 for start, length in spans for byte in range(start, start + length)}
    assert from_ranges(starts, ends, 8) == Blocks(touched)


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 4), (0, 2**32 * KIB4 + 1)])
def test_a_range_that_cannot_be_is_refused_with_its_place(start: int, end: int) -> None:
    with pytest.raises(RangeError, match=r"range 1 is \["):
        from_ranges(np.array([0, start]), np.array([1, end]), KIB4)


def test_a_range_error_is_an_engine_error_and_a_value_error() -> None:
    assert issubclass(RangeError, EngineError)
    assert issubclass(RangeError, ValueError)


def test_a_clean_memfd_has_no_chunk() -> None:
    assert chunks(Blocks(), MIB2 * 4, KIB4, KIB4) == []


def test_only_spans_with_a_dirty_block_make_a_chunk() -> None:
    made = chunks(Blocks([1, 511, 1024]), MIB2 * 3, KIB4, KIB4)
    assert [(chunk.index, chunk.start, chunk.end) for chunk in made] == [
        (0, 0, MIB2),
        (1, 2 * MIB2, 3 * MIB2),
    ]
    assert [chunk.blocks.tolist() for chunk in made] == [[1, 511], [1024]]
    assert [(chunk.cache_offset, chunk.length) for chunk in made] == [(0, 2 * KIB4), (2 * KIB4, KIB4)]


def test_a_span_grows_to_the_page_and_to_the_block() -> None:
    assert [chunk.end for chunk in chunks(Blocks([0]), 2 * MIB2, KIB4, MIB2, span=KIB4)] == [MIB2]
    assert [chunk.end for chunk in chunks(Blocks([0]), 2 * MIB2, MIB2, KIB4, span=KIB4)] == [MIB2]


def test_the_last_chunk_ends_with_the_file() -> None:
    assert chunks(Blocks([513]), MIB2 + 2 * KIB4, KIB4, KIB4)[0].end == MIB2 + 2 * KIB4


@given(layouts(), st.sampled_from([KIB4, KIB16, 2 * KIB16]))
def test_every_dirty_block_is_in_exactly_one_chunk(layout: tuple[Blocks, int, int, int], span: int) -> None:
    dirty, size, block_size, page_size = layout
    made = chunks(dirty, size, block_size, page_size, span)
    assert [block for chunk in made for block in chunk.blocks.tolist()] == list(dirty)
    for chunk in made:
        assert len(chunk.blocks) > 0
        assert chunk.start <= int(chunk.blocks[0]) * block_size
        assert (int(chunk.blocks[-1]) + 1) * block_size <= chunk.end


@given(layouts(), st.sampled_from([KIB4, KIB16, 2 * KIB16]))
def test_cache_offsets_are_contiguous(layout: tuple[Blocks, int, int, int], span: int) -> None:
    dirty, size, block_size, page_size = layout
    offset = 0
    for position, chunk in enumerate(chunks(dirty, size, block_size, page_size, span)):
        assert (chunk.index, chunk.cache_offset) == (position, offset)
        assert chunk.length == len(chunk.blocks) * block_size
        offset += chunk.length
    assert offset == len(dirty) * block_size


@given(layouts(), st.sampled_from([KIB4, KIB16, 2 * KIB16]))
def test_spans_are_page_aligned_and_disjoint(layout: tuple[Blocks, int, int, int], span: int) -> None:
    dirty, size, block_size, page_size = layout
    end_before = 0
    for chunk in chunks(dirty, size, block_size, page_size, span):
        assert chunk.start >= end_before
        assert chunk.start % page_size == 0
        assert chunk.end % page_size == 0 or chunk.end == size
        end_before = chunk.end


@pytest.mark.parametrize(
    ("size", "block_size", "page_size", "span", "message"),
    [
        (KIB4 + 1, KIB4, KIB4, MIB2, "file size 4097 is not a multiple"),
        (-KIB4, KIB4, KIB4, MIB2, "negative"),
        (KIB4, 0, KIB4, MIB2, "block size is 0"),
        (KIB4, KIB4, 0, MIB2, "page size is 0"),
        (KIB4, KIB4, KIB16, MIB2 + KIB4, "span 2101248 is not a multiple of the page size"),
        (KIB16, KIB16, KIB4, MIB2 + KIB4, "span 2101248 is not a multiple of the block size"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(
    size: int, block_size: int, page_size: int, span: int, message: str
) -> None:
    with pytest.raises(RangeError, match=message):
        chunks(Blocks(), size, block_size, page_size, span)


def test_whole_pages_shrink_to_the_pages_inside() -> None:
    assert whole_pages(1, 3 * KIB4 - 1, KIB4, MIB2) == (KIB4, 2 * KIB4)


def test_whole_pages_behind_the_start_of_the_file_are_a_start_and_an_end() -> None:
    assert whole_pages(2 * MIB2, 3 * MIB2, KIB4, 4 * MIB2) == (2 * MIB2, 3 * MIB2)


def test_a_range_inside_one_page_has_no_whole_page() -> None:
    assert whole_pages(1, KIB4, KIB4, MIB2) is None


def test_whole_pages_stop_at_the_file_end() -> None:
    assert whole_pages(0, MIB2, KIB4, 2 * KIB4 + 1) == (0, 2 * KIB4)
    assert whole_pages(MIB2, 2 * MIB2, KIB4, MIB2) is None


def test_a_range_before_the_file_is_refused() -> None:
    with pytest.raises(RangeError, match="starts at -1"):
        whole_pages(-1, KIB4, KIB4, KIB4)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 9), st.integers(0, 100))
def test_whole_pages_are_all_the_pages_inside(start: int, end: int, page_size: int, size: int) -> None:
    pages = [page for page in range(101) if start <= page * page_size and (page + 1) * page_size <= min(end, size)]
    found = whole_pages(start, end, page_size, size)
    assert found == ((pages[0] * page_size, (pages[-1] + 1) * page_size) if pages else None)
