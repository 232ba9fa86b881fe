"""What a step that missed its deadline still waited for."""

from __future__ import annotations

import pytest

from sim.files.steps import Act, Checkpoint, PauseStep, Resume
from sim.report.words import named
from sim.run.runner import unsettled
from tests.story import Story, view_of


def story() -> Story:
    """At 20 s and later `done` has settled its pause, `copies` copies, and `waits` was not begun."""
    told = Story().begin("done", "copies", "waits", "killed").pause("waits.p1", "waits.1").resume("waits.2", "waits.p1")
    told.go("running", "killed", sandbox="killed")
    told.pause("done.p1", "done.1")
    return told.begin_pause("copies.p1", "copies.1")


@pytest.mark.parametrize(
    ("step", "awaited"), [(PauseStep(), ["copies", "waits"]), (Checkpoint(), ["copies", "waits"]), (Resume(), ["done"])]
)
def test_only_what_the_step_began_for_and_has_not_ended_is_awaited(step: Act, awaited: list[str]) -> None:
    told = story()
    since = next(each.t for each in told.entries if each.pause == "done.p1")
    assert unsettled(step, view_of(told.entries), ["done", "copies", "waits", "killed"], since) == awaited


def test_three_are_named_and_the_others_counted() -> None:
    assert named([f"box-{n}" for n in range(620)], "none") == "box-0, box-1, box-2 and 617 more"
    assert named(["a", "b", "c"], "none") == "a, b, c"
    assert named([], "its copies") == "its copies"
