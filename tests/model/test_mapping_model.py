from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.mapping import Extent, Extents, Mapping, MappingError, builds, diff, merge, normalise, validate, zero
from engine.ranges import Blocks

COUNT = 24

Generation = tuple[set[int], set[int]]  # dirty, empty
Writer = tuple[str, int] | None  # build and slot, or zeros

block_sets = st.sets(st.integers(0, COUNT - 1))
generations = st.lists(st.tuples(block_sets, block_sets), max_size=6)
block_sizes = st.sampled_from([4 << 10, 2 << 20])


def last_writers(history: list[Generation]) -> list[Writer]:
    """The model: for each block, who wrote it last."""
    writers: list[Writer] = [None] * COUNT
    for number, (dirty, empty) in enumerate(history):
        for slot, block in enumerate(sorted(dirty - empty)):
            writers[block] = (f"g{number}", slot)
        for block in empty:
            writers[block] = None
    return writers


def cut(writers: list[Writer], block_size: int) -> Iterator[Extent]:
    """The fewest extents that say what the model says."""
    first = 0
    for block in range(1, COUNT + 1):
        if block < COUNT and _goes_on(writers[block - 1], writers[block]):
            continue
        writer = writers[first]
        name, slot = writer or (None, 0)
        yield Extent(first * block_size, (block - first) * block_size, name, slot * block_size)
        first = block


def _goes_on(left: Writer, right: Writer) -> bool:
    return right is None if left is None else right == (left[0], left[1] + 1)


def headers(history: list[Generation], block_size: int, *, tidy: bool) -> Iterator[Mapping]:
    """The header of each generation, normalised each time or never."""
    header = zero(COUNT * block_size, block_size)
    yield header
    for number, (dirty, empty) in enumerate(history):
        header = merge(header, diff(Blocks(dirty), Blocks(empty), f"g{number}", block_size))
        header = normalise(header) if tidy else header
        yield header


def looked_up(header: Mapping) -> list[Writer]:
    found: list[Writer] = []
    for offset in range(0, header.size, header.block_size):
        (row,) = (each for each in header.extents if each.offset <= offset < each.offset + each.length)
        slot = (row.storage_offset + offset - row.offset) // header.block_size
        found.append(None if row.build is None else (row.build, slot))
    return found


@given(generations, block_sizes, st.booleans())
def test_every_block_is_found_where_it_was_written_last(history: list[Generation], block_size: int, tidy: bool) -> None:
    for age, header in enumerate(headers(history, block_size, tidy=tidy)):
        validate(header)
        assert looked_up(header) == last_writers(history[:age])


@given(generations, block_sizes)
def test_a_normalised_header_has_the_fewest_extents(history: list[Generation], block_size: int) -> None:
    *_, header = headers(history, block_size, tidy=True)
    assert list(header.extents) == list(cut(last_writers(history), block_size))


@given(generations, block_sizes)
def test_normalising_late_once_or_twice_is_the_same(history: list[Generation], block_size: int) -> None:
    *_, early = headers(history, block_size, tidy=True)
    *_, late = headers(history, block_size, tidy=False)
    once = normalise(late)
    assert once == early
    assert normalise(once) == once
    assert looked_up(once) == looked_up(late)


@given(generations)
def test_the_builds_named_are_those_that_still_own_a_block(history: list[Generation]) -> None:
    *_, header = headers(history, 4096, tidy=False)
    owners = {writer[0] for writer in last_writers(history) if writer}
    assert builds(header) == tuple(sorted(owners))


@given(generations, st.data())
def test_a_header_with_an_extent_lost_or_doubled_is_refused(history: list[Generation], data: st.DataObject) -> None:
    *_, header = headers(history, 4096, tidy=True)
    rows = list(header.extents)
    at = data.draw(st.integers(0, len(rows) - 1))
    for broken in (rows[:at] + rows[at + 1 :], [*rows[: at + 1], *rows[at:]]):
        with pytest.raises(MappingError, match=r"gap|overlap"):
            validate(Mapping(header.size, header.block_size, Extents.of(broken)))


@given(generations, st.sampled_from([-4096, 4096]), st.data())
def test_a_header_with_a_moved_edge_is_refused(history: list[Generation], by: int, data: st.DataObject) -> None:
    *_, header = headers(history, 4096, tidy=True)
    rows = list(header.extents)
    at = data.draw(st.integers(0, len(rows) - 1))
    moved = Extent(rows[at].offset, rows[at].length + by, rows[at].build, rows[at].storage_offset)
    broken = Extents.of([*rows[:at], moved, *rows[at + 1 :]])
    with pytest.raises(MappingError):
        validate(Mapping(header.size, header.block_size, broken))
