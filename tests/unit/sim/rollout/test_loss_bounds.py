from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.rollout.bounds import Stratum, at_most, needed, poisson_limit, stratified_bound, upper_bound


@pytest.mark.parametrize(("lost", "sandboxes"), [(0, 598), (1, 947), (2, 1258)])
def test_half_a_percent_at_95_percent_takes_598_947_or_1258_sandboxes(lost: int, sandboxes: int) -> None:
    assert needed(lost, 0.005) == sandboxes
    assert upper_bound(lost, sandboxes) <= 0.005 < upper_bound(lost, sandboxes - 1)


def test_no_loss_of_fifteen_shows_less_than_18_1_percent_and_of_twelve_less_than_22_1() -> None:
    assert upper_bound(0, 15) == pytest.approx(1 - 0.05 ** (1 / 15))
    assert [round(upper_bound(0, n), 3) for n in (12, 15, 620)] == [0.221, 0.181, 0.005]


def test_one_loss_of_three_is_bounded_where_at_most_one_is_as_rare_as_the_doubt() -> None:
    # (1-p)^3 + 3 p (1-p)^2 = 0.05 has its root at 0.8646
    assert upper_bound(1, 3) == pytest.approx(0.86465, abs=1e-5)


def test_nobody_tried_or_everybody_lost_rules_nothing_out() -> None:
    assert (upper_bound(0, 0), upper_bound(4, 4)) == (1.0, 1.0)


def test_a_rate_that_no_number_of_sandboxes_can_rule_out_is_refused() -> None:
    for rate in (0.0, 1.0, 1e-12):
        with pytest.raises(ValueError, match="rate"):
            needed(0, rate)


def test_poisson_limits_are_those_of_the_tables() -> None:
    assert [round(poisson_limit(lost), 3) for lost in (0, 1, 2)] == [2.996, 4.744, 6.296]


def test_a_sample_in_proportion_is_bounded_as_one_sample() -> None:
    even = [Stratum(0.25, 150), Stratum(0.75, 450)]
    assert stratified_bound(even) == pytest.approx(upper_bound(0, 600))


def test_a_stratum_with_few_tries_bounds_the_whole_by_its_share_of_a_try() -> None:
    uneven = [Stratum(0.9, 30), Stratum(0.1, 90)]
    assert stratified_bound(uneven) == pytest.approx(-math.log(0.05) * 0.9 / 30)
    assert stratified_bound([Stratum(0.9, 30, 1), Stratum(0.1, 90)]) == pytest.approx(4.7439 * 0.9 / 30, rel=1e-4)


def test_a_stratum_that_was_never_tried_may_be_lost_as_a_whole() -> None:
    assert stratified_bound([Stratum(0.5, 10_000), Stratum(0.5, 0)]) > 0.5
    assert stratified_bound([Stratum(1.0, 0)]) == 1.0


@given(st.integers(0, 5), st.integers(6, 400), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_bound_is_where_the_losses_seen_are_exactly_as_rare_as_the_doubt(
    lost: int, exposed: int, confidence: float
) -> None:
    assert at_most(lost, exposed, upper_bound(lost, exposed, confidence)) == pytest.approx(1 - confidence, rel=1e-6)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 60)), min_size=2, max_size=5))
def test_no_loss_of_a_stratified_sample_is_likelier_than_the_doubt_beyond_its_bound(
    drawn: list[tuple[int, int]],
) -> None:
    whole = sum(size for size, _ in drawn)
    strata = [Stratum(size / whole, tries) for size, tries in drawn]
    bound = stratified_bound(strata)
    worst = max(strata, key=lambda each: each.share / each.exposed)
    rate = min(1.0, bound / worst.share)  # all losses where they are seen least
    assert (1 - rate) ** worst.exposed <= 0.05 + 1e-9
