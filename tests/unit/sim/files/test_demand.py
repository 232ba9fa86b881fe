from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from sim.files.demand import Bound, Demand, DurationSpan, Incident, parse_bound


def test_a_bound_is_a_share_and_a_confidence() -> None:
    assert parse_bound("< 0.5 % at 95 %") == Bound(0.005, 0.95)
    assert parse_bound("<1% at 99.9%") == Bound(0.01, 0.999)
    assert str(Bound(0.005, 0.95)) == "< 0.5 % at 95 %"


@pytest.mark.parametrize(
    "text", ["0.5 % at 95 %", "<= 0.5 % at 95 %", "< 0.5 at 95", "< 0 % at 95 %", "< 1 % at 100 %", "< 1 % at 20 %", 5]
)
def test_what_no_number_of_sandboxes_can_show_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="expected a"):
        parse_bound(text)


def test_a_demand_is_for_the_last_stage_unless_it_says_which() -> None:
    written = {"lost_because_of_the_flag": "< 0.5 % at 95 %"}
    assert Demand.model_validate(written, context={}).at == 100
    assert Demand.model_validate(written | {"at": "25%"}, context={}).at == 25
    with pytest.raises(ValidationError):
        Demand.model_validate(written | {"at": 0}, context={})


def test_a_span_is_a_duration_percentiles_or_what_was_measured() -> None:
    assert DurationSpan.model_validate("5m", context={}).points() == [(0.0, 300.0), (1.0, 300.0)]
    assert DurationSpan.model_validate({"p50": "1s", "most": "9s"}, context={}).points() == [
        (0.0, 0.0),
        (0.5, 1.0),
        (1.0, 9.0),
    ]
    measured = DurationSpan.model_validate({"measured": ["3s", "1s", "2s"]}, context={})
    assert (measured.points(), measured.origin) == ([(0.0, 1.0), (0.5, 2.0), (1.0, 3.0)], "measured")
    assert DurationSpan.model_validate({"measured": ["4s"]}, context={}).points() == [(0.0, 4.0), (1.0, 4.0)]


@pytest.mark.parametrize("written", [{}, {"always": "1s", "p50": "1s"}, {"p50": "9s", "p99": "1s"}, "soon"])
def test_a_span_that_says_nothing_two_things_or_falls_is_refused(written: Any) -> None:
    with pytest.raises(ValidationError):
        DurationSpan.model_validate(written, context={})


def test_an_incident_is_written_in_the_words_of_a_plan() -> None:
    found = Incident.model_validate({"detection": "5m", "inFlight": "2s", "lossRate": "0.5%"}, context={})
    assert found.in_flight is not None
    assert (found.in_flight.always, found.loss_rate, found.common) == (2.0, 0.5, None)
