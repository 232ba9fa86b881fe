"""`peak_bounded`: 8 MiB with punching, the dirty bytes and 8 MiB without."""

from __future__ import annotations

from typing import Any

import pytest

from engine import events as copying
from sim.record import events
from tests.story import MIB, Story

PUNCHED = {"punch": True}
KEPT = {"punch": False}
CANNOT_PUNCH = {"punch": True, "punch_error": "Operation not permitted"}
NOT_CONDEMNED = {"punch": True, "condemn_error": "No space left"}
BOUNDS = pytest.mark.parametrize(
    ("how", "bound"),
    [(PUNCHED, 8 * MIB), (KEPT, 28 * MIB), (CANNOT_PUNCH, 28 * MIB), (NOT_CONDEMNED, 28 * MIB)],
    ids=["punched", "kept", "cannot punch", "not condemned"],
)


@BOUNDS
def test_the_bound_holds_to_the_byte(story: Story, how: dict[str, Any], bound: int) -> None:
    story.freeze().settle(dirty_bytes=20 * MIB, peak_over=bound, **how)
    found = story.found("peak_bounded")
    assert (found.checked, found.violations) == (1, [])


@BOUNDS
def test_one_byte_more_is_caught_with_both_figures(story: Story, how: dict[str, Any], bound: int) -> None:
    story.freeze().settle(dirty_bytes=20 * MIB, peak_over=bound + 1, **how)
    assert story.found("peak_bounded").violations == [
        {
            "sandbox": "web-0",
            "code": "above",
            "reason": f"the pause took {bound + 1} bytes beyond its guest, more than {bound}",
            "incarnation": "web-0.1",
            "pause": "web-0.p1",
        }
    ]


def test_a_peak_that_is_missing_is_looked_for_at_the_chunks(story: Story) -> None:
    story.begin_pause().copy().finish(peak_over=None).end()
    assert story.missing("peak_bounded") == ["missing evidence: the peak of web-0.p1 is known at its chunks only"]
    high = story.changed(copying.ChunkPublished, cache_resident=20 * MIB)
    assert "beyond its guest" in high.reasons("peak_bounded")[0]
    none = story.without(copying.ChunkPublished)
    assert none.missing("peak_bounded") == ["missing evidence: no peak of web-0.p1"]


@pytest.mark.parametrize("restarted", [True, False])
def test_a_pause_that_the_nodes_death_cut_off_owes_no_peak(story: Story, restarted: bool) -> None:
    story.begin_pause().publish(0).tell(events.NodeCrashed(10), None)
    if restarted:
        story.settle(outcome="rolled-back", peak_over=None)
    assert story.end().missing("peak_bounded") == []


def test_a_pause_without_a_memfd_has_no_peak(story: Story) -> None:
    story.settle(peak_over=None, path="process")
    story.settle("web-0.p2", peak_over=None, path=None, outcome="refused").end()
    found = story.found("peak_bounded")
    assert (found.checked, found.missing) == (0, [])


def test_a_pause_that_reports_less_than_its_chunks_show_is_caught(story: Story) -> None:
    story.begin_pause().copy().finish(peak_over=MIB).end()
    assert story.found("peak_bounded").violations == []
    high = story.changed(copying.ChunkPublished, cache_resident=20 * MIB)
    assert high.reasons("peak_bounded") == [f"the pause took {20 * MIB} bytes beyond its guest, more than {8 * MIB}"]


def test_a_discarded_pause_that_had_a_plan_owes_its_peak(story: Story) -> None:
    story.begin_pause().settle(outcome="discarded", peak_over=None)
    assert story.end().missing("peak_bounded") == ["missing evidence: no peak of web-0.p1"]


@pytest.mark.parametrize("failed", [copying.PunchFailed(0, "EIO"), copying.CondemnFailed("ENOSPC"), None])
def test_a_failure_counts_though_its_node_died_before_the_pause_had_settled(
    story: Story, failed: copying.Event | None
) -> None:
    story.begin_pause().publish(0)
    if failed is not None:
        story.tell(failed, pause="web-0.p1")
    story.publish(5)  # 12 MiB are in the cache, and nothing is freed
    story.tell(events.NodeCrashed(10), None).tell(events.NodeStarted(12, 1, 11, 1, recovered=True), None)
    story.settle(outcome="finished", punched_bytes=0, peak_over=None, salvage="whole")
    caught = [f"the pause took {12 * MIB} bytes beyond its guest, more than {8 * MIB}"]
    assert story.end().reasons("peak_bounded") == (caught if failed is None else [])
