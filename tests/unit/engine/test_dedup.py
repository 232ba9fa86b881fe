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
from engine.dedup import PageComparison, ParentReader, ReadPages, compare, differing
from engine.errors import CorruptBuildError, TruncatedError
from engine.mapping import Mapping
from engine.ranges import Blocks, in_smaller_blocks
from engine.snapshot import Build, Header, write_header

PAGE = 4096
MIB = 1 << 20
BLOCKS = st.sampled_from([PAGE, 2 * MIB])
POISON = 0xEE
BATCHES = 6
"""More than one worker compares alone."""


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


def whole(memory: NDArray[np.uint8]) -> ReadPages:
    """Fills the buffer with the pages asked for, whatever it held."""

    def read(buffer: memoryview, pages: NDArray[np.int64]) -> None:
        assert len(buffer) == len(pages) * PAGE
        assert (np.diff(pages) > 0).all()
        buffer[:] = memory.reshape(-1, PAGE)[pages].reshape(-1).data

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


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Blocks]:
    """Kinds of pages now and in the parent, and the dirty pages."""
    block = draw(BLOCKS)
    pages = draw(st.integers(1, 6)) * (2 * MIB // PAGE)
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
    return now, before, in_smaller_blocks(dirty, block // PAGE)


@settings(max_examples=80, deadline=None)
@given(case=cases(), workers=st.integers(1, 3))
def test_the_pages_of_dirty_blocks_are_sorted_as_the_reference_sorts_them(
    case: tuple[NDArray[np.uint8], NDArray[np.uint8], Blocks], workers: int
) -> None:
    kinds, kinds_before, dirty = case
    now, before = memory_of(kinds), memory_of(kinds_before)
    expected = by_the_page(now, before, dirty)
    assert as_sets(compare(dirty, whole(now), whole(before), workers)) == expected


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 8 * PAGE - 1), bit=st.integers(0, 7))
def test_one_bit_that_differs_anywhere_makes_its_page_stored_and_no_other(at: int, bit: int) -> None:
    before = memory_of(np.full(8, 1, dtype=np.uint8))
    now = before.copy()
    now[at] ^= 1 << bit
    found = compare(Blocks(range(8)), whole(now), whole(before))
    assert set(found.stored) == {at // PAGE}
    assert len(found.equal) == 7


@pytest.mark.parametrize("at", [0, 1, 7, 8, 2047, 4088, 4095])
def test_one_bit_in_a_page_of_zeros_keeps_it_from_being_zero(at: int) -> None:
    now, before = np.zeros(2 * PAGE, np.uint8), np.zeros(2 * PAGE, np.uint8)
    now[PAGE + at] = 1
    found = compare(Blocks([0, 1]), whole(now), whole(before))
    assert as_sets(found) == ({1}, {0}, set())


def test_what_became_zero_is_zero_whatever_the_parent_holds() -> None:
    now, before = memory_of(np.array([0, 0], np.uint8)), memory_of(np.array([0, 1], np.uint8))
    assert as_sets(compare(Blocks([0, 1]), whole(now), whole(before))) == (
        set(),
        {0, 1},
        set(),
    )


def test_where_nothing_is_dirty_nothing_is_read() -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    assert as_sets(compare(Blocks(), refuse, refuse)) == (set(), set(), set())


class Packed:
    """A finished build, in this process's memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read_pages(self, buffer: memoryview, rows: NDArray[np.int64], pages: NDArray[np.int64]) -> None:
        assert (np.diff(pages) > 0).all()
        for row, page in zip(rows.tolist(), pages.tolist(), strict=True):
            buffer[row * PAGE : (row + 1) * PAGE] = self.data[page * PAGE : (page + 1) * PAGE]


def parent_of(mapping: Mapping, chain: dict[str, Packed]) -> ParentReader:
    return ParentReader(mapping, cast("Dictionary[str, Build]", chain))


def read_all(mapping: Mapping, chain: dict[str, Packed]) -> bytes:
    buffer = bytearray([POISON]) * mapping.size
    parent_of(mapping, chain).read_pages(memoryview(buffer), np.arange(mapping.size // PAGE))
    return bytes(buffer)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), block=BLOCKS)
def test_generations_that_leave_out_what_they_share_are_read_back_byte_by_byte(data: st.DataObject, block: int) -> None:
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
        dirty = in_smaller_blocks(Blocks({each * PAGE // block for each in written}), block // PAGE)
        found = compare(dirty, whole(now), parent_of(mapping, chain).read_pages)
        assert as_sets(found) == by_the_page(now, before, dirty)
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
    wanted=st.sets(st.integers(0, 63), min_size=1),
)
def test_any_pages_of_the_parent_are_read(layers: list[tuple[set[int], set[int]]], wanted: set[int]) -> None:
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
    pages = np.array(sorted(wanted))
    buffer = bytearray([POISON]) * (len(pages) * PAGE)
    parent_of(mapping, chain).read_pages(memoryview(buffer), pages)
    assert buffer == b"".join(model[page * PAGE : (page + 1) * PAGE] for page in pages.tolist())


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
            compare(Blocks(range(4)), whole(now), reader.read_pages)
    finally:
        build.close()


@pytest.mark.parametrize("failing", range(0, BATCHES, 2))
@pytest.mark.parametrize("side", ["memory", "parent"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_read_that_fails_in_any_worker_fails_the_compare_once_all_have_ended(
    failing: int, side: str, workers: int
) -> None:
    now = memory_of(np.full(BATCHES * 512, 1, np.uint8))

    def read(buffer: memoryview, pages: NDArray[np.int64]) -> None:
        if failing * 512 in pages:
            raise TruncatedError(f"batch {failing} is not there")
        whole(now)(buffer, pages)

    memory, parent = (read, whole(now)) if side == "memory" else (whole(now), read)
    with pytest.raises(TruncatedError, match=f"batch {failing}"):
        compare(Blocks(range(BATCHES * 512)), memory, parent, workers)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("comparer")]


def test_an_interrupt_is_raised_once_every_worker_has_ended() -> None:
    now = memory_of(np.full(BATCHES * 512, 1, np.uint8))
    raised = threading.Event()

    def read(buffer: memoryview, pages: NDArray[np.int64]) -> None:
        if threading.current_thread() is threading.main_thread():
            raised.set()
            raise KeyboardInterrupt
        assert raised.wait(30)  # or the other worker might take every batch
        whole(now)(buffer, pages)

    with pytest.raises(KeyboardInterrupt):
        compare(Blocks(range(BATCHES * 512)), read, whole(now))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("comparer")]


def test_where_no_thread_can_be_started_one_worker_compares_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    now, before = memory_of(np.full(BATCHES * 512, 1, np.uint8)), memory_of(np.full(BATCHES * 512, 2, np.uint8))
    found = compare(Blocks(range(BATCHES * 512)), whole(now), whole(before))
    assert as_sets(found) == (set(range(BATCHES * 512)), set(), set())


@given(st.lists(st.one_of(st.none(), st.integers(0, 511)), min_size=1, max_size=12))
def test_a_page_differs_wherever_its_one_other_word_lies(words: list[int | None]) -> None:
    """None is a page that is the same; few, half or all of them differ."""
    theirs = np.random.default_rng(len(words)).integers(1, 1 << 60, (len(words), 512), dtype=np.uint64)
    ours = theirs.copy()
    for page, word in enumerate(words):
        if word is not None:
            ours[page, word] += np.uint64(1)
    assert differing(ours, theirs).tolist() == [word is not None for word in words]


def test_an_interrupt_while_it_waits_for_another_worker_is_raised_once_that_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = memory_of(np.full(BATCHES * 512, 1, np.uint8))
    interrupted, real = threading.Event(), threading.Thread.join

    def join(self: threading.Thread, timeout: float | None = None) -> None:
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt
        real(self, timeout)

    def read(buffer: memoryview, pages: NDArray[np.int64]) -> None:
        if threading.current_thread() is not threading.main_thread():
            assert interrupted.wait(30)
        whole(now)(buffer, pages)

    monkeypatch.setattr(threading.Thread, "join", join)
    with pytest.raises(KeyboardInterrupt):
        compare(Blocks(range(BATCHES * 512)), read, whole(now))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("comparer")]
