"""The faults screen: aiming at a point of the catalogue, arming it on the selection, seeing it fire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sim.files.faults import AtChunk
from sim.record import events
from sim.tui.fleet_app import FleetApp
from tests.tui.looking import until, until_seen
from tests.tui.test_fleet_goldens import check, tell_a_story, text_of

if TYPE_CHECKING:
    from tests.tui.conftest import RecordedDrill


async def frame(drill: RecordedDrill, size: tuple[int, int]) -> str:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=size) as pilot:
        tell_a_story(drill)
        drill.tell(events.FaultArmed(2, "punch", "EIO", "last", "*", by_kernel=True))
        app.look()
        await pilot.press("x", "x", "3", "right")
        await pilot.pause()
        return text_of(app)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 45)])
async def test_the_faults_look_as_agreed(width: int, height: int, drill: RecordedDrill) -> None:
    check(f"faults-{width}x{height}", await frame(drill, (width, height)))


@pytest.mark.parametrize(
    ("keys", "calls"),
    [
        ("3 enter", [("inject", "copy.write", "ENOSPC", "after_condemn", "*")]),
        ("3 o enter", [("inject", "copy.write", "ENOSPC", AtChunk(3), "*")]),
        ("3 l enter", [("inject", "copy.write", "EIO", "after_condemn", "*")]),
        ("3 b e", [("inject", "copy.write", "ENOSPC", "after_condemn", "*", "by kernel")]),
        ("3 g left enter", [("inject", "freeze", "SIGKILL of the node", "first", "*")]),
        ("3 G enter", [("inject", "resume.read", "ENOSPC", "first", "*")]),
        (
            "x j x 3 enter",
            [
                ("inject", "copy.write", "ENOSPC", "after_condemn", "web-0"),
                ("inject", "copy.write", "ENOSPC", "after_condemn", "web-2"),
            ],
        ),
        ("x 3 w enter", [("inject", "copy.write", "ENOSPC", "after_condemn", "*")]),
        ("3 c", [("clear",)]),
        ("x 3 p", [("pause", ["web-0"])]),
        ("3 p", [("pause", [f"web-{number}" for number in range(6)])]),
        ("x 3 r", [("resume", ["web-0"])]),
    ],
)
async def test_a_key_asks_the_run_for_one_thing(keys: str, calls: list[Any], drill: RecordedDrill) -> None:
    async with FleetApp(lambda: drill).run_test(size=(80, 24)) as pilot:
        await until_seen(pilot, "● running")
        await pilot.press(*keys.split())
        await until(pilot, lambda: len(drill.calls) > len(calls), "the run was asked")
        assert drill.calls == [("started",), *calls]


async def test_a_fault_is_seen_to_fire_on_whom_and_to_be_cleared(drill: RecordedDrill) -> None:
    async with FleetApp(lambda: drill).run_test(size=(110, 30)) as pilot:
        await until_seen(pilot, "● running")
        await pilot.press("3")
        await until_seen(pilot, "nothing is armed")
        drill.tell(events.FaultArmed(7, "punch", "EIO", "last", "web-*"))
        await until_seen(pilot, "○ punch EIO at the last chunk on web-*  has not fired")
        drill.tell(events.FaultFired(7, "punch", "EIO", 15), "web-3")
        await until_seen(pilot, "● punch EIO at the last chunk on web-*  fired once: web-3")
        drill.tell(events.FaultsCleared())
        await until_seen(pilot, "nothing is armed", "faults cleared")


async def test_the_kernel_is_asked_only_for_what_it_can_do(drill: RecordedDrill) -> None:
    async with FleetApp(lambda: drill).run_test(size=(110, 30)) as pilot:
        await until_seen(pilot, "● running")
        await pilot.press("3", "b")
        await until_seen(pilot, "ENOSPC by the kernel itself")
        await pilot.press("g", "b")
        await until_seen(pilot, "the kernel gives an errno, and only to a copy")


async def test_a_node_that_crashed_is_started_again_and_one_that_is_up_is_not(drill: RecordedDrill) -> None:
    async with FleetApp(lambda: drill).run_test(size=(110, 30)) as pilot:
        await until_seen(pilot, "● running")
        await pilot.press("3", "N")
        await until_seen(pilot, "the node is up: there is nothing to restart")
        assert drill.calls == [("started",)]
        drill.tell(events.NodeCrashed(100))
        await until_seen(pilot, "node crashed")
        await pilot.press("N")
        await until(pilot, lambda: drill.calls[1:] == [("restart",)], "the node is restarted")
