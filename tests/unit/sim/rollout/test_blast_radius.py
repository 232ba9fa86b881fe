from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sim.files.propagation import Propagation, blast_radius, percentile


def test_the_blast_radius_is_fleet_weight_rate_and_propagation() -> None:
    radius = blast_radius(20_000, 10.0, 600.0, [2.0] * 100)
    assert (radius.p50, radius.p99) == (2.0, 2.0)  # 10 pauses a second, a tenth of them exposed, for two seconds


def test_nobody_is_reached_at_weight_0() -> None:
    assert blast_radius(20_000, 0.0, 600.0, [300.0]).p99 == 0.0


def test_no_more_than_the_exposed_can_be_reached() -> None:
    assert blast_radius(100, 10.0, 6000.0, [3600.0]).p99 == 10.0


@given(st.floats(0, 100), st.floats(0.1, 1e4), st.lists(st.floats(0, 600), min_size=1, max_size=50))
def test_a_later_percentile_reaches_no_fewer(weight: float, rate: float, seconds: list[float]) -> None:
    radius = blast_radius(1000, weight, rate, sorted(seconds))
    assert radius.p50 <= radius.p99 <= 1000 * weight / 100 + 1e-9


def test_draws_follow_the_table_that_is_given() -> None:
    table = Propagation(p50=0.2, p95=1.0, p99=5.0, most=30.0)
    drawn = table.draw(7, "plan")
    assert percentile(drawn, 50) == pytest.approx(0.2, rel=0.2)
    assert max(drawn) <= 30.0
    assert table.origin == "given"


def test_the_same_seed_draws_the_same() -> None:
    assert Propagation().draw(7, "plan") == Propagation().draw(7, "plan")
    assert Propagation().draw(7, "plan") != Propagation().draw(8, "plan")


def test_what_nobody_gave_is_assumed_and_what_was_measured_says_so() -> None:
    assert Propagation().origin == "assumed"
    assert Propagation(measured=(0.1, 0.4)).origin == "measured"
    assert max(Propagation(measured=(0.1, 0.4)).draw(1, "x")) <= 0.4


def test_percentiles_that_fall_are_refused() -> None:
    with pytest.raises(ValidationError, match="less than a lower one"):
        Propagation(p50=2.0, p99=1.0)
