"""A fleet at its scale, and the way back to production's units."""

from __future__ import annotations

import pathlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.files.fleet import sandbox_specs
from sim.files.fleet_file import Fleet, load
from sim.files.fleet_scale import at_scale, shares

EXAMPLE = load(pathlib.Path(__file__).parents[4] / "scenarios" / "fleets" / "example.yaml")


def scaled_to(scale: Fraction) -> Fleet:
    return EXAMPLE.model_copy(update={"scale": scale})


def test_one_node_is_rehearsed_with_its_sizes_divided() -> None:
    scaled = at_scale(EXAMPLE)
    assert (scaled.sandboxes, scaled.node.memory) == (40, 1 << 30)
    assert sorted({each.memory >> 20 for each in scaled.groups if each.template != "python"}) == [16, 32, 64]


@given(st.integers(1, 400))
def test_every_sandbox_that_is_asked_for_is_there_once(count: int) -> None:
    scaled = at_scale(EXAMPLE, count)
    specs = sandbox_specs(scaled.groups)
    assert len({spec.name for spec in specs}) == len(specs) == count
    assert all(spec.memory % spec.page_size == 0 for spec in specs)


@given(st.integers(1, 10_000))
def test_groups_get_their_share_to_within_one(count: int) -> None:
    dealt = shares(EXAMPLE, count)
    assert sum(share for _, share in dealt) == count
    assert all(abs(share - group.count * count / EXAMPLE.count) < 1 for group, share in dealt)


def test_the_mean_size_is_the_fleets_at_any_scale() -> None:
    specs = sandbox_specs(at_scale(scaled_to(Fraction(1, 4)), 1000).groups)
    web = [spec.memory * 4 for spec in specs if spec.template == "python"]
    assert sum(web) / len(web) == pytest.approx(722 * 2**20, rel=0.02)


def test_results_come_back_in_productions_units_and_say_what_they_rest_on() -> None:
    scaled = at_scale(EXAMPLE)
    peak = scaled.in_bytes("peak", 700 << 20)
    assert (peak.value, peak.known, peak.note) == (700 * 64 << 20, "derived", "measured at 1/64")
    lost = scaled.in_sandboxes("lost", 2)
    assert (lost.value, lost.known, lost.note) == (50_000, "derived", "measured 2 of 40 rehearsed")


def test_at_full_scale_bytes_are_what_was_measured() -> None:
    assert at_scale(scaled_to(Fraction(1)), 4).in_bytes("peak", 5).known == "measured"


def test_what_the_scale_cannot_show_is_said() -> None:
    assert "chunks do not scale" in at_scale(EXAMPLE).notes[0]
    assert at_scale(EXAMPLE, 2).notes[-1] == "2 sandboxes are too few to include every group: none of huge"
    assert at_scale(scaled_to(Fraction(1))).notes == ()
