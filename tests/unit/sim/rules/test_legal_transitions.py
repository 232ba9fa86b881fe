"""`legal_transitions`: a ledger is walked edge by edge, each beginning where the last one ended."""

from __future__ import annotations

import pytest

from engine import events as copying
from engine.events import Event
from sim.record import events
from sim.record.verdict import Verdict
from tests.story import MIB, Story, created, settled

NAME = "legal_transitions"


def test_a_whole_life_is_right(story: Story) -> None:
    story.go("running", "pausing", "running").pause()
    found = story.go("paused", "resuming", "running", "killed").found(NAME)
    assert (found.checked, found.violations) == (8, [])


def test_lives_that_mingle_are_walked_one_by_one(story: Story) -> None:
    story.tell(created(), "web-1").go("created", "running", "pausing", sandbox="web-1")
    story.go("running", "killed").go("pausing", "discarded", sandbox="web-1")
    found = story.found(NAME)
    assert (found.checked, found.violations) == (5, [])


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        (("running", "pausing", "discarded", "running"), "it went from discarded to running"),
        (("running", "paused"), "it went from running to paused"),
        (("running", "killed", "killed"), "it went from killed to killed"),
        (("running", "pausing", "asleep"), "it went from pausing to asleep"),
    ],
)
def test_a_step_that_is_no_edge_is_caught(story: Story, states: tuple[str, ...], reason: str) -> None:
    assert story.go(*states).reasons(NAME) == [reason]


PAUSED = "it went from {} to paused, and no pause that began meanwhile was finished or answered"
ENDS = [
    settled("web-0.p2"),
    events.PauseReturned(1.0, condemned=True),
    copying.Stranded("web-0.p2", 1, MIB),
    copying.BuildFinished("web-0.p2", MIB, "aa", 1.0),
]


@pytest.fixture
def resumed(story: Story) -> Story:
    """It stands on a finished build, and runs."""
    return story.pause().resume()


@pytest.mark.parametrize("state", ["pausing", "checkpointing"])
def test_a_sandbox_that_is_called_paused_by_the_build_of_an_older_pause_is_caught(resumed: Story, state: str) -> None:
    assert resumed.go("running", state, "paused").reasons(NAME) == [PAUSED.format(state)]


def test_a_late_line_of_an_older_pause_is_no_end_of_the_new_one(resumed: Story) -> None:
    resumed.go("running", "pausing").settle("web-0.p1").go("pausing", "paused")
    assert resumed.reasons(NAME) == [PAUSED.format("pausing")]


@pytest.mark.parametrize(
    "end", [settled("web-0.p2", outcome="rolled-back"), events.PauseReturned(1.0, condemned=False)], ids=["back", "no"]
)
def test_a_pause_that_ends_otherwise_does_not_pause_its_sandbox(resumed: Story, end: Event) -> None:
    resumed.begin_pause("web-0.p2", "web-0.2").tell(end, pause="web-0.p2").go("pausing", "paused")
    assert resumed.reasons(NAME) == [PAUSED.format("pausing")]


@pytest.mark.parametrize("end", ENDS, ids=["settled", "answered", "stranded", "named"])
def test_a_pause_that_finished_was_answered_or_is_stranded_pauses_its_sandbox(resumed: Story, end: Event) -> None:
    resumed.begin_pause("web-0.p2", "web-0.2").tell(end, pause="web-0.p2").go("pausing", "paused")
    assert resumed.found(NAME).violations == []


def test_where_lines_were_lost_a_pause_without_an_end_is_missing_evidence() -> None:
    told = Story().begin().go("running", "pausing").tell(events.LinesLost(3), None).go("pausing", "paused")
    found = told.found(NAME)
    assert (found.verdict, found.violations) == (Verdict.INCONCLUSIVE, [])
    assert found.missing[0]["reason"] == f"lines of the ledger were lost: {PAUSED.format('pausing')}"


def test_a_step_that_does_not_begin_where_the_last_one_ended_is_caught(story: Story) -> None:
    assert story.go("pausing", "paused").reasons(NAME) == ["it was running and left pausing"]


def test_a_life_that_does_not_begin_at_its_beginning_is_caught(story: Story) -> None:
    story.tell(created(), "web-1").go("running", "killed", sandbox="web-1")
    assert story.reasons(NAME) == ["it was created and left running"]


def test_a_state_that_there_is_not_is_caught_and_does_not_end_the_judging(story: Story) -> None:
    story.tell(created(), "web-1").go("created", "asleep", "running", sandbox="web-1")
    assert story.reasons(NAME) == ["it went from created to asleep", "it went from asleep to running"]


def test_a_run_in_which_nobody_moved_exercised_nothing(story: Story) -> None:
    assert story.without(events.StateChanged).found(NAME).checked == 0


def test_a_ledger_that_begins_in_the_middle_may_begin_anywhere(story: Story) -> None:
    late = story.without(events.SandboxCreated, events.StateChanged).go("paused", "resuming")
    assert late.found(NAME).verdict is Verdict.HELD
