"""`failed_copy_discards`: whatever is left of a condemned pause that failed is found, thing by thing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.events import CopyFailed
from sim.rules.failed_copy_discards import FailedCopyDiscards

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Guests, LivingGuest, Scene


def failed(scene: Scene, outcome: str = "discarded") -> None:
    scene.freeze()
    scene.tell(CopyFailed(3, "copy.write", "No space left", True), "web-0", "web-0.p1")
    scene.settle(outcome=outcome, error="copy.write of chunk 3 failed")


def judged(scene: Scene) -> FailedCopyDiscards:
    checker = FailedCopyDiscards()
    for _ in range(2):
        checker.observe(scene.evidence())
    checker.conclude(scene.evidence())
    return checker


def reasons(checker: FailedCopyDiscards) -> list[str]:
    assert all(each["sandbox"] == "web-0" for each in checker.violations)
    return [each["reason"] for each in checker.violations]


@pytest.fixture
def dead(guests: Guests) -> LivingGuest:
    guest = guests.start()
    guest.kill()
    return guest


def test_a_pause_that_was_discarded_whole_is_right(scene: Scene, dead: LivingGuest) -> None:
    failed(scene)
    scene.go_to("pausing", "discarded")
    checker = judged(scene)
    assert (checker.checked, checker.violations) == (1, [])


@pytest.mark.parametrize("stopped", [True, False])
def test_a_guest_that_is_still_there_is_caught_stopped_or_not(scene: Scene, guests: Guests, stopped: bool) -> None:
    guest = guests.start()
    if stopped:
        guest.stop()
    failed(scene)
    scene.go_to("pausing", "discarded")
    (reason,) = reasons(judged(scene))
    assert reason.startswith("the copy failed past the point of no return, and its guest is still there (state ")
    assert ("state T" in reason) == stopped


@pytest.mark.parametrize("name", ["web-0.p1.partial", "web-0.p1"])
def test_a_cache_that_is_still_there_is_caught_under_either_name(scene: Scene, dead: LivingGuest, name: str) -> None:
    (scene.builds / name).mkdir()
    failed(scene)
    scene.go_to("pausing", "discarded")
    assert reasons(judged(scene)) == [f"the cache of a failed copy is still there: {name}"]


def test_a_record_that_was_not_retired_is_caught(scene: Scene, dead: LivingGuest) -> None:
    (scene.condemned / "web-0.1-4711-99.json").write_text("{}")
    (scene.condemned / "web-0.10-4711-99.json").write_text("{}")
    failed(scene)
    scene.go_to("pausing", "discarded")
    assert reasons(judged(scene)) == ["its condemned record is still there: web-0.1-4711-99.json"]


def test_a_sandbox_that_is_anything_but_discarded_in_the_end_is_caught(scene: Scene, dead: LivingGuest) -> None:
    failed(scene)
    scene.go_to("pausing", "paused")
    checker = judged(scene)
    assert reasons(checker) == ["the sandbox is paused, not discarded"]
    assert checker.violations[0]["pause"] == "web-0.p1"
    assert checker.violations[0]["incarnation"] == "web-0.1"


def test_a_state_that_is_told_right_after_the_pause_has_settled_is_waited_for(scene: Scene, dead: LivingGuest) -> None:
    failed(scene)
    checker = FailedCopyDiscards()
    checker.observe(scene.evidence())
    scene.go_to("paused", "discarded")
    checker.conclude(scene.evidence())
    assert (checker.checked, checker.violations) == (1, [])


def test_a_failure_that_the_engine_calls_finished_is_judged_by_the_ledgers_own_facts(
    scene: Scene, dead: LivingGuest
) -> None:
    scene.build("web-0.p1")
    failed(scene, outcome="finished")
    scene.go_to("pausing", "paused")
    assert len(reasons(judged(scene))) == 2


def test_a_discarded_pause_is_judged_without_any_failure_in_the_ledger(scene: Scene, dead: LivingGuest) -> None:
    scene.freeze()
    scene.settle(outcome="discarded")
    scene.go_to("pausing", "running")
    checker = judged(scene)
    assert checker.checked == 1
    assert reasons(checker) == ["the sandbox is running, not discarded"]


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (CopyFailed(0, "copy.write", "broken", condemned=False), "rolled-back"),
        (CopyFailed(None, "teardown", "it does not die", condemned=True), "finished"),
        (None, "finished"),
    ],
    ids=["before the point of no return", "after the copy", "no failure"],
)
def test_what_is_no_failure_past_the_point_of_no_return_is_not_judged(
    scene: Scene, guests: Guests, failure: CopyFailed | None, outcome: str
) -> None:
    guests.start()
    scene.freeze()
    if failure is not None:
        scene.tell(failure, "web-0", "web-0.p1")
    scene.settle(outcome=outcome)
    checker = judged(scene)
    assert (checker.checked, checker.violations) == (0, [])


def test_a_pause_under_way_is_not_judged_yet(scene: Scene, guests: Guests) -> None:
    guests.start()
    scene.freeze()
    scene.tell(CopyFailed(3, "copy.write", "No space left", True), "web-0", "web-0.p1")
    checker = judged(scene)
    assert (checker.checked, checker.violations) == (0, [])
