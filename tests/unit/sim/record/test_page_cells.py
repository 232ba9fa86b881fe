"""Cells of memory: how many, how large, and what is in each."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from engine.dirty import DirtySet
from engine.mapping import create, zero
from sim.record.cells import MOST_CELLS, cell_size, cells_of, read_cells

BLOCK = 4096


def found(dirty: list[int], empty: list[int] | None = None) -> DirtySet:
    return DirtySet(BitMap(dirty), BitMap(empty or []), "test", 1.0)


def test_small_memory_has_a_cell_a_page() -> None:
    assert cells_of(found([0, 1, 5]), BLOCK, zero(8 * BLOCK, BLOCK)) == "2d 3z 1d 2z"


def test_what_the_parent_holds_is_clean_and_what_it_holds_as_zeros_is_zero() -> None:
    parent = create(BitMap([2, 3, 6]), "web-0.p1", 8 * BLOCK, BLOCK)
    assert cells_of(found([3]), BLOCK, parent) == "2z 1c 1d 2z 1c 1z"


def test_a_block_that_is_known_to_be_zero_is_zero_whatever_the_parent_holds() -> None:
    parent = create(BitMap(range(4)), "web-0.p1", 4 * BLOCK, BLOCK)
    assert cells_of(found([0], [2]), BLOCK, parent) == "1d 1c 1z 1c"


def test_a_cell_of_several_pages_of_which_some_are_dirty_is_partly_dirty() -> None:
    size = 2 * MOST_CELLS * BLOCK
    assert cells_of(found([0, 1, 2]), BLOCK, zero(size, BLOCK)) == f"1d 1m {MOST_CELLS - 2}z"
    assert cell_size(size, BLOCK) == 2 * BLOCK


@settings(max_examples=50, deadline=None)
@given(blocks=st.integers(1, 5000), dirty=st.sets(st.integers(0, 4999), max_size=60))
def test_every_dirty_block_lies_in_a_cell_that_says_so(blocks: int, dirty: set[int]) -> None:
    inside = [block for block in dirty if block < blocks]
    letters = read_cells(cells_of(found(inside), BLOCK, zero(blocks * BLOCK, BLOCK)))
    per_cell = cell_size(blocks * BLOCK, BLOCK) // BLOCK
    assert len(letters) <= MOST_CELLS
    assert len(letters) * per_cell >= blocks
    assert {at for at, letter in enumerate(letters) if letter in "dm"} == {block // per_cell for block in inside}
