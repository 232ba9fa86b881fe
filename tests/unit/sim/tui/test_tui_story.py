"""What is next: from a fleet that has not worked to a resume that is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flags.catalog import PUNCH
from sim.record import events
from sim.record.stages import NO_TRACK, Pace, Sample
from sim.record.view import FaultView, MemoryView, PauseView, SandboxView, View
from sim.tui import story
from sim.tui.spans import text, width
from tests.story import settled

MIB = 1 << 20
NAMES = ("web-0", "web-1")


def fleet(state: str, **changed: Any) -> View:
    sandboxes = {
        name: SandboxView(name, 32 * MIB, 4096, 4096, "python", "acme", "local", state=state) for name in NAMES
    }
    return View(tick=1, sandboxes=sandboxes, memory=MemoryView(budget=1024 * MIB), **changed)


def pause(*, punch: bool, number: int = 1, dirty: int = 32 * MIB) -> PauseView:
    samples = (Sample(1.0, 32 * MIB, 0), Sample(2.0, 32 * MIB, 32 * MIB))
    return PauseView(
        f"web-0.p{number}",
        "web-0",
        float(number),
        punch=punch,
        settled_at=number + 0.5,
        dirty_bytes=dirty,
        settled=settled(f"web-0.p{number}", punch=punch, peak_ratio=1.06 if punch else 2.0, dirty_bytes=dirty),
        track=replace(NO_TRACK, samples=samples),
    )


OFF, ON = pause(punch=False), pause(punch=True, number=2)


def step(view: View, **how: Any) -> tuple[str, str]:
    found = story.next_step(view, **how)
    assert found is not None
    return found.key, found.says


def key(view: View, **how: Any) -> str:
    return step(view, **how)[0]


def test_guests_work_before_they_are_paused() -> None:
    assert key(fleet("running"), idle=set(NAMES)) == "t"
    assert key(fleet("running"), idle={"web-1"}) == "P"


def test_after_a_pause_the_flag_is_flipped_all_are_resumed_and_paused_again() -> None:
    assert key(fleet("paused", pauses=(OFF,), flags={PUNCH: False})) == "f"
    assert key(fleet("paused", pauses=(OFF,), flags={PUNCH: True})) == "V"
    assert key(fleet("running", pauses=(OFF,), flags={PUNCH: True})) == "P"


def test_a_scenario_that_begins_with_punching_is_told_the_other_way_round() -> None:
    assert key(fleet("running", flags={PUNCH: True})) == "P"
    assert key(fleet("paused", pauses=(ON,), flags={PUNCH: True})) == "f"
    assert key(fleet("running", pauses=(ON,), flags={PUNCH: False})) == "P"


def test_two_pauses_of_different_amounts_are_not_compared_but_taken_again() -> None:
    less = pause(punch=True, number=2, dirty=MIB)
    assert key(fleet("running", pauses=(OFF, less), flags={PUNCH: True}), compared=False) != "4"


def test_both_kinds_are_compared_and_then_a_copy_is_broken() -> None:
    both = fleet("paused", pauses=(OFF, ON), flags={PUNCH: True})
    assert step(both) == ("4", "shows both beside each other: 2.00x without punching, 1.06x with it")
    assert key(both, compared=True) == "V"
    again = fleet("running", pauses=(OFF, ON), flags={PUNCH: True})
    assert step(again, compared=True, under_cursor="web-1")[1].startswith("breaks the next copy of web-1")
    armed = replace(again, faults=(FaultView(1, "copy.write", "ENOSPC", "chunk 3", "web-1"),))
    assert step(armed, compared=True, under_cursor="web-0")[1].startswith("on web-1 pauses web-1")


def test_what_is_discarded_is_asked_to_run_again_and_then_one_leaves() -> None:
    lost = fleet("running", pauses=(OFF, ON), flags={PUNCH: True})
    lost.sandboxes["web-1"] = replace(lost.sandboxes["web-1"], state="discarded")
    assert step(lost, compared=True, under_cursor="web-1") == (
        "r",
        "asks web-1 to run again: it is past the point of no return, so it must be refused",
    )
    lost.sandboxes["web-1"] = replace(
        lost.sandboxes["web-1"], refused=events.RequestRefused("resume", "it was discarded")
    )
    assert key(lost, compared=True) == "q"


def test_while_copies_go_on_there_is_nothing_to_press() -> None:
    assert step(fleet("pausing")) == ("", "wait until the copies have ended")
    stopped = fleet("pausing")
    stopped.sandboxes["web-0"] = replace(stopped.sandboxes["web-0"], pace=Pace(held=True))
    assert step(stopped)[1].startswith("the copy of web-0 is stopped")


def test_without_a_fleet_nothing_is_next() -> None:
    assert story.next_step(View()) is None
    assert story.line(None, 80) == []


def test_it_stands_whole_at_80_cells() -> None:
    found = story.next_step(fleet("running"))
    for playing in (False, True):
        lines = story.line(found, 80, playing=playing)
        assert all(width(line) <= 80 for line in lines)
        assert "so all is there twice" in " ".join("".join(map(text, lines)).split())
