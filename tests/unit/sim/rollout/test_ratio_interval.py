from __future__ import annotations

import math
from itertools import combinations_with_replacement

import numpy as np
import pytest

from sim.rollout.ratio_interval import _rank, lag1, ratio_interval


def test_five_rounds_give_no_interval() -> None:
    assert ratio_interval([0.0] * 5) is None


@pytest.mark.parametrize(
    ("rounds", "rank", "level"),
    # of tables of the signed-rank distribution: P(T <= rank - 1) = 1/64, 3/128, 21/1024, 1,684/65,536
    [(6, 1, 1 - 2 / 64), (7, 3, 1 - 6 / 128), (8, 4, 1 - 10 / 256), (10, 9, 1 - 50 / 1024)],
)
def test_ranks_and_levels_are_those_of_the_signed_rank_tables(rounds: int, rank: int, level: float) -> None:
    found, said = _rank(rounds)
    assert (found, round(said, 9)) == (rank, round(level, 9))


def test_six_rounds_reach_from_the_least_to_the_largest_round() -> None:
    found = ratio_interval([math.log(each) for each in (1.0, 1.1, 1.2, 1.3, 1.4, 2.0)])
    assert found is not None
    assert (found.rounds, round(found.low, 6), round(found.high, 6), found.level) == (6, 1.0, 2.0, 0.96875)
    assert 1.2 < found.value < 1.4


def test_neighbours_that_are_alike_correlate_and_those_that_alternate_do_so_below_zero() -> None:
    assert lag1([1, 1, 1, -1, -1, -1]) == pytest.approx(3 / 6)
    assert lag1([1, -1, 1, -1]) == pytest.approx(-3 / 4)
    assert lag1([2.0, 2.0]) == 0.0


@pytest.mark.parametrize("rounds", [6, 8, 11, 15, 20])
def test_the_interval_holds_the_true_ratio_in_93_to_97_percent_of_rehearsals(rounds: int) -> None:
    draw, tries = np.random.default_rng(rounds), 4000
    pauses = draw.normal(0.3, 0.4, (tries, rounds, 9)) + draw.normal(0.0, 0.2, (tries, rounds, 1))
    medians = np.median(pauses, axis=2)
    first, second = map(list, zip(*combinations_with_replacement(range(rounds), 2), strict=True))
    averages = np.sort((medians[:, first] + medians[:, second]) / 2, axis=1)
    rank, level = _rank(rounds)
    held = ((averages[:, rank - 1] <= 0.3) & (averages[:, -rank] >= 0.3)).mean()
    assert 0.93 <= held <= 0.975, f"held in {held:.1%}, said {level:.1%}"
    one = ratio_interval(medians[0].tolist())
    assert one is not None
    assert (math.log(one.low), math.log(one.high)) == pytest.approx((averages[0, rank - 1], averages[0, -rank]))
