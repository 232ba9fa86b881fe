"""Which blocks a bench's guest writes: the share that the name says, in order, the same each time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.rollout import bench_guest

SHARES = {
    bench_guest.FULL: 1.0,
    bench_guest.HALF_IN_ONE_RUN: 0.5,
    bench_guest.EVERY_SECOND: 0.5,
    bench_guest.SCATTERED_10: 0.1,
    bench_guest.SCATTERED_50: 0.5,
    bench_guest.CLEAN_90: 0.1,
    bench_guest.CLEAN_99: 0.01,
}


@pytest.mark.parametrize(("layout", "share"), SHARES.items())
def test_a_layout_dirties_the_share_that_it_names(layout: str, share: float) -> None:
    assert sum(count for _, count in bench_guest.dirty_runs(layout, 1000)) == 1000 * share


@given(st.sampled_from(sorted(SHARES)), st.integers(1, 3000))
def test_runs_ascend_without_touching_and_stay_in_memory(layout: str, blocks: int) -> None:
    runs = bench_guest.dirty_runs(layout, blocks)
    edges = [edge for first, count in runs for edge in (first, first + count)]
    assert runs
    assert all(count > 0 for _, count in runs)
    assert edges == sorted(set(edges))
    assert edges[-1] <= blocks


@given(st.sets(st.integers(0, 500)))
def test_joined_blocks_are_the_blocks_that_were_given(blocks: set[int]) -> None:
    runs = bench_guest.joined(sorted(blocks))
    assert [block for first, count in runs for block in range(first, first + count)] == sorted(blocks)


def test_guest_and_bench_draw_the_same_scattered_blocks() -> None:
    assert bench_guest.dirty_runs(bench_guest.SCATTERED_10, 5000) == bench_guest.dirty_runs(
        bench_guest.SCATTERED_10, 5000
    )


def test_every_second_block_leaves_no_two_neighbours() -> None:
    assert bench_guest.dirty_runs(bench_guest.EVERY_SECOND, 6) == [(0, 1), (2, 1), (4, 1)]
