"""`rollback_intact`: after a roll-back the guest runs with the same bytes, and its next snapshot is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine import events as copying
from sim.record import events
from sim.record.oracle import PAGE
from tests.story import MIB, Story

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Guests, Scene

NAME = "rollback_intact"


# -- by the ledger alone


def test_a_roll_back_to_anything_but_a_running_guest_is_caught(ledger: Story) -> None:
    ledger.begin_pause().roll_back()
    ledger.entries.pop()
    assert ledger.go("pausing", "paused").reasons(NAME) == ["the pause was rolled back, and the sandbox became paused"]


def test_a_roll_back_after_which_nothing_runs_is_caught_once_the_run_has_ended(ledger: Story) -> None:
    ledger.begin_pause().roll_back()
    ledger.entries.pop()
    assert ledger.missing(NAME)[0] == "missing evidence: no `state_changed` event follows the roll-back"
    assert ledger.end().reasons(NAME) == ["the pause was rolled back, and the sandbox never ran on"]


def test_a_condemned_pause_that_is_recorded_as_rolled_back_is_caught(ledger: Story) -> None:
    ledger.begin_pause().copy().roll_back()
    (found,) = ledger.found(NAME).violations
    assert (found["code"], found["reason"]) == ("condemned", "it was condemned, and recorded as rolled back")


def test_a_roll_back_without_a_thaw_lacks_evidence(sound: Story) -> None:
    silent = sound.without(events.GuestThawed)
    assert "missing evidence: no `guest_thawed` event for web-0.2" in silent.missing(NAME)


def test_the_thaw_of_an_earlier_roll_back_is_none_of_this_one(ledger: Story) -> None:
    ledger.begin_pause().roll_back().begin_pause("web-0.p2").roll_back("web-0.p2")
    lacking = "missing evidence: no `guest_thawed` event for web-0.1"
    assert lacking not in ledger.missing(NAME)
    assert isinstance(ledger.entries.pop(-2).event, events.GuestThawed)
    assert lacking in ledger.missing(NAME)


def test_a_roll_back_that_forgets_dirty_blocks_shows_in_the_next_scan(ledger: Story) -> None:
    ledger.begin_pause().roll_back().scan("web-0.p2")
    assert ledger.reasons(NAME) == []
    ledger.entries.pop()
    ledger.scan("web-0.p2", dirty=3 * MIB)
    expected = f"{4 * MIB} bytes were dirty at the roll-back, and {3 * MIB} at the next scan of the same guest"
    assert ledger.reasons(NAME) == [expected]


def test_scans_by_different_trackers_are_not_compared(ledger: Story) -> None:
    ledger.begin_pause().roll_back()
    ledger.tell(copying.Scanned("write-protect-scan", 0, 0, 8 * MIB, 0.1), pause="web-0.p2")
    assert ledger.reasons(NAME) == []


# -- in reality


def rolled_back(scene: Scene, *, state: str = "running") -> Scene:
    scene.go("created", "running", "pausing").freeze()
    scene.settle(outcome="rolled-back", condemned=False, punched_bytes=0, error="copy.write of chunk 0 failed")
    scene.tell(events.GuestThawed("web-0.1")).go("pausing", state)
    return scene


def test_a_guest_that_runs_on_with_the_same_bytes_is_right(scene: Scene, guests: Guests) -> None:
    guests.start()
    found = rolled_back(scene).found(NAME)
    assert (found.checked, found.violations) == (1, [])


@pytest.mark.parametrize(("end", "how"), [("stop", "does not run (state T)"), ("kill", "is gone")])
def test_a_guest_that_does_not_run_on_is_caught_once(scene: Scene, guests: Guests, end: str, how: str) -> None:
    getattr(guests.start(), end)()
    rolled_back(scene).found(NAME)
    (violation,) = scene.found(NAME).violations
    assert violation["reason"] == f"the pause was rolled back, and the guest {how}"
    assert (violation["incarnation"], violation["pause"]) == ("web-0.1", "web-0.p1")


def test_a_guest_with_a_changed_page_is_caught_with_the_page(scene: Scene, guests: Guests) -> None:
    guests.start().write(9, bytes(PAGE))
    (violation,) = rolled_back(scene).found(NAME).violations
    assert violation["reason"] == "the pause was rolled back, and memory is not what it was"
    assert (violation["page"], violation["found"]) == (9, "all zero")


def test_a_guest_that_was_freed_a_page_is_caught(scene: Scene, guests: Guests) -> None:
    guests.start().punch(0)
    assert [each["page"] for each in rolled_back(scene).found(NAME).violations] == [0]


def test_a_sandbox_that_was_killed_since_is_not_looked_into(scene: Scene, guests: Guests) -> None:
    guests.start().kill()
    found = rolled_back(scene, state="killed").found(NAME)
    assert (found.checked, found.violations) == (1, [])


def test_a_pause_that_ended_otherwise_is_not_judged(scene: Scene, guests: Guests) -> None:
    guests.start().stop()
    scene.freeze().settle(outcome="discarded").go("created", "running")
    assert scene.found(NAME).checked == 0


def next_pause(scene: Scene, incarnation: str, *, complete: bool) -> Scene:
    """A second pause whose build forgot page 4, or not."""
    whole = scene.build("web-0.p9")
    written = {0: 1, 1: 1, 4: 3, 5: 2, 9: 3} if complete else {0: 1, 1: 1, 5: 2, 9: 3}
    part = scene.build("web-0.p2", written)
    (part / "generations").write_bytes((whole / "generations").read_bytes())
    scene.freeze("web-0.p2", incarnation).settle("web-0.p2")
    return scene


def test_a_complete_next_snapshot_is_right(scene: Scene, guests: Guests) -> None:
    guests.start()
    assert next_pause(rolled_back(scene), "web-0.1", complete=True).reasons(NAME) == []


def test_a_next_snapshot_that_forgot_a_page_is_caught_once_with_the_page(scene: Scene, guests: Guests) -> None:
    guests.start()
    next_pause(rolled_back(scene), "web-0.1", complete=False).found(NAME)
    (violation,) = scene.found(NAME).violations
    assert violation["reason"] == "the pause after a roll-back is not complete"
    assert (violation["incarnation"], violation["pause"], violation["page"]) == ("web-0.1", "web-0.p2", 4)


def test_an_incomplete_snapshot_of_another_incarnation_is_not_the_roll_backs_doing(
    scene: Scene, guests: Guests
) -> None:
    guests.start()
    assert next_pause(rolled_back(scene), "web-0.2", complete=False).reasons(NAME) == []


def test_a_wrong_page_of_a_guest_that_was_resumed_is_no_dirty_block_that_a_roll_back_forgot(
    scene: Scene, guests: Guests
) -> None:
    guests.start()
    rolled_back(scene)
    guests.start("web-0.2").write(5, b"x")
    scene.tell(events.Resumed("web-0.2", "web-0.p1", 4096, 1.0))
    assert [each["code"] for each in scene.found("bytes_exact").violations] == ["guest", "never-finished"]
    assert scene.found(NAME).violations == []
