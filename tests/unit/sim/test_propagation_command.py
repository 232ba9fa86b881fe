"""What `snapdrill flags propagation` prints of the times that it measured."""

from __future__ import annotations

import pytest

from sim.flag_commands.propagation import as_document, distribution, measured, report


def test_a_distribution_is_of_what_was_obeyed() -> None:
    times: list[float | None] = [each / 1000 for each in range(1, 101)]
    expected = {"min": 0.001, "median": 0.0505, "p99": 0.099, "max": 0.1}
    assert distribution([*times, None]) == pytest.approx(expected)
    assert distribution([None, None]) is None
    assert distribution([0.5]) == {"min": 0.5, "median": 0.5, "p99": 0.5, "max": 0.5}


def test_each_way_is_a_line_and_what_was_given_up_says_so() -> None:
    lines = report({"stream": [0.001, 0.003], "half-open": [None, None]}, lease=0.5)
    assert "2/2    1.0 ms    2.0 ms    3.0 ms    3.0 ms" in lines[2]
    assert "0/2   not within 1 s; the SDK says VALID and notices after 300 s (given)" in lines[3]


def test_the_document_has_every_round_and_null_where_it_was_given_up() -> None:
    document = as_document({"file": [0.25], "half-open": [None]})
    assert document["file"] == {"seconds": [0.25], "min": 0.25, "median": 0.25, "p99": 0.25, "max": 0.25}
    assert document["half-open"] == {"seconds": [None]}


def test_every_way_is_measured_and_a_lease_bounds_half_open() -> None:
    times = measured(rounds=1, lease=0.3)
    assert list(times) == ["file", "stream", "half-open with lease", "half-open"]
    assert times["half-open"] == [None]
    assert all(times[way] != [None] for way in ("file", "stream", "half-open with lease"))
