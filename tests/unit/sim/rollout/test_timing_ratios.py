from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sim.files.plan import Metric
from sim.rollout.analysis import Arms, MetricOutcome, Pair, interval_words, measure, pairs, ratio
from sim.rollout.stretch import Figures, PauseCost


def cost(nth: int, ms: float, *, on: bool = True, sandbox: str = "a") -> PauseCost:
    return PauseCost(sandbox, nth, 0.0, on, on, copy_ms=ms, blocked_ms=ms)


def compared(*rounds: tuple[float, ...]) -> list[Pair]:
    """The ratios of each round."""
    return [
        Pair(cost(nth, each, sandbox=f"s{n}"), cost(nth, 1.0, on=False, sandbox=f"s{n}"))
        for nth, ratios in enumerate(rounds)
        for n, each in enumerate(ratios)
    ]


SIX = compared((0.9,), (1.0,), (1.0, 1.1, 9.0), (1.1,), (1.2,), (1.3,))


def measured(asked: str, *known: Pair) -> tuple[MetricOutcome, str]:
    metric = Metric.model_validate({"name": "copy_p50_ratio", "successCondition": asked}, context={})
    found = measure(metric, Arms(Figures(), Figures(), 1, pairs=tuple(known)))
    return found.outcome, found.why


def test_a_pause_is_compared_with_the_same_one_where_the_flag_was_on() -> None:
    on = [cost(0, 1.0), cost(1, 2.0, on=False), cost(2, 3.0), cost(0, 4.0, sandbox="b")]
    off = [cost(0, 5.0, on=False), cost(1, 6.0, on=False), cost(0, 7.0, on=False, sandbox="b")]
    assert [(each.on.copy_ms, each.off.copy_ms) for each in pairs(on, off)] == [(1.0, 5.0), (4.0, 7.0)]


def test_a_round_counts_once_by_its_median_however_many_pauses_it_has() -> None:
    found = ratio(SIX, "copy_ms", 50).interval
    assert found is not None
    assert (found.rounds, round(found.low, 9), round(found.high, 9)) == (6, 0.9, 1.3)
    assert found.value == pytest.approx(1.1, abs=0.03)
    assert interval_words(found).startswith("6 rounds, 96.9 %, lag-1 0.")


def test_fewer_than_six_rounds_give_no_ratio_and_say_so() -> None:
    few = ratio([*compared(*[(1.0, 1.2, 1.3)] * 5)], "copy_ms", 50)
    assert (few.interval, few.rounds, few.why) == (None, 5, "5 exposed rounds: it takes 6")
    assert ratio([], "copy_ms", 50).why == "0 exposed rounds: it takes 6"


def test_a_95th_percentile_is_of_each_arms_times_in_rounds_of_twenty() -> None:
    assert ratio(SIX, "copy_ms", 95).why == "0 exposed rounds with 20 exposed pauses: it takes 6"
    slow = [tuple([1.0] * 18 + [1.5, 3.0])] * 7
    found = ratio(compared(*slow), "copy_ms", 95).interval
    assert found is not None
    assert (round(found.low, 9), round(found.value, 9), round(found.high, 9)) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize(
    ("asked", "outcome", "why"),
    [
        ("result <= 1.5", MetricOutcome.SUCCESSFUL, ""),
        ("result <= 0.5", MetricOutcome.FAILED, ""),
        ("result <= 1.1", MetricOutcome.INCONCLUSIVE, "its interval is 0.90 to 1.30: 6 rounds, 96.9 %, lag-1 "),
    ],
)
def test_a_condition_is_conclusive_where_the_whole_interval_is_on_one_side_of_it(
    asked: str, outcome: MetricOutcome, why: str
) -> None:
    found, said = measured(asked, *SIX)
    assert found is outcome
    assert said.startswith(why)
    assert bool(said) is bool(why)


def test_arms_that_took_no_turns_cannot_be_compared() -> None:
    metric = Metric.model_validate({"name": "copy_p50_ratio", "successCondition": "result <= 2"}, context={})
    found = measure(metric, Arms(Figures(), Figures(), 1, pairs=None))
    assert (found.outcome, found.value) == (MetricOutcome.INCONCLUSIVE, None)
    assert "took no turns" in found.why


def test_the_estimate_lies_in_its_interval_and_doubling_one_arm_doubles_both() -> None:
    rounds = [tuple(math.exp(math.sin(n * 7 + k) / 3) for k in range(9)) for n in range(10)]
    one = ratio(compared(*rounds), "copy_ms", 50).interval
    other = ratio(compared(*[tuple(2 * each for each in round_) for round_ in rounds]), "copy_ms", 50).interval
    assert one is not None
    assert other is not None
    assert one.low <= one.value <= one.high
    assert (other.low, other.value, other.high) == pytest.approx((2 * one.low, 2 * one.value, 2 * one.high))


def test_cpu_is_compared_in_pairs_as_times_are() -> None:
    metric = Metric.model_validate({"name": "cpu_ratio", "successCondition": "result <= 2"}, context={})
    known = [
        Pair(replace(cost(nth, 1.0), cpu_seconds=1.2), replace(cost(nth, 1.0, on=False), cpu_seconds=1.0))
        for nth in range(6)
    ]
    found = measure(metric, Arms(Figures(), Figures(), 1, pairs=tuple(known)))
    assert found.outcome is MetricOutcome.SUCCESSFUL
    assert found.value == pytest.approx(1.2)
