"""`bytes_exact`: builds on disk and resumed guests, compared page by page with what their generations say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sim.record import events
from sim.record.oracle import PAGE, content, describe, key_of
from sim.rules.bytes_exact import BytesExact

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Guests, Scene

PAUSE = "web-0.p1"


def judged(scene: Scene) -> BytesExact:
    checker = BytesExact()
    for _ in range(2):
        checker.observe(scene.evidence())
    return checker


def test_a_build_that_holds_what_the_guest_held_is_right(scene: Scene) -> None:
    scene.build(PAUSE)
    scene.settle()
    checker = judged(scene)
    assert (checker.checked, checker.violations, checker.failed_pauses) == (1, [], set())


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
    scene.settle()
    checker = judged(scene)
    (violation,) = checker.violations
    assert (violation["sandbox"], violation["pause"], violation["page"]) == ("web-0", PAUSE, page)
    assert violation["reason"] == f"snapshot {PAUSE} does not hold what the guest held at the freeze"
    assert violation["found"] == describe(data)
    assert checker.failed_pauses == {PAUSE}


def test_a_build_that_lacks_a_written_page_is_caught(scene: Scene) -> None:
    whole = scene.build("web-0.p2")
    part = scene.build(PAUSE, {0: 1, 4: 3})
    (part / "generations").write_bytes((whole / "generations").read_bytes())
    scene.settle()
    (violation,) = judged(scene).violations
    assert (violation["page"], violation["found"]) == (1, "all zero")


@pytest.mark.parametrize("lost", ["memfile", "header", "generations", ""])
def test_a_build_that_cannot_be_resumed_is_caught(scene: Scene, lost: str) -> None:
    folder = scene.build(PAUSE)
    if lost:
        (folder / lost).unlink()
    else:
        folder.rename(scene.builds / "elsewhere")
    scene.settle()
    checker = judged(scene)
    (violation,) = checker.violations
    assert violation["reason"].startswith("its snapshot cannot be resumed: ")
    assert checker.failed_pauses == {PAUSE}


def corrupt(scene: Scene, pause: str) -> None:
    scene.tell(events.FaultFired(1, "copy.write", "corrupt", 0), pause=pause)


def test_a_build_that_a_fault_damaged_is_right_where_it_is_refused_by_name(scene: Scene) -> None:
    folder = scene.build(PAUSE)
    (folder / "memfile").write_bytes(b"?" + (folder / "memfile").read_bytes()[1:])
    corrupt(scene, PAUSE)
    scene.settle()
    checker = judged(scene)
    assert (checker.checked, checker.violations) == (1, [])


def test_a_build_that_a_fault_damaged_and_nobody_refuses_is_caught(scene: Scene) -> None:
    scene.build(PAUSE, wrong={4: bytes(PAGE)})
    corrupt(scene, PAUSE)
    scene.settle()
    assert [each.get("page") for each in judged(scene).violations] == [None, 4]


def test_a_fault_in_another_build_excuses_nothing(scene: Scene) -> None:
    (scene.build(PAUSE) / "header").unlink()
    corrupt(scene, "web-0.p2")
    scene.settle()
    assert len(judged(scene).violations) == 1


def test_what_did_not_finish_has_no_bytes_to_judge(scene: Scene) -> None:
    scene.settle("web-0.p1", outcome="discarded")
    scene.settle("web-0.p2", outcome="rolled-back")
    checker = judged(scene)
    assert (checker.checked, checker.violations) == (0, [])


def resumed(scene: Scene, incarnation: str = "web-0.2") -> None:
    scene.tell(events.Resumed(incarnation, PAUSE, 4096, 1.0))


def test_a_resumed_guest_that_holds_what_was_paused_is_right(scene: Scene, guests: Guests) -> None:
    guests.start("web-0.2")
    resumed(scene)
    checker = judged(scene)
    assert (checker.checked, checker.violations) == (1, [])


def test_a_resumed_guest_with_one_wrong_page_is_caught_with_the_page(scene: Scene, guests: Guests) -> None:
    guests.start("web-0.2").write(5, b"x")
    resumed(scene)
    (violation,) = judged(scene).violations
    assert violation["reason"] == f"resumed from {PAUSE}, the guest does not hold what was paused"
    assert (violation["incarnation"], violation["pause"], violation["page"]) == ("web-0.2", PAUSE, 5)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_resumed_guest_that_does_not_run_any_more_has_nothing_to_show(scene: Scene, guests: Guests, end: str) -> None:
    guest = guests.start("web-0.2")
    guest.punch(4)
    getattr(guest, end)()
    resumed(scene)
    checker = judged(scene)
    assert (checker.checked, checker.violations) == (0, [])


def test_a_guest_that_nobody_resumed_is_not_looked_at(scene: Scene, guests: Guests) -> None:
    guests.start().write(5, b"x")
    checker = judged(scene)
    assert (checker.checked, checker.violations) == (0, [])
