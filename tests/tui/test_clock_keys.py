"""The clock on screen: stopped at first; it ticks by itself when it is let run, and one tick is a key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.pilot import Pilot

from sim.tui.fleet_app import FleetApp

if TYPE_CHECKING:
    from tests.tui.conftest import RecordedDrill


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await pilot.pause(0.02)


def ticks(drill: RecordedDrill) -> int:
    return drill.calls.count(("tick", 1))


async def test_the_clock_ticks_by_itself_from_key_to_key(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bool(drill.calls))
        await pilot.press("plus", "plus", "plus", "C")
        await until(pilot, lambda: ticks(drill) >= 2)
        assert app.live.clock.words == "8 ticks/s"
        await pilot.press("C")
        assert app.live.clock.stopped
        await until(pilot, lambda: not app.live.is_asked)
        before = ticks(drill)
        await pilot.pause(0.3)
        assert ticks(drill) == before


async def test_a_clock_that_runs_asks_for_nothing_while_something_is_under_way(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bool(drill.calls))
        over = asyncio.Event()
        drill.waits = over
        await pilot.press("p")
        await until(pilot, lambda: app.live.is_asked)
        await pilot.press("C")
        await pilot.pause(0.3)
        assert ticks(drill) == 0
        drill.waits = None
        over.set()
        await until(pilot, lambda: ticks(drill) >= 1)


async def test_another_run_begins_with_a_stopped_clock(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("C", "R", "y")
        await until(pilot, lambda: drill.calls.count(("started",)) == 2)
        await until(pilot, lambda: app.live.clock.stopped)
