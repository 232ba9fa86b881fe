"""`never_resumed` against real processes: punched and running is caught, whatever the ledger says of it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from engine.events import ChunkPunched, Condemned
from sim.record.oracle import content, describe, key_of
from sim.rules import never_resumed
from sim.rules.never_resumed import NeverResumed

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Guests, Scene


@pytest.fixture
def checker(monkeypatch: pytest.MonkeyPatch) -> NeverResumed:
    monkeypatch.setattr(never_resumed, "_DYING", 0.05)
    return NeverResumed()


def test_guests_whose_memory_is_whole_may_run(checker: NeverResumed, scene: Scene, guests: Guests) -> None:
    guests.start()
    guests.start("web-0.2", {})
    checker.observe(scene.evidence())
    assert (checker.checked, checker.violations) == (0, [])


def test_a_guest_that_runs_without_a_page_that_it_wrote_is_caught_with_that_page(
    checker: NeverResumed, scene: Scene, guests: Guests
) -> None:
    guests.start().punch(4)
    checker.observe(scene.evidence())
    assert checker.violations == [
        {
            "sandbox": "web-0",
            "reason": "a guest runs although its memory was freed",
            "incarnation": "web-0.1",
            "page": 4,
            "expected": describe(content(key_of(7, "web-0"), 4, 3)),
            "found": "all zero",
        }
    ]


@pytest.mark.parametrize("page", [2, 15])
def test_a_page_that_was_zero_anyway_is_not_missed(
    checker: NeverResumed, scene: Scene, guests: Guests, page: int
) -> None:
    guests.start().punch(page)
    checker.observe(scene.evidence())
    assert checker.violations == []


def test_a_punched_guest_that_is_stopped_does_not_run(checker: NeverResumed, scene: Scene, guests: Guests) -> None:
    guest = guests.start()
    guest.punch(4)
    guest.stop()
    checker.observe(scene.evidence())
    assert checker.violations == []


def test_a_punched_guest_that_is_dead_does_not_run(checker: NeverResumed, scene: Scene, guests: Guests) -> None:
    guest = guests.start()
    guest.punch(4)
    guest.kill()
    checker.observe(scene.evidence())
    assert checker.violations == []


def test_a_process_that_got_the_pid_of_a_punched_guest_is_none(
    checker: NeverResumed, scene: Scene, guests: Guests
) -> None:
    guest = guests.start(told=False)
    guest.punch(4)
    guests.tell(guest, start_time=guest.born.start_time - 1)
    checker.observe(scene.evidence())
    assert checker.violations == []


def test_a_condemned_guest_that_runs_is_caught_even_with_every_byte_in_place(
    checker: NeverResumed, scene: Scene, guests: Guests
) -> None:
    guests.start()
    scene.freeze()
    scene.tell(Condemned("web-0.p1"), "web-0", "web-0.p1")
    checker.observe(scene.evidence())
    assert checker.violations == [
        {
            "sandbox": "web-0",
            "reason": "a condemned guest runs again",
            "incarnation": "web-0.1",
            "pause": "web-0.p1",
        }
    ]


def test_a_condemned_guest_that_runs_without_a_page_is_caught_with_the_page(
    checker: NeverResumed, scene: Scene, guests: Guests
) -> None:
    guests.start().punch(9)
    scene.freeze()
    scene.tell(Condemned("web-0.p1"), "web-0", "web-0.p1")
    checker.observe(scene.evidence())
    assert [(each["reason"], each["page"]) for each in checker.violations] == [("a condemned guest runs again", 9)]


def test_a_condemned_guest_that_is_being_killed_is_given_the_time_to_die(
    scene: Scene, guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = guests.start()
    scene.freeze()
    scene.tell(Condemned("web-0.p1"), "web-0", "web-0.p1")
    slept: list[float] = []

    def die(seconds: float) -> None:
        slept.append(seconds)
        guest.kill()

    monkeypatch.setattr(never_resumed, "time", SimpleNamespace(sleep=die, monotonic=time.monotonic))
    checker = NeverResumed()
    checker.observe(scene.evidence())
    assert len(slept) == 1
    assert checker.violations == []


def test_only_the_condemned_incarnation_may_not_run_the_next_one_may(
    checker: NeverResumed, scene: Scene, guests: Guests
) -> None:
    guests.start().kill()
    scene.freeze()
    scene.tell(Condemned("web-0.p1"), "web-0", "web-0.p1")
    scene.settle()
    guests.start("web-0.2")
    checker.observe(scene.evidence())
    assert (checker.checked, checker.violations) == (1, [])


def test_a_guest_whose_pause_was_rolled_back_may_run(checker: NeverResumed, scene: Scene, guests: Guests) -> None:
    guests.start()
    scene.freeze()
    scene.settle(outcome="rolled-back", condemned=False, punched_bytes=0)
    checker.observe(scene.evidence())
    assert (checker.checked, checker.violations) == (0, [])


def test_one_guest_is_reported_once_however_often_it_is_seen(
    checker: NeverResumed, scene: Scene, guests: Guests
) -> None:
    guests.start().punch(4)
    for _ in range(3):
        checker.observe(scene.evidence())
    assert len(checker.violations) == 1


def test_it_counts_incarnations_that_were_punched_also_where_a_crash_cut_the_pause_off(
    checker: NeverResumed, scene: Scene
) -> None:
    for number in (1, 2, 3):
        pause = f"web-0.p{number}"
        scene.freeze(pause, f"web-0.{number}")
        if number != 2:
            scene.tell(ChunkPunched(0, 4096), "web-0", pause)
        scene.settle(pause, outcome="discarded", punched_bytes=0)
    checker.observe(scene.evidence())
    assert checker.checked == 2
