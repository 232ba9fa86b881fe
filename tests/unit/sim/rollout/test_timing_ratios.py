from __future__ import annotations

import random
from itertools import pairwise

import pytest

from sim.files.plan import Metric
from sim.rollout.analysis import Arms, Outcome, Pair, measure, pairs, ranks, ratio
from sim.rollout.stretch import Figures, PauseCost


def cost(nth: int, ms: float, *, on: bool = True, began: float = 0.0, sandbox: str = "a") -> PauseCost:
    return PauseCost(sandbox, nth, began, on, on, copy_ms=ms, blocked_ms=ms)


def compared(*ratios: float, on_first: bool) -> list[Pair]:
    began = 0.0 if on_first else 2.0
    return [Pair(cost(n, each, began=began), cost(n, 1.0, on=False, began=1.0)) for n, each in enumerate(ratios)]


def measured(asked: str, *known: Pair) -> tuple[Outcome, str]:
    metric = Metric.model_validate({"name": "copy_p50_ratio", "successCondition": asked}, context={})
    found = measure(metric, Arms(Figures(), Figures(), 1, pairs=tuple(known)))
    return found.outcome, found.why


SIX = (0.9, 1.0, 1.0, 1.1, 1.2, 1.3)
EVEN = (*compared(*SIX, on_first=True), *compared(*SIX, on_first=False))


def test_a_pause_is_compared_with_the_same_one_where_the_flag_was_on() -> None:
    on = [cost(0, 1.0), cost(1, 2.0, on=False), cost(2, 3.0), cost(0, 4.0, sandbox="b")]
    off = [cost(0, 5.0, on=False), cost(1, 6.0, on=False), cost(0, 7.0, on=False, sandbox="b")]
    assert [(each.on.copy_ms, each.off.copy_ms) for each in pairs(on, off)] == [(1.0, 5.0), (4.0, 7.0)]


def test_the_median_has_a_band_and_the_band_reaches_what_each_order_gives() -> None:
    even = ratio(EVEN, "copy_ms", 50)
    assert (even.value, even.low, even.high) == (1.0, 1.0, 1.2)
    slow_second = ratio([*compared(*[1.0] * 20, on_first=True), *compared(*[2.0] * 6, on_first=False)], "copy_ms", 50)
    assert (slow_second.value, slow_second.low, slow_second.high) == (1.0, 1.0, 2.0)


def test_too_few_pauses_or_all_in_one_order_give_no_ratio() -> None:
    few = ratio(compared(*SIX, on_first=True), "copy_ms", 50)
    assert (few.value, few.why) == (
        None,
        "6 exposed pauses to compare, 0 of them in one order of the arms: it takes 12, 6 in each",
    )
    assert ratio([], "copy_ms", 50).why.startswith("0 exposed pauses to compare")
    assert "it takes 86" in ratio(EVEN, "copy_ms", 95).why


@pytest.mark.parametrize(
    ("asked", "outcome", "why"),
    [
        ("result <= 1.5", Outcome.SUCCESSFUL, ""),
        ("result <= 0.5", Outcome.FAILED, ""),
        ("result <= 1.1", Outcome.INCONCLUSIVE, "its noise band is 1.00 to 1.20, of 12 pauses"),
    ],
)
def test_a_condition_is_conclusive_where_the_whole_band_is_on_one_side_of_it(
    asked: str, outcome: Outcome, why: str
) -> None:
    assert measured(asked, *EVEN) == (outcome, why)


def test_arms_that_took_no_turns_cannot_be_compared() -> None:
    metric = Metric.model_validate({"name": "copy_p50_ratio", "successCondition": "result <= 2"}, context={})
    found = measure(metric, Arms(Figures(), Figures(), 1, pairs=None))
    assert (found.outcome, found.value) == (Outcome.INCONCLUSIVE, None)
    assert "took no turns" in found.why


def test_ranks_hold_the_median_as_often_as_they_say() -> None:
    assert (ranks(5, 0.5, 0.05), ranks(6, 0.5, 0.05), ranks(27, 0.5, 0.05)) == (None, (1, 6), (8, 20))
    draw = random.Random(1)
    held = 0
    for _ in range(2000):
        values = sorted(draw.random() for _ in range(27))
        held += values[7] <= 0.5 <= values[19]
    assert held >= 0.94 * 2000


def test_more_pauses_give_no_wider_share_of_ranks() -> None:
    widths = [
        (high - low) / count
        for count in range(10, 200, 30)
        if (found := ranks(count, 0.5, 0.05))
        for low, high in [found]
    ]
    assert all(later < before for before, later in pairwise(widths))
