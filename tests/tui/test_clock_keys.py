"""The clock on screen: held at first; it ticks by itself when it is let run, and one tick is a key."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.pilot import Pilot

from sim.tui.app import FleetApp

if TYPE_CHECKING:
    from tests.tui.conftest import RecordedDrill


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await pilot.pause(0.02)


def ticks(drill: RecordedDrill) -> int:
    return drill.calls.count(("tick", 1))


async def test_the_clock_ticks_by_itself_from_space_to_space(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bool(drill.calls))
        await pilot.press("plus", "plus", "plus", "space")
        await until(pilot, lambda: ticks(drill) >= 2)
        assert app.live.clock.words == "8 ticks/s"
        await pilot.press("space")
        assert app.live.clock.held
        await until(pilot, lambda: not app.live.is_asked)
        before = ticks(drill)
        await pilot.pause(0.3)
        assert ticks(drill) == before


async def test_a_clock_that_runs_asks_for_nothing_while_something_is_under_way(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bool(drill.calls))
        async with app.live._turn:
            await pilot.press("p")
            await until(pilot, lambda: app.live.is_asked)
            await pilot.press("space")
            await pilot.pause(0.3)
            assert ticks(drill) == 0
        await until(pilot, lambda: ticks(drill) >= 1)


async def test_another_run_begins_with_a_held_clock(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("space", "R", "y")
        await until(pilot, lambda: drill.calls.count(("started",)) == 2)
        await until(pilot, lambda: app.live.clock.held)
