"""What a restarted node is given of the ledger: the pause that its sandbox was last sent into, and no older one."""

from __future__ import annotations

import pytest

from sim.node.config import Ended, Known
from sim.record import events
from sim.run.node_start import known
from tests.story import Story, decided


def known_of(story: Story) -> Known:
    return known(story.sandbox(), story.entries)


@pytest.fixture
def resumed() -> Story:
    """It runs with its second guest, from a build whose pause is recorded as finished."""
    return Story().begin().pause().resume()


def test_a_pause_that_has_settled_is_how_it_ended(resumed: Story) -> None:
    found = known_of(resumed)
    assert (found.ended, found.open_pause, found.pauses) == (Ended("web-0.p1", "finished", True), None, 1)


@pytest.mark.parametrize("state", ["pausing", "checkpointing"])
def test_a_pause_without_a_line_is_not_the_one_before(resumed: Story, state: str) -> None:
    found = known_of(resumed.go("running", state))
    assert (found.state, found.ended, found.open_pause, found.build) == (state, None, None, "web-0.p1")


def test_a_pause_that_is_under_way_is_the_open_one(resumed: Story) -> None:
    found = known_of(resumed.begin_pause("web-0.p2", "web-0.2"))
    assert found.open_pause is not None
    assert (found.open_pause.id, found.ended, found.pauses) == ("web-0.p2", None, 2)


def test_a_pause_whose_outcome_could_not_be_recorded_is_open_until_the_next_one_begins(resumed: Story) -> None:
    lost = resumed.without(events.PauseSettled)
    found = known_of(lost)
    assert found.open_pause is not None
    assert found.open_pause.id == "web-0.p1"
    assert known_of(lost.go("running", "pausing")).open_pause is None


@pytest.mark.parametrize(
    ("outcome", "changes", "consumed"),
    [
        ("finished", {"checkpoint": True, "consumed": False}, False),
        ("finished", {"checkpoint": True, "consumed": True}, True),
        ("finished", {"checkpoint": True}, False),
        ("rolled-back", {}, True),
    ],
)
def test_how_it_ended_says_whether_its_guest_was_to_end(
    resumed: Story, outcome: str, changes: dict[str, bool], consumed: bool
) -> None:
    resumed.begin_pause("web-0.p2", "web-0.2").settle("web-0.p2", outcome=outcome, **changes)
    assert known_of(resumed).ended == Ended("web-0.p2", outcome, consumed)


def test_a_pause_that_left_no_line_gives_its_number_to_no_other(resumed: Story) -> None:
    """The second had no line in the ledger, so the third would be made again, over its own build."""
    resumed.go("running", "pausing").tell(decided(), pause="web-0.p3")
    assert known_of(resumed).pauses == 3
