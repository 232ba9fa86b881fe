"""Which part of a run a chart shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.record.stages import Sample
from sim.tui.windows import FOLDED, IDLE, ChartWindow, window

MIB = 1 << 20


def samples(*points: tuple[float, int]) -> list[Sample]:
    return [Sample(t, size * MIB, 0) for t, size in points]


def test_a_window_ends_now_and_begins_no_earlier_than_the_run() -> None:
    assert window(30.0, 100.0, [], []) == ChartWindow(70.0, 100.0)
    assert window(30.0, 12.0, [], []) == ChartWindow(0.0, 12.0)


def test_a_window_begins_with_what_was_known_before_it() -> None:
    part = window(30.0, 100.0, (known := samples((1.0, 4), (60.0, 8), (80.0, 2))), [])
    assert [(each.t, each.source // MIB) for each in part.shown(known)] == [(0.0, 8), (10.0, 2)]


def test_an_hour_in_which_nothing_changed_is_left_out() -> None:
    known = samples((1.0, 4), (2.0, 8), *((2.0 + each, 8) for each in range(1, 3600)), (3602.0, 2))
    part = window(None, 3604.0, known, [])
    assert part.left_out == pytest.approx(3598.0)
    assert part.length == pytest.approx(6.0)
    assert part.place(3602.0) == pytest.approx(2.0 + FOLDED)


def test_a_pause_in_an_idle_time_is_shown_with_time_before_and_after_it() -> None:
    part = window(None, 200.0, samples((0.0, 4)), [100.0])
    assert part.place(100.0) == pytest.approx(FOLDED)
    assert part.length == pytest.approx(2 * FOLDED)


@given(st.lists(st.floats(0, 5000), max_size=30), st.floats(1, 6000))
def test_places_keep_the_order_of_times_and_stay_in_the_window(times: list[float], now: float) -> None:
    marks = sorted(each for each in times if each <= now)
    part = window(None, now, [], marks)
    placed = [part.place(each) for each in (*marks, now)]
    assert placed == sorted(placed)
    assert all(-1e-9 <= each <= part.length + 1e-9 for each in placed)
    assert all(to - since <= IDLE for since, to in zip([0.0, *placed], placed, strict=False))
