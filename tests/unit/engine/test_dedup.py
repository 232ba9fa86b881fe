from __future__ import annotations

import threading
from collections.abc import Mapping as Dictionary
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine import mapping as maps
from engine.dedup import PageComparison, ParentReader, ReadSpan, compare
from engine.errors import CorruptBuildError, TruncatedError
from engine.mapping import Mapping
from engine.ranges import Blocks, Chunk, chunks, in_smaller_blocks, indexes
from engine.snapshot import Build, Header, write_header

PAGE = 4096
MIB = 1 << 20
LAYOUTS = st.sampled_from([(PAGE, PAGE), (PAGE, 2 * MIB), (2 * MIB, PAGE), (2 * MIB, 2 * MIB)])
POISON = 0xEE


def content(kind: int) -> NDArray[np.uint8]:
    """Kind 0 is zeros; the others are all different, 3 and 4 in one byte only: the last, the first."""
    made = np.full(PAGE, kind if kind < 3 else 1, dtype=np.uint8) if kind else np.zeros(PAGE, np.uint8)
    if kind == 3:
        made[-1] = 9
    elif kind == 4:
        made[0] = 9
    elif kind == 5:  # zero but for one byte
        made[:] = 0
        made[PAGE // 2] = 1
    return made


CONTENTS = np.stack([content(kind) for kind in range(6)])


def memory_of(kinds: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return CONTENTS[kinds].reshape(-1)


def whole(memory: NDArray[np.uint8]) -> ReadSpan:
    """Fills all of the buffer, as a memfd does."""

    def read(buffer: memoryview, offset: int, chunk: Chunk) -> None:
        buffer[:] = memory[offset : offset + len(buffer)].data

    return read


def dirty_only(memory: NDArray[np.uint8]) -> ReadSpan:
    """Fills what is dirty and leaves other bytes of the buffer as they were, or worse, as a process's memory does."""

    def read(buffer: memoryview, offset: int, chunk: Chunk) -> None:
        np.frombuffer(buffer, dtype=np.uint8)[:] = POISON
        block = chunk.length // len(chunk.blocks)
        for each in chunk.blocks.tolist():
            buffer[each * block - offset : (each + 1) * block - offset] = memory[each * block : (each + 1) * block].data

    return read


def by_the_page(
    now: NDArray[np.uint8], before: NDArray[np.uint8], pages: Blocks
) -> tuple[set[int], set[int], set[int]]:
    """The reference: stored, zero and equal, one page after the other."""
    stored, zero, equal = set[int](), set[int](), set[int]()
    for page in pages:
        mine, other = now[page * PAGE : (page + 1) * PAGE], before[page * PAGE : (page + 1) * PAGE]
        kind = zero if not mine.any() else equal if bytes(mine) == bytes(other) else stored
        kind.add(page)
    return stored, zero, equal


def as_sets(found: PageComparison) -> tuple[set[int], set[int], set[int]]:
    return set(found.stored), set(found.zero), set(found.equal)


def spans_of(dirty: Blocks, size: int, block: int = PAGE, page: int = PAGE) -> list[Chunk]:
    return chunks(dirty, size, block, page)


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Blocks, int, int]:
    """Kinds of pages now and in the parent, dirty blocks, block size, page size."""
    block, page = draw(LAYOUTS)
    pages = draw(st.integers(1, 3)) * (2 * MIB // PAGE)
    before = np.zeros(pages, dtype=np.uint8)
    now = np.zeros(pages, dtype=np.uint8)
    for kinds in (before, now):
        for start, length, kind in draw(
            st.lists(st.tuples(*[st.integers(0, pages - 1)] * 2, st.integers(0, 5)), max_size=6)
        ):
            kinds[start : start + length] = kind
    for at in draw(st.lists(st.integers(0, pages - 1), max_size=6)):  # as in the parent, here and there
        now[at : at + 40] = before[at : at + 40]
    dirty = Blocks(draw(st.sets(st.integers(0, pages * PAGE // block - 1), max_size=40)))
    return now, before, dirty, block, page


@settings(max_examples=80, deadline=None)
@given(case=cases(), workers=st.integers(1, 3))
def test_the_pages_of_dirty_blocks_are_sorted_as_the_reference_sorts_them(
    case: tuple[NDArray[np.uint8], NDArray[np.uint8], Blocks, int, int], workers: int
) -> None:
    kinds, kinds_before, dirty, block, page = case
    now, before = memory_of(kinds), memory_of(kinds_before)
    spans = spans_of(dirty, len(now), block, page)
    expected = by_the_page(now, before, in_smaller_blocks(dirty, block // PAGE))
    assert as_sets(compare(spans, block, whole(now), whole(before), workers)) == expected
    assert as_sets(compare(spans, block, dirty_only(now), whole(before), workers)) == expected


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 8 * PAGE - 1), bit=st.integers(0, 7))
def test_one_bit_that_differs_anywhere_makes_its_page_stored_and_no_other(at: int, bit: int) -> None:
    before = memory_of(np.full(8, 1, dtype=np.uint8))
    now = before.copy()
    now[at] ^= 1 << bit
    found = compare(spans_of(Blocks(range(8)), len(now)), PAGE, whole(now), whole(before))
    assert set(found.stored) == {at // PAGE}
    assert len(found.equal) == 7


@pytest.mark.parametrize("at", [0, 1, 7, 8, 2047, 4088, 4095])
def test_one_bit_in_a_page_of_zeros_keeps_it_from_being_zero(at: int) -> None:
    now, before = np.zeros(2 * PAGE, np.uint8), np.zeros(2 * PAGE, np.uint8)
    now[PAGE + at] = 1
    found = compare(spans_of(Blocks([0, 1]), len(now)), PAGE, whole(now), whole(before))
    assert as_sets(found) == ({1}, {0}, set())


def test_what_became_zero_is_zero_whatever_the_parent_holds() -> None:
    now, before = memory_of(np.array([0, 0], np.uint8)), memory_of(np.array([0, 1], np.uint8))
    assert as_sets(compare(spans_of(Blocks([0, 1]), len(now)), PAGE, whole(now), whole(before))) == (
        set(),
        {0, 1},
        set(),
    )


def test_where_nothing_is_dirty_nothing_is_read() -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    assert as_sets(compare([], PAGE, refuse, refuse)) == (set(), set(), set())


class Packed:
    """A finished build, in this process's memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read_into(self, buffer: memoryview, offset: int) -> None:
        assert offset + len(buffer) <= len(self.data)
        buffer[:] = self.data[offset : offset + len(buffer)]


def parent_of(mapping: Mapping, chain: dict[str, Packed]) -> ParentReader:
    return ParentReader(mapping, cast("Dictionary[str, Build]", chain))


def read_all(mapping: Mapping, chain: dict[str, Packed]) -> bytes:
    buffer = bytearray([POISON]) * mapping.size
    nothing = Chunk(0, 0, mapping.size, indexes(Blocks()), 0, 0)
    parent_of(mapping, chain).read_span(memoryview(buffer), 0, nothing)
    return bytes(buffer)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), layout=LAYOUTS)
def test_generations_that_leave_out_what_they_share_are_read_back_byte_by_byte(
    data: st.DataObject, layout: tuple[int, int]
) -> None:
    block, page = layout
    size = 4 * MIB
    kinds = np.zeros(size // PAGE, dtype=np.uint8)
    mapping, chain = maps.zero(size, block), dict[str, Packed]()
    writes = st.lists(st.tuples(st.integers(0, len(kinds) - 1), st.integers(1, 300), st.integers(0, 5)), max_size=5)
    for generation in range(4):
        before = memory_of(kinds)
        written = Blocks()
        for start, count, kind in data.draw(writes):
            kinds[start : start + count] = kind
            written.update(range(start, min(start + count, len(kinds))))
        now = memory_of(kinds)
        dirty = Blocks({each * PAGE // block for each in written})
        found = compare(spans_of(dirty, size, block, page), block, whole(now), parent_of(mapping, chain).read_span)
        assert as_sets(found) == by_the_page(now, before, in_smaller_blocks(dirty, block // PAGE))
        name = f"g{generation}"
        chain[name] = Packed(b"".join(bytes(now[each * PAGE : (each + 1) * PAGE]) for each in found.stored))
        mapping = maps.normalise(maps.merge(mapping, maps.diff(found.stored, found.zero, name, PAGE)))
        maps.validate(mapping)
        assert read_all(mapping, chain) == bytes(now)


@settings(max_examples=60, deadline=None)
@given(
    layers=st.lists(
        st.tuples(st.sets(st.integers(0, 63), max_size=30), st.sets(st.integers(0, 63), max_size=9)), max_size=4
    ),
    first=st.integers(0, 63),
    count=st.integers(1, 64),
)
def test_the_parent_is_read_from_any_page_on(layers: list[tuple[set[int], set[int]]], first: int, count: int) -> None:
    mapping, chain, model = maps.zero(64 * PAGE, PAGE), dict[str, Packed](), bytearray(64 * PAGE)
    for number, (dirty, empty) in enumerate(layers):
        stored = sorted(dirty - empty)
        pieces = {each: bytes([number + 1, each + 1]) * (PAGE // 2) for each in stored}
        chain[f"b{number}"] = Packed(b"".join(pieces.values()))
        mapping = maps.merge(mapping, maps.diff(Blocks(dirty), Blocks(empty), f"b{number}", PAGE))
        for each in empty:
            model[each * PAGE : (each + 1) * PAGE] = bytes(PAGE)
        for each, piece in pieces.items():
            model[each * PAGE : (each + 1) * PAGE] = piece
    end = min(first + count, 64)
    buffer = bytearray([POISON]) * ((end - first) * PAGE)
    chunk = Chunk(0, first * PAGE, end * PAGE, indexes(Blocks([first])), 0, PAGE)
    parent_of(mapping, chain).read_span(memoryview(buffer), first * PAGE, chunk)
    assert buffer == model[first * PAGE : end * PAGE]


def test_a_parent_whose_build_ends_early_is_refused_by_name(tmp_path: Path) -> None:
    mapping = maps.create(Blocks(range(4)), "b1", 4 * PAGE, PAGE)
    folder = tmp_path / "b1"
    folder.mkdir()
    (folder / "memfile").write_bytes(bytes(4 * PAGE))
    write_header(Header("b1", "b1", 1, mapping, (), ()), folder)
    build = Build.open(tmp_path, "b1")
    try:
        (folder / "memfile").write_bytes(bytes(3 * PAGE))  # after it was opened
        reader = ParentReader(mapping, {"b1": build})
        now = memory_of(np.full(4, 1, np.uint8))
        with pytest.raises(CorruptBuildError, match="build b1: its cache ended"):
            compare(spans_of(Blocks(range(4)), len(now)), PAGE, whole(now), reader.read_span)
    finally:
        build.close()


@pytest.mark.parametrize("failing", range(4))
@pytest.mark.parametrize("side", ["memory", "parent"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_read_that_fails_in_any_worker_fails_the_compare_once_all_have_ended(
    failing: int, side: str, workers: int
) -> None:
    now = memory_of(np.full(4 * 512, 1, np.uint8))

    def read(buffer: memoryview, offset: int, chunk: Chunk) -> None:
        if chunk.index == failing:
            raise TruncatedError(f"chunk {failing} is not there")
        buffer[:] = now[offset : offset + len(buffer)].data

    memory, parent = (read, whole(now)) if side == "memory" else (whole(now), read)
    with pytest.raises(TruncatedError, match=f"chunk {failing}"):
        compare(spans_of(Blocks(range(4 * 512)), len(now)), PAGE, memory, parent, workers)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("comparer")]


def test_where_no_thread_can_be_started_one_worker_compares_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    now, before = memory_of(np.full(4 * 512, 1, np.uint8)), memory_of(np.full(4 * 512, 2, np.uint8))
    found = compare(spans_of(Blocks(range(4 * 512)), len(now)), PAGE, whole(now), whole(before))
    assert as_sets(found) == (set(range(4 * 512)), set(), set())
