"""`never_resumed`: punched or condemned, and running, is caught: in the ledger, and whatever the ledger says."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from engine import events as copying
from engine.events import Event
from sim.record import events
from sim.record.oracle import content, describe, key_of
from sim.record.verdict import Verdict
from sim.rules import never_resumed
from tests.story import MEMORY, Story, spawned

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Guests, Scene

NAME = "never_resumed"


# -- by the ledger, with a fleet or without


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (events.GuestThawed("web-0.1"), "a condemned guest was thawed"),
        (events.Resumed("web-0.1", "web-0.p1", 1, 1.0), "a condemned incarnation was resumed"),
        (events.StateChanged("paused", "running", ""), "the sandbox runs again without a new incarnation"),
        (events.GuestFrozen("web-0.1", 0.1), "a condemned guest was paused once more, so it had run on"),
        (spawned(), "a condemned incarnation was started again"),
    ],
)
def test_a_condemned_guest_that_runs_again_is_caught(story: Story, event: Event, reason: str) -> None:
    story.pause().tell(event, pause="web-0.p2" if isinstance(event, events.GuestFrozen) else None)
    (found,) = story.found(NAME).violations
    assert (found["reason"], found["incarnation"]) == (reason, "web-0.1")


def test_another_sandbox_or_a_new_incarnation_may_run(story: Story) -> None:
    story.pause().tell(events.GuestThawed("web-1.1"), "web-1").resume()
    story.freeze("web-0.p2", "web-0.2").end(ended="web-0.2")
    assert story.found(NAME).verdict is Verdict.HELD


def test_a_punch_before_the_condemned_record_is_caught(story: Story) -> None:
    early = story.pause().swapped(copying.Condemned, copying.ChunkPunched)
    assert early.reasons(NAME) == [
        "it was punched before it was condemned: a crash in between would have let it run again"
    ]


def test_a_punch_before_the_death_of_the_guest_is_caught(story: Story) -> None:
    story.begin_pause().publish(0).tell(copying.Condemned("web-0.p1"), pause="web-0.p1")
    story.tell(copying.GuestDied(1.0), pause="web-0.p1").tell(copying.ChunkPunched(0, MEMORY // 2), pause="web-0.p1")
    assert story.reasons(NAME) == []
    early = story.swapped(copying.GuestDied, copying.ChunkPunched)
    assert early.reasons(NAME) == ["it was punched before it was seen dead"]


def test_it_is_exercised_by_what_was_punched_also_where_a_crash_cut_the_pause_off(story: Story) -> None:
    for number in (1, 2, 3):
        pause = f"web-0.p{number}"
        story.freeze(pause, f"web-0.{number}")
        if number != 2:
            story.tell(copying.ChunkPunched(0, 4096), pause=pause)
        story.settle(pause, outcome="discarded", punched_bytes=0)
    assert story.found(NAME).checked == 2


def test_a_condemned_guest_without_an_end_lacks_evidence_where_nobody_can_look(sound: Story) -> None:
    silent = sound.without(events.GuestEnded)
    assert silent.found(NAME).verdict is Verdict.INCONCLUSIVE
    assert silent.missing(NAME)[0] == (
        "missing evidence: no `guest_ended` event for web-0.1, which was condemned or punched"
    )


def test_which_guest_a_pause_froze_is_known_by_the_latest_else_missing(sound: Story) -> None:
    assert sound.without(events.GuestFrozen).found(NAME).verdict is Verdict.HELD
    nobody = sound.without(events.GuestFrozen, events.GuestSpawned)
    assert nobody.missing(NAME)[0] == (
        "missing evidence: no `guest_frozen` or `guest_spawned` event says which guest web-0.p1 froze"
    )


# -- in reality


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(never_resumed, "_DYING", 0.05)


def condemn(scene: Scene) -> None:
    scene.freeze().tell(copying.Condemned("web-0.p1"), pause="web-0.p1")


def test_guests_whose_memory_is_whole_may_run(scene: Scene, guests: Guests) -> None:
    guests.start()
    guests.start("web-0.2", {})
    found = scene.found(NAME)
    assert (found.checked, found.violations) == (0, [])


@pytest.mark.usefixtures("patience")
def test_a_condemned_guest_that_takes_long_to_die_does_not_run_again(
    scene: Scene, guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    guests.start()
    condemn(scene)
    for is_dying, found in ((True, []), (False, ["a condemned guest runs again"])):
        monkeypatch.setattr("sim.rules.reality.SpawnedGuest.is_dying", lambda _, dies=is_dying: dies)
        assert [each["reason"] for each in scene.found(NAME).violations] == found


def test_a_guest_that_runs_without_a_page_that_it_wrote_is_caught_with_that_page(scene: Scene, guests: Guests) -> None:
    guests.start().punch(4)
    assert scene.found(NAME).violations == [
        {
            "sandbox": "web-0",
            "code": "runs-freed",
            "reason": "a guest runs although its memory was freed",
            "incarnation": "web-0.1",
            "page": 4,
            "expected": describe(content(key_of(7, "web-0"), 4, 3)),
            "found": "all zero",
        }
    ]


@pytest.mark.parametrize("page", [2, 15])
def test_a_page_that_was_zero_anyway_is_not_missed(scene: Scene, guests: Guests, page: int) -> None:
    guests.start().punch(page)
    assert scene.reasons(NAME) == []


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_punched_guest_that_is_stopped_or_dead_does_not_run(scene: Scene, guests: Guests, end: str) -> None:
    guest = guests.start()
    guest.punch(4)
    getattr(guest, end)()
    assert scene.reasons(NAME) == []


@pytest.mark.parametrize(
    ("end", "reasons"), [("stop", ["its memory was freed, and the guest is still alive"]), ("kill", [])]
)
def test_a_guest_whose_punch_is_in_the_ledger_is_dead_or_is_caught(
    scene: Scene, guests: Guests, end: str, reasons: list[str]
) -> None:
    guest = guests.start()
    condemn(scene)
    scene.tell(copying.ChunkPunched(0, 4096), pause="web-0.p1")
    getattr(guest, end)()
    assert scene.reasons(NAME) == reasons


def test_a_process_that_got_the_pid_of_a_punched_guest_is_none(scene: Scene, guests: Guests) -> None:
    guest = guests.start(told=False)
    guest.punch(4)
    guests.tell(guest, start_time=guest.born.start_time - 1)
    assert scene.reasons(NAME) == []


@pytest.mark.usefixtures("patience")
def test_a_condemned_guest_that_runs_is_caught_even_with_every_byte_in_place(scene: Scene, guests: Guests) -> None:
    guests.start()
    condemn(scene)
    assert scene.found(NAME).violations == [
        {
            "sandbox": "web-0",
            "code": "runs",
            "reason": "a condemned guest runs again",
            "incarnation": "web-0.1",
            "pause": "web-0.p1",
        }
    ]


@pytest.mark.usefixtures("patience")
def test_a_condemned_guest_that_runs_without_a_page_is_caught_with_the_page_and_not_again_by_its_thaw(
    scene: Scene, guests: Guests
) -> None:
    guests.start().punch(9)
    condemn(scene)
    scene.tell(events.GuestThawed("web-0.1"))
    (found,) = scene.found(NAME).violations
    assert (found["reason"], found["page"]) == ("a condemned guest runs again", 9)


def test_a_condemned_guest_that_is_being_killed_is_given_the_time_to_die(
    scene: Scene, guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = guests.start()
    condemn(scene)
    slept: list[float] = []

    def die(seconds: float) -> None:
        slept.append(seconds)
        guest.kill()

    monkeypatch.setattr(never_resumed, "time", SimpleNamespace(sleep=die, monotonic=time.monotonic))
    assert scene.reasons(NAME) == []
    assert len(slept) == 1


@pytest.mark.usefixtures("patience")
def test_only_the_condemned_incarnation_may_not_run_the_next_one_may(scene: Scene, guests: Guests) -> None:
    guests.start().kill()
    condemn(scene)
    scene.settle()
    guests.start("web-0.2")
    found = scene.found(NAME)
    assert (found.checked, found.violations) == (1, [])


def test_a_guest_whose_pause_was_rolled_back_may_run(scene: Scene, guests: Guests) -> None:
    guests.start()
    scene.freeze().settle(outcome="rolled-back", condemned=False, punched_bytes=0)
    found = scene.found(NAME)
    assert (found.checked, found.violations) == (0, [])


def test_one_guest_is_reported_once_however_often_it_is_seen(scene: Scene, guests: Guests) -> None:
    guests.start().punch(4)
    for _ in range(3):
        found = scene.found(NAME)
    assert len(found.violations) == 1


@pytest.mark.parametrize(("freed", "checked"), [(0, 0), (1, 1)])
def test_one_freed_byte_exercises_it_though_no_event_tells_of_a_punch(ledger: Story, freed: int, checked: int) -> None:
    told = ledger.pause().changed(events.PauseSettled, punched_bytes=freed).without(copying.ChunkPunched)
    assert told.found(NAME).checked == checked
