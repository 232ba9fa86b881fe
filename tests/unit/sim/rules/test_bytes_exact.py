"""`bytes_exact`: builds on disk and resumed guests, compared page by page with what their generations say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine import events as copying
from sim.record import events
from sim.record.oracle import PAGE, content, describe, key_of
from sim.rules import bytes_exact
from sim.rules.evidence import Evidence
from sim.rules.reality import SpawnedGuest
from tests.story import Story, created

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.sim.rules.conftest import Guests, Scene

NAME, PAUSE = "bytes_exact", "web-0.p1"


# -- by the ledger alone


def test_a_build_with_two_contents_is_caught(sound: Story) -> None:
    two = sound.changed(events.PauseSettled, content_hash="bb")
    assert two.reasons(NAME)[0] == "build web-0.p1 was recorded with two contents: aa and bb"


def test_what_a_ledger_alone_says_of_is_each_finished_build_and_each_resume(ledger: Story) -> None:
    assert ledger.found(NAME).checked == 0
    assert ledger.pause().found(NAME).checked == 1
    assert ledger.resume().found(NAME).checked == 2
    assert ledger.begin_pause("web-0.p2", "web-0.2").roll_back("web-0.p2", "web-0.2").found(NAME).checked == 2


def test_a_resume_from_a_build_that_was_never_finished_is_caught(ledger: Story) -> None:
    ledger.begin_pause().roll_back().resume(build=PAUSE)
    (found,) = ledger.found(NAME).violations
    assert found["reason"] == "it was resumed from build web-0.p1, which was never finished"
    assert found["code"] == "never-finished"


def test_a_machine_that_does_not_go_on_where_its_processor_was_is_caught(sound: Story) -> None:
    frozen = sound.changed(events.GuestFrozen, processor="ab").changed(events.Resumed, processor="ab")
    assert frozen.reasons(NAME) == []
    (found,) = frozen.changed(events.Resumed, processor="cd").found(NAME).violations
    assert found["reason"] == "its processor does not go on where that of web-0.p1 was"
    assert (found["incarnation"], found["pause"]) == ("web-0.2", PAUSE)


def test_a_resume_from_a_build_of_no_known_origin_lacks_evidence(ledger: Story) -> None:
    ledger.resume(build="web-9.p1")
    assert "missing evidence: no event says where build web-9.p1 comes from" in ledger.missing(NAME)


# -- builds in reality


def test_what_a_look_costs_grows_with_the_guests_that_were_resumed_and_not_with_its_square(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (names := [f"box-{number}" for number in range(30)]):
        scene.tell(created(), name).spawn(f"{name}.1").spawn(f"{name}.2", build=f"{name}.p1")
        scene.tell(events.Resumed(f"{name}.2", f"{name}.p1", 1, 1.0), name)
    made: list[str] = []

    def counted(sandbox: str, born: events.GuestSpawned) -> SpawnedGuest:
        made.append(born.incarnation)
        return SpawnedGuest(sandbox, born)

    monkeypatch.setattr("sim.rules.reality.SpawnedGuest", counted)
    bytes_exact.observe(Evidence(scene.entries, None, scene.reality), scene.reality)
    assert made == [f"{name}.2" for name in names]


def test_a_build_that_holds_what_the_guest_held_is_right(scene: Scene) -> None:
    scene.build(PAUSE)
    scene.settle().found(NAME)
    found = scene.found(NAME)
    assert (found.checked, found.violations) == (1, [])


@pytest.mark.parametrize(
    ("page", "data", "found"),
    [
        (4, content(key_of(7, "web-0"), 4, 2), "an older generation"),
        (5, bytes(PAGE), "zeros"),
        (9, content(key_of(7, "web-1"), 9, 3), "another sandbox"),
        (0, content(key_of(7, "web-0"), 0, 1)[:-1] + b"?", "one byte"),
        (15, b"\1" + bytes(PAGE - 1), "something where zeros were written"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_build_with_one_wrong_page_is_caught_with_the_page(scene: Scene, page: int, data: bytes, found: str) -> None:
    scene.build(PAUSE, wrong={page: data})
    scene.settle().found(NAME)
    (violation,) = scene.found(NAME).violations
    assert (violation["sandbox"], violation["pause"], violation["page"]) == ("web-0", PAUSE, page)
    assert violation["reason"] == f"snapshot {PAUSE} does not hold what the guest held at the freeze"
    assert violation["found"] == describe(data)


def test_a_build_that_lacks_a_written_page_is_caught(scene: Scene) -> None:
    whole = scene.build("web-0.p2")
    part = scene.build(PAUSE, {0: 1, 4: 3})
    (part / "generations").write_bytes((whole / "generations").read_bytes())
    (violation,) = scene.settle().found(NAME).violations
    assert (violation["page"], violation["found"]) == (1, "all zero")


@pytest.mark.parametrize("lost", ["memfile", "header", "generations", ""])
def test_a_build_that_cannot_be_resumed_is_caught(scene: Scene, lost: str) -> None:
    folder = scene.build(PAUSE)
    if lost:
        (folder / lost).unlink()
    else:
        folder.rename(scene.reality.builds / "web-1.p1")
    (reason,) = scene.settle().reasons(NAME)
    assert reason.startswith("its snapshot cannot be resumed: ")


def corrupt(scene: Scene, pause: str) -> None:
    scene.tell(events.FaultFired(1, "copy.write", "corrupt", 0), pause=pause)


def flip(folder: Path) -> None:
    """The first byte of a build's memory."""
    memfile = folder / "memfile"
    memfile.write_bytes(b"?" + memfile.read_bytes()[1:])


def test_a_build_that_a_fault_damaged_is_right_where_it_is_refused_by_name(scene: Scene) -> None:
    flip(scene.build(PAUSE))
    corrupt(scene, PAUSE)
    found = scene.settle().found(NAME)
    assert (found.checked, found.violations) == (1, [])


def test_a_build_that_a_fault_damaged_and_nobody_refuses_is_caught(scene: Scene) -> None:
    scene.build(PAUSE, wrong={4: bytes(PAGE)})
    corrupt(scene, PAUSE)
    assert [each.get("page") for each in scene.settle().found(NAME).violations] == [None, 4]


def test_a_chunk_that_a_fault_damaged_and_salvage_has_copied_again_is_right(scene: Scene) -> None:
    scene.build(PAUSE)
    corrupt(scene, PAUSE)
    found = scene.settle(salvage="whole").found(NAME)
    assert (found.checked, found.violations) == (1, [])


def test_a_damaged_chunk_that_salvage_took_for_whole_is_caught_with_the_page(scene: Scene) -> None:
    scene.build(PAUSE, wrong={4: bytes(PAGE)})
    corrupt(scene, PAUSE)
    assert [each.get("page") for each in scene.settle(salvage="whole").found(NAME).violations] == [4]


def test_a_fault_in_another_build_excuses_nothing(scene: Scene) -> None:
    (scene.build(PAUSE) / "header").unlink()
    corrupt(scene, "web-0.p2")
    assert len(scene.settle().found(NAME).violations) == 1


@pytest.mark.parametrize(
    ("damaged", "broken"),
    [("api-0.p1", "web-api-0.p1"), ("i-0.p1", "api-0.p1"), ("0.p1", "web-0.p1"), ("api-0.p1", "api-0.p11")],
)
def test_a_fault_in_a_build_whose_name_ends_or_begins_another_excuses_nothing(
    scene: Scene, damaged: str, broken: str
) -> None:
    scene.tell(created(), broken.rpartition(".")[0])
    flip(scene.build(broken))
    corrupt(scene, damaged)
    assert len(scene.settle(broken).found(NAME).violations) == 1


def test_what_did_not_finish_has_no_bytes_to_judge(scene: Scene) -> None:
    found = scene.settle(outcome="discarded").settle("web-0.p2", outcome="rolled-back").found(NAME)
    assert (found.checked, found.violations) == (0, [])


# -- guests in reality


def resumed(scene: Scene) -> Scene:
    scene.tell(events.Resumed("web-0.2", PAUSE, 4096, 1.0))
    return scene


def test_a_resumed_guest_that_holds_what_was_paused_is_right(scene: Scene, guests: Guests) -> None:
    guests.start("web-0.2")
    found = resumed(scene).found(NAME)
    assert (found.checked, found.violations) == (1, [])


def test_a_resumed_guest_with_one_wrong_page_is_caught_once_with_the_page(scene: Scene, guests: Guests) -> None:
    guests.start("web-0.2").write(5, b"x")
    resumed(scene).found(NAME)
    (violation,) = scene.found(NAME).violations
    assert violation["reason"] == f"resumed from {PAUSE}, the guest does not hold what was paused"
    assert (violation["incarnation"], violation["pause"], violation["page"]) == ("web-0.2", PAUSE, 5)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_resumed_guest_that_does_not_run_any_more_has_nothing_to_show(scene: Scene, guests: Guests, end: str) -> None:
    guest = guests.start("web-0.2")
    guest.punch(4)
    getattr(guest, end)()
    found = resumed(scene).found(NAME)
    assert (found.checked, found.violations) == (0, [])


def test_a_guest_that_nobody_resumed_is_not_looked_at(scene: Scene, guests: Guests) -> None:
    guests.start().write(5, b"x")
    found = scene.found(NAME)
    assert (found.checked, found.violations) == (0, [])


def test_every_build_and_every_guest_is_counted_damaged_ones_too(scene: Scene, guests: Guests) -> None:
    for number in range(1, 5):
        folder = scene.build(f"web-0.p{number}")
        scene.settle(f"web-0.p{number}")
        if number > 2:
            flip(folder)
            corrupt(scene, f"web-0.p{number}")
    for number in (2, 3):
        guests.start(f"web-0.{number}")
        scene.tell(events.Resumed(f"web-0.{number}", PAUSE, 4096, 1.0))
    found = scene.found(NAME)
    assert (found.checked, found.violations) == (6, [])


def test_a_resume_from_a_build_that_is_still_copied_is_right_and_from_one_that_never_was_planned_is_not(
    ledger: Story,
) -> None:
    ledger.begin_pause().copy().resume()
    assert len(ledger.missing(NAME)) == 1  # that a ledger holds no hash
    assert len(ledger.without(copying.Planned).missing(NAME)) == 2


@pytest.mark.parametrize(
    ("kind", "error", "refused"), [("corrupt", "", 0), (None, "corrupt", 0), ("EIO", "corrupt", 1)]
)
def test_a_fault_damages_a_build_by_its_kind_and_by_its_words_only_where_it_has_none(
    scene: Scene, kind: str | None, error: str, refused: int
) -> None:
    flip(scene.build(PAUSE))
    scene.tell(events.FaultFired(1, "copy.write", error, 0, kind), pause=PAUSE)
    assert len(scene.settle().found(NAME).violations) == refused
