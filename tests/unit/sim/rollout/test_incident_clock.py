from __future__ import annotations

import math
import time

import numpy as np
import pytest

from sim.rollout.delays import Delay, fixed
from sim.rollout.incident_clock import Count, Part, incident

MINUTE = [Part("bake", fixed(30), "given"), Part("decision", fixed(30), "assumed")]


def rates(count: int, per_hour: float) -> np.ndarray:
    return np.full(count, per_hour / 3600)


def binomial(tries: int, chance: float) -> list[float]:
    return [math.comb(tries, k) * chance**k * (1 - chance) ** (tries - k) for k in range(tries + 1)]


def test_fixed_delays_make_a_binomial_of_the_exposed() -> None:
    """Ten sandboxes, paused once a minute on average, and one minute: each is reached with 1 - 1/e = 0.632."""
    found = incident(10, rates(10, 60), MINUTE)
    upto = np.cumsum(binomial(10, 1 - math.exp(-1)))
    assert (found.punched.p50, found.punched.p99) == (int(np.searchsorted(upto, 0.5)), int(np.searchsorted(upto, 0.99)))
    assert (found.punched.p50, found.punched.p99) == (6, 10)  # all ten in 1.02 % of incidents
    assert found.punched.mean == pytest.approx(6.3212, abs=1e-4)
    assert found.punched.any == pytest.approx(1 - math.exp(-10))
    assert found.obeyed == (60, 60)


def test_losses_are_the_punched_ones_thinned_by_the_rate() -> None:
    found = incident(10, rates(1000, 60), MINUTE, loss_rate=0.005)
    assert found.lost is not None
    chance = 0.005 * (1 - math.exp(-1))
    upto = np.cumsum([math.comb(1000, k) * chance**k * (1 - chance) ** (1000 - k) for k in range(30)])
    assert (found.lost.p50, found.lost.p99) == (int(np.searchsorted(upto, 0.5)), int(np.searchsorted(upto, 0.99)))
    assert found.lost.any == pytest.approx(1 - (1 - chance) ** 1000)


def test_no_more_are_punched_than_are_exposed_and_nobody_where_nobody_is() -> None:
    long = [Part("bake", fixed(1e6), "given")]
    everybody = incident(1, rates(7, 60), long).punched
    assert (everybody.p50, everybody.p99, round(everybody.mean or 0, 9), everybody.any) == (7, 7, 7.0, 1.0)
    assert incident(0, rates(0, 60), long).punched == Count(0, 0, 0.0, 0.0)


def test_a_rare_pause_is_counted_as_a_chance_and_not_as_a_part_of_a_sandbox() -> None:
    found = incident(1, rates(200, 0.5), [Part("propagation", fixed(1), "given")])
    assert (found.punched.p50, found.punched.p99) == (0, 1)
    assert found.punched.any == pytest.approx(1 - math.exp(-200 * 0.5 / 3600), rel=1e-6)


def test_a_delay_of_each_node_spares_the_sandboxes_of_fast_nodes() -> None:
    """Each node obeys after 0 to 60 s, evenly: a sandbox is spared with (1 - 1/e) at a pause a minute."""
    alone = [Part("propagation", Delay(((0.0, 0.0), (1.0, 60.0))), "given", per_node=True)]
    found = incident(50, rates(100, 60), alone, nodes=20)
    assert found.punched.mean == pytest.approx(100 * (1 - (1 - math.exp(-1))), rel=1e-3)
    assert found.obeyed[0] == pytest.approx(60 * 0.5 ** (1 / 20), abs=0.05)


def test_the_common_delay_spreads_the_count_more_than_a_delay_of_each_node() -> None:
    even = Delay(((0.0, 0.0), (1.0, 60.0)))
    common = incident(50, rates(1000, 60), [Part("propagation", even, "given")])
    alone = incident(50, rates(1000, 60), [Part("propagation", even, "given", per_node=True)])
    assert common.punched.mean == pytest.approx(alone.punched.mean, rel=1e-3)
    assert common.punched.p99 is not None
    assert alone.punched.p99 is not None
    assert common.punched.p99 > alone.punched.p99 + 150
    assert common.punched.p99 == pytest.approx(1000 * (1 - math.exp(-0.99)), rel=0.03)


def test_what_was_not_given_is_unknown_from_where_it_is_needed() -> None:
    part = Part("propagation", Delay(((0.0, 0.0), (0.5, 1.0), (0.95, 10.0))), "given")
    found = incident(10, rates(10, 60), [part])
    assert (round(found.obeyed[0] or 0, 2), found.obeyed[1]) == (1.0, None)
    assert (found.punched.p99, found.punched.mean, found.punched.any) == (None, None, None)
    assert found.punched.p50 is not None


def test_unlike_rates_are_counted_as_a_simulation_counts_them() -> None:
    draw = np.random.default_rng(5)
    unlike = np.exp(draw.normal(-7, 1, 300))
    parts = [Part("decision", Delay(((0.0, 60.0), (0.9, 600.0), (1.0, 1800.0))), "assumed")]
    found = incident(10, unlike, parts)
    seconds = np.interp(draw.random(20_000), (0.0, 0.9, 1.0), (60.0, 600.0, 1800.0))
    counted = (draw.random((20_000, 300)) < 1 - np.exp(-np.outer(seconds, unlike))).sum(axis=1)
    assert found.punched.mean == pytest.approx(counted.mean(), rel=0.01)
    assert found.punched.p50 == pytest.approx(np.quantile(counted, 0.5), abs=1)
    assert found.punched.p99 == pytest.approx(np.quantile(counted, 0.99), abs=3)


def test_forty_thousand_sandboxes_take_less_than_a_second_a_stage() -> None:
    unlike = np.exp(np.random.default_rng(1).normal(-9, 1, 40_000))
    began = time.perf_counter()
    found = incident(100, unlike, [*MINUTE, Part("propagation", Delay(((0.0, 0.0), (1.0, 60.0))), "given")])
    assert found.exposed == 40_000
    assert time.perf_counter() - began < 3
