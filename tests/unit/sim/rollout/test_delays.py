from __future__ import annotations

import time

import numpy as np
import pytest

from sim.files.propagation import Propagation
from sim.rollout.delays import Delay, delay_of, distinct, fixed, last_of, total

SHIPPED = Propagation(p50=0.2, p95=1.0, p99=5.0, most=30.0)
EVEN = Delay(((0.0, 0.0), (1.0, 10.0)))


def test_quantiles_are_those_given_and_lie_on_straight_lines_between() -> None:
    delay = delay_of(SHIPPED)
    assert [delay.quantile(share) for share in (0.5, 0.95, 0.99, 1.0)] == [0.2, 1.0, 5.0, 30.0]
    assert delay.quantile(0.97) == pytest.approx(3.0)
    assert delay.within(np.array([0.2, 3.0, 40.0])) == pytest.approx([0.5, 0.97, 1.0])


def test_without_most_the_slowest_part_is_unknown_and_so_is_the_last_of_many_nodes() -> None:
    delay = delay_of(Propagation(p50=0.2, p95=1.0, p99=5.0))
    assert (delay.known, delay.quantile(0.99), delay.quantile(0.995)) == (0.99, 5.0, None)
    assert last_of(delay, 1008).quantile(0.5) is None
    assert last_of(delay, 10).quantile(0.5) == pytest.approx(delay.quantile(0.5**0.1))


def test_the_last_of_1008_nodes_obeys_after_28_3_seconds_in_the_middle() -> None:
    last = last_of(delay_of(SHIPPED), 1008)
    assert last.quantile(0.5) == pytest.approx(28.28, abs=0.01)
    assert last.within(np.array([28.28])) == pytest.approx([0.5], abs=0.001)
    assert last_of(last_of(EVEN, 2), 3) == Delay(EVEN.points, 6)


def test_what_was_measured_is_taken_point_by_point_and_one_measurement_is_always_that() -> None:
    assert delay_of(Propagation(measured=(1.0, 3.0, 2.0))).quantile(0.5) == 2.0
    assert delay_of(Propagation(measured=(4.0,))).quantile(0.01) == 4.0


def test_delays_that_never_vary_add_up_exactly() -> None:
    found = total([fixed(60), fixed(2.5)])
    assert (found.quantile(0.01), found.quantile(1.0), found.known) == (62.5, 62.5, 1.0)
    assert total([fixed(0)]).quantile(0.5) == 0.0


def test_two_even_delays_make_a_triangle() -> None:
    """P(X + Y <= t) is t^2 / 200 up to 10, and 1 - (20 - t)^2 / 200 from there."""
    found = total([EVEN, EVEN, fixed(100)])
    for share, seconds in ((0.02, 2.0), (0.125, 5.0), (0.5, 10.0), (0.98, 18.0)):
        assert found.quantile(share) == pytest.approx(100 + seconds, abs=0.01)
    assert found.known == pytest.approx(1.0)


def test_a_sum_is_known_as_far_as_each_of_its_parts_is() -> None:
    found = total([Delay(((0.0, 0.0), (0.9, 1.0))), Delay(((0.0, 0.0), (0.8, 1.0)))])
    assert found.known == pytest.approx(0.72)
    assert found.quantile(0.73) is None
    assert found.quantile(0.7) is not None


def test_a_step_in_a_distribution_keeps_its_weight() -> None:
    half_at_once = Delay(((0.0, 0.0), (0.5, 0.0), (0.5, 4.0), (1.0, 4.0)))
    found = total([half_at_once, EVEN])
    assert found.quantile(0.25) == pytest.approx(4.5, abs=0.01)  # half of [0, 10] and half of [4, 14]
    assert half_at_once.within(np.array([0.0, 3.9, 4.0])) == pytest.approx([0.5, 0.5, 1.0])


def test_sums_take_milliseconds_not_seconds() -> None:
    began = time.perf_counter()
    total([delay_of(SHIPPED), EVEN, EVEN])
    assert time.perf_counter() - began < 1


def test_a_sandbox_that_is_paused_twice_counts_once() -> None:
    rates = np.array([1 / 60] * 10)
    assert distinct(rates, 60) == pytest.approx(10 * (1 - np.exp(-1)))
    assert distinct(rates, 1e9) == pytest.approx(10)
