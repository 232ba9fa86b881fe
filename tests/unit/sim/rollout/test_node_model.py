"""Many nodes at once against each node simulated by itself, event by event."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.rollout.node_events import NodeEvents, PauseLoad, Requests
from tests.node_by_events import Asked, OneNode


def load(guest: list[float], freed: list[float], extra: list[float], seconds: list[float]) -> PauseLoad:
    """With the flag on a pause takes half of its extra."""
    columns = (np.array(each, np.float64) for each in (guest, freed, extra))
    guests, back, off = columns
    return PauseLoad(guests, back, off, off / 2, np.array(seconds, np.float64))


def requests(node: Any, asked: list[Asked]) -> Requests:
    who = np.array([each for each, _, _ in asked], np.int64)
    at = np.array([each for _, each, _ in asked], np.float64)
    order = np.lexsort((at, node[who]))
    return Requests(who[order], at[order], np.array([pause for _, _, pause in asked], np.bool_)[order])


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[int], PauseLoad, int, float, list[Asked], float]:
    """Sandboxes on up to three nodes; times are all different, so that nothing hangs on the order of equal ones."""
    node = sorted(draw(st.lists(st.integers(0, 2), min_size=1, max_size=8)))
    node = [sorted(set(node)).index(each) for each in node]
    sizes = st.lists(st.integers(1, 9), min_size=len(node), max_size=len(node))
    guest, freed, extra = ([float(each) for each in draw(sizes)] for _ in range(3))
    seconds = [each + 0.01 * at for at, each in enumerate(draw(sizes))]
    who = draw(st.lists(st.tuples(st.integers(0, len(node) - 1), st.integers(0, 60), st.booleans()), max_size=24))
    asked = [(each, at + 0.0013 * number, pause) for number, (each, at, pause) in enumerate(who)]
    paused_for = draw(st.sampled_from([0.1237, 3.1237, 20.1237]))
    return node, load(guest, freed, extra, seconds), draw(st.integers(1, 3)), paused_for, asked, draw(st.floats(0, 60))


@settings(max_examples=100, deadline=None)
@given(stories())
def test_every_node_goes_as_one_that_is_simulated_by_itself(
    story: tuple[list[int], PauseLoad, int, float, list[Asked], float],
) -> None:
    placed, asks, slots, paused_for, asked, cut = story
    node = np.array(placed, np.int64)
    punches = np.array([[False] * len(placed), [True] * len(placed)])
    events = NodeEvents(node, asks, punches, slots=slots, paused_for=paused_for)
    parts = [[each for each in asked if each[1] < cut], [each for each in asked if each[1] >= cut]]
    begun = [events.advance(requests(node, part), until) for part, until in zip(parts, (cut, np.inf), strict=True)]
    for number in range(max(placed) + 1):
        members = [who for who, of in enumerate(placed) if of == number]
        mine = [each for each in asked if each[0] in members]
        for arm in (0, 1):
            alone = OneNode(asks, bool(arm), slots, paused_for).run(members, mine)
            assert events.peak[arm, number] == pytest.approx(alone.peak)
            assert events.most_at_once[number] == alone.most
            found = [pair for each in begun for pair in zip(each.who.tolist(), each.begun.tolist(), strict=True)]
            mine_begun = sorted((who, round(at, 6)) for who, at in found if who in members)
            assert mine_begun == sorted((who, round(at, 6)) for who, at, _ in alone.began)


def test_a_pause_waits_for_a_slot_and_its_guest_comes_back() -> None:
    node, asks = np.zeros(3, np.int64), load([10, 10, 10], [10, 10, 10], [4, 4, 4], [10, 3, 1])
    events = NodeEvents(node, asks, np.array([[False] * 3, [True] * 3]), slots=2, paused_for=5.0)
    asked: list[Asked] = [(0, 0.0, True), (1, 1.0, True), (2, 2.0, True), (2, 3.0, True)]
    begun = events.advance(requests(node, asked), np.inf)
    assert list(zip(begun.who.tolist(), begun.begun.tolist(), strict=True)) == [(0, 0.0), (1, 1.0), (2, 4.0)]
    assert events.peak[:, 0].tolist() == [38.0, 34.0]
    assert (events.most_at_once.tolist(), events.base.tolist()) == ([2], [30.0])


def test_a_checkpoint_holds_its_new_guest_and_its_sandbox_may_be_asked_again() -> None:
    node, asks = np.zeros(1, np.int64), load([10], [10], [4], [2])
    events = NodeEvents(node, asks, np.array([[False]]), slots=1, paused_for=5.0)
    begun = events.advance(requests(node, [(0, 0.0, False), (0, 1.0, True), (0, 3.0, True)]), np.inf)
    assert begun.begun.tolist() == [0.0, 3.0]
    assert events.peak.tolist() == [[24.0]]


def test_who_is_paused_from_the_start_comes_back_in_its_time() -> None:
    node, asks = np.array([0, 0, 1]), load([10, 10, 10], [10, 10, 10], [1, 1, 1], [1, 1, 1])
    back = np.array([7.0, 3.0, np.inf])
    events = NodeEvents(node, asks, np.array([[False] * 3]), slots=4, paused_for=100.0, back=back)
    assert events.base.tolist() == [0.0, 10.0]
    events.advance(requests(node, [(0, 6.0, True), (1, 5.0, True)]), 8.0)
    assert events.base.tolist() == [10.0, 10.0]  # the one that was back is paused again, the other came at 7
    assert events.peak.tolist() == [[11.0, 10.0]]
