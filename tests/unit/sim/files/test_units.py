"""Sizes, shares and durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.files.units import format_size, parse_duration, parse_percent, parse_size


@pytest.mark.parametrize(("text", "size"), [("4KiB", 4096), ("32MiB", 33554432), ("1GiB", 1 << 30), ("0MiB", 0)])
def test_a_size_is_a_number_of_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["32", "32MB", "32 MiB", "1.5MiB", "-1MiB", "MiB", "", "1TiB", "32MiB\n", "٣MiB"])
def test_what_is_not_whole_binary_units_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size such as 32MiB"):
        parse_size(text)


@given(st.integers(min_value=1, max_value=1 << 20), st.sampled_from([1 << 10, 1 << 20, 1 << 30]))
def test_a_formatted_size_reads_back_exactly(number: int, unit: int) -> None:
    assert parse_size(format_size(number * unit)) == number * unit


def test_a_size_of_no_whole_unit_is_shown_in_bytes() -> None:
    assert [format_size(size) for size in (0, 513, 5120)] == ["0B", "513B", "5KiB"]


@pytest.mark.parametrize(("text", "percent"), [("40%", 40.0), ("0%", 0.0), ("100%", 100.0), ("0.001%", 0.001)])
def test_a_share_is_in_percent(text: str, percent: float) -> None:
    assert parse_percent(text) == percent


@pytest.mark.parametrize("text", ["40", "0.4", "-1%", "%", "1e1%", "40 %", "101%", "100.001%"])
def test_what_is_no_share_of_a_whole_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a share"):
        parse_percent(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("3s", 3.0), ("1.5s", 1.5), ("2m", 120.0), ("1h", 3600.0)]
)
def test_a_duration_is_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["3", "3 s", "1:30", "-3s", "3sec", "s"])
def test_a_duration_without_a_known_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as 250ms"):
        parse_duration(text)
