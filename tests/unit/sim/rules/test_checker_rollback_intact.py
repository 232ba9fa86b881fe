"""`rollback_intact`: after a roll-back the guest runs with the same bytes, and its next snapshot is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.record.oracle import PAGE
from sim.rules.bytes_exact import BytesExact
from sim.rules.rollback_intact import RollbackIntact

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Guests, Scene


def rolled_back(scene: Scene, *, state: str = "running") -> None:
    scene.freeze()
    scene.settle(outcome="rolled-back", condemned=False, error="copy.write of chunk 0 failed")
    scene.go_to("pausing", state)


def judged(scene: Scene) -> RollbackIntact:
    """In the panel's order: bytes_exact has looked first."""
    bytes_exact = BytesExact()
    checker = RollbackIntact(bytes_exact)
    for _ in range(2):
        bytes_exact.observe(scene.evidence())
        checker.observe(scene.evidence())
    return checker


def test_a_guest_that_runs_on_with_the_same_bytes_is_right(scene: Scene, guests: Guests) -> None:
    guests.start()
    rolled_back(scene)
    checker = judged(scene)
    assert (checker.checked, checker.violations) == (1, [])


def test_a_guest_that_stays_stopped_is_caught(scene: Scene, guests: Guests) -> None:
    guests.start().stop()
    rolled_back(scene)
    (violation,) = judged(scene).violations
    assert violation["reason"] == "the pause was rolled back, and the guest does not run (state T)"
    assert (violation["incarnation"], violation["pause"]) == ("web-0.1", "web-0.p1")


def test_a_guest_that_died_of_it_is_caught(scene: Scene, guests: Guests) -> None:
    guests.start().kill()
    rolled_back(scene)
    (violation,) = judged(scene).violations
    assert violation["reason"] == "the pause was rolled back, and the guest does not run (state None)"


def test_a_guest_with_a_changed_page_is_caught_with_the_page(scene: Scene, guests: Guests) -> None:
    guest = guests.start()
    guest.write(9, bytes(PAGE))
    rolled_back(scene)
    (violation,) = judged(scene).violations
    assert violation["reason"] == "the pause was rolled back, and memory is not what it was"
    assert (violation["page"], violation["found"]) == (9, "all zero")


def test_a_guest_that_was_freed_a_page_is_caught(scene: Scene, guests: Guests) -> None:
    guests.start().punch(0)
    rolled_back(scene)
    assert [each["page"] for each in judged(scene).violations] == [0]


def test_a_sandbox_that_was_killed_or_paused_since_is_not_looked_into(scene: Scene, guests: Guests) -> None:
    guests.start().kill()
    rolled_back(scene, state="killed")
    checker = judged(scene)
    assert (checker.checked, checker.violations) == (1, [])


def test_a_pause_that_ended_otherwise_is_not_judged(scene: Scene, guests: Guests) -> None:
    guests.start().stop()
    scene.freeze()
    scene.settle(outcome="discarded")
    scene.go_to("pausing", "running")
    assert judged(scene).checked == 0


def next_pause(scene: Scene, incarnation: str, *, complete: bool) -> None:
    """A second pause whose build forgot page 4, or not."""
    whole = scene.build("web-0.p9")
    written = {0: 1, 1: 1, 4: 3, 5: 2, 9: 3} if complete else {0: 1, 1: 1, 5: 2, 9: 3}
    part = scene.build("web-0.p2", written)
    (part / "generations").write_bytes((whole / "generations").read_bytes())
    scene.freeze("web-0.p2", incarnation)
    scene.settle("web-0.p2")


def test_a_complete_next_snapshot_is_right(scene: Scene, guests: Guests) -> None:
    guests.start()
    rolled_back(scene)
    next_pause(scene, "web-0.1", complete=True)
    assert judged(scene).violations == []


def test_a_next_snapshot_that_forgot_a_page_is_caught_once_with_the_page(scene: Scene, guests: Guests) -> None:
    guests.start()
    rolled_back(scene)
    next_pause(scene, "web-0.1", complete=False)
    (violation,) = judged(scene).violations
    assert violation["reason"] == "the pause after a roll-back is not complete"
    assert (violation["incarnation"], violation["pause"], violation["page"]) == ("web-0.1", "web-0.p2", 4)


def test_an_incomplete_snapshot_of_another_incarnation_is_not_the_roll_backs_doing(
    scene: Scene, guests: Guests
) -> None:
    guests.start()
    rolled_back(scene)
    next_pause(scene, "web-0.2", complete=False)
    assert judged(scene).violations == []
