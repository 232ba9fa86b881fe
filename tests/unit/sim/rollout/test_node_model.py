"""Many nodes at once against one node simulated step by step, event by event."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.rollout.simulation import Nodes

HERE = np.zeros(1, np.int64)
Asked = tuple[float, float, float, float]
"""When, extra bytes, freed bytes, seconds."""


def at(nodes: Nodes, now: float, extra: float, freed: float, seconds: float) -> float:
    begun, _ = nodes.pause(HERE, np.array([now]), np.array([[extra]]), np.array([freed]), np.array([seconds]))
    return float(begun[0])


def slowly(base: float, slots: int, asked: list[Asked]) -> float:
    """The peak: each pause begins when it is asked and a slot is free; memory is summed at each beginning."""
    taken: list[tuple[float, float, float, float]] = []  # begun, ended, extra, freed
    for now, extra, freed, seconds in asked:
        ends = sorted(ended for _, ended, _, _ in taken)
        begun = max(now, ends[-slots]) if len(ends) >= slots else now
        taken.append((begun, begun + seconds, extra, freed))
    peak = base
    for begun, *_ in taken:
        held = sum(extra for start, end, extra, _ in taken if start <= begun < end)
        gone = sum(freed for _, end, _, freed in taken if end <= begun)
        so_far = [each for each in taken if each[0] == begun]
        peak = max(peak, base + held - gone if so_far else base)
    return peak


PAUSE = st.tuples(st.integers(0, 30), st.integers(0, 9), st.integers(0, 5), st.integers(1, 8))


@settings(max_examples=200)
@given(st.integers(1, 4), st.lists(PAUSE, max_size=12))
def test_the_peak_is_that_of_a_simulation_event_by_event(slots: int, drawn: list[tuple[int, ...]]) -> None:
    asked: list[Asked] = [(float(a), float(b), float(c), float(d)) for a, b, c, d in sorted(drawn)]
    nodes = Nodes(np.array([100.0]), 1, slots)
    for each in asked:
        at(nodes, *each)
    assert nodes.peak[0, 0] == slowly(100.0, slots, asked)


def test_a_pause_waits_for_a_slot() -> None:
    nodes = Nodes(np.zeros(1), 1, 2)
    assert [at(nodes, 0, 1, 0, 10), at(nodes, 1, 1, 0, 3), at(nodes, 2, 1, 0, 1)] == [0, 1, 4]
    assert nodes.peak[0, 0] == 2


def test_arms_and_nodes_do_not_mix() -> None:
    nodes = Nodes(np.array([10.0, 20.0]), 2, 1)
    extra = np.array([[5.0, 6.0], [1.0, 2.0]])
    nodes.pause(np.arange(2), np.zeros(2), extra, np.array([3.0, 4.0]), np.ones(2))
    assert nodes.peak.tolist() == [[15.0, 26.0], [11.0, 22.0]]
    nodes.resume(np.array([1]), 2.0, np.array([9.0]))
    assert nodes.base.tolist() == [10.0, 25.0]


def test_a_guest_that_comes_back_beside_a_pause_in_flight_is_a_peak() -> None:
    nodes = Nodes(np.array([10.0]), 1, 2)
    at(nodes, 0, 7, 2, 5)
    nodes.resume(HERE, 3.0, np.array([4.0]))
    assert nodes.peak[0, 0] == pytest.approx(21)
