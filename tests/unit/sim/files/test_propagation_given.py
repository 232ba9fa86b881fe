from __future__ import annotations

import pytest
from pydantic import ValidationError

from sim.files.propagation import Propagation, percentile


def test_what_nobody_gave_is_assumed_and_what_was_measured_says_so() -> None:
    assert Propagation().origin == "assumed"
    assert Propagation(p50=0.2, most=30.0).origin == "given"
    assert Propagation(measured=(0.1, 0.4)).origin == "measured"
    assert Propagation(measured=(0.4, 0.1)).points() == [(0.0, 0.1), (1.0, 0.4)]


def test_percentiles_that_fall_are_refused() -> None:
    with pytest.raises(ValidationError, match="less than a lower one"):
        Propagation(p50=2.0, p99=1.0)


def test_a_percentile_of_values_is_by_nearest_rank() -> None:
    assert [percentile([1.0, 2.0, 3.0, 4.0], share) for share in (1, 25, 26, 99)] == [1.0, 1.0, 2.0, 4.0]
