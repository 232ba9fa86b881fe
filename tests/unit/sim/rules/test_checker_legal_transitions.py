"""`legal_transitions`: a ledger is walked edge by edge, each beginning where the last one ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sim.rules.legal_transitions import LegalTransitions

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Scene


def judged(scene: Scene) -> LegalTransitions:
    checker = LegalTransitions()
    checker.observe(scene.evidence())
    checker.conclude(scene.evidence())
    return checker


def reasons(scene: Scene) -> list[str]:
    return [each["reason"] for each in judged(scene).violations]


def test_a_whole_life_is_right(scene: Scene) -> None:
    scene.go_to("created", "running", "pausing", "running", "pausing", "paused", "resuming", "running", "killed")
    checker = judged(scene)
    assert (checker.checked, checker.violations) == (8, [])


def test_lives_that_mingle_are_walked_one_by_one(scene: Scene) -> None:
    scene.go_to("created", "running")
    scene.go_to("created", "running", "pausing", sandbox="web-1")
    scene.go_to("running", "killed")
    scene.go_to("pausing", "discarded", sandbox="web-1")
    checker = judged(scene)
    assert (checker.checked, checker.violations) == (5, [])


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        (("created", "running", "pausing", "discarded", "running"), "it went from discarded to running"),
        (("created", "running", "paused"), "it went from running to paused"),
        (("created", "running", "killed", "killed"), "it went from killed to killed"),
        (("created", "paused"), "it went from created to paused"),
        (("created", "running", "pausing", "asleep"), "it went from pausing to asleep"),
    ],
)
def test_a_step_that_is_no_edge_is_caught(scene: Scene, states: tuple[str, ...], reason: str) -> None:
    scene.go_to(*states)
    assert reasons(scene) == [reason]


def test_a_step_that_does_not_begin_where_the_last_one_ended_is_caught(scene: Scene) -> None:
    scene.go_to("created", "running")
    scene.go_to("pausing", "paused")
    assert reasons(scene) == ["it was running and left pausing"]


def test_a_life_that_does_not_begin_at_its_beginning_is_caught(scene: Scene) -> None:
    scene.go_to("running", "killed")
    assert reasons(scene) == ["it was created and left running"]


def test_a_state_that_there_is_not_is_caught_and_does_not_end_the_judging(scene: Scene) -> None:
    scene.go_to("created", "asleep", "running")
    assert reasons(scene) == ["it went from created to asleep", "it went from asleep to running"]


def test_a_run_in_which_nobody_moved_exercised_nothing(scene: Scene) -> None:
    assert judged(scene).checked == 0
