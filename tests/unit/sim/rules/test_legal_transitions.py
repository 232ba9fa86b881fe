"""`legal_transitions`: a ledger is walked edge by edge, each beginning where the last one ended."""

from __future__ import annotations

import pytest

from sim.record import events
from sim.record.verdict import Verdict
from tests.story import Story, created

NAME = "legal_transitions"


def test_a_whole_life_is_right(story: Story) -> None:
    story.go("running", "pausing", "running", "pausing", "paused", "resuming", "running", "killed")
    found = story.found(NAME)
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
