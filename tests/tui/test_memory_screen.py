"""The node's memory over time; pauses with and without punching side by side, and the twin."""

from __future__ import annotations

import asyncio
import os
import pathlib
from collections.abc import Callable

import pytest

from engine import events as engine_events
from engine.errors import UserError
from sim.record.view import View
from sim.tui.fleet_app import FleetApp
from sim.tui.twin import Twin
from tests.tui.conftest import RecordedDrill
from tests.tui.looking import seen, until, until_seen

GOLDENS = pathlib.Path(__file__).parent / "goldens"
MIB = 1 << 20


def pause(drill: RecordedDrill, name: str, *, punch: bool) -> None:
    """A whole pause of 32 MiB in 16 chunks of 1 ms."""
    drill.begin_pause(name, punch=punch)
    drill.tell(engine_events.Scanned("test", 32 * MIB, 0, 32 * MIB, 1.0), name, f"{name}.p1")
    for chunk in range(16):
        drill.now = round(drill.now + 0.001, 6)
        left = (32 - 2 * chunk) * MIB if punch else 32 * MIB
        cache = (chunk + 1) * 2 * MIB
        published = engine_events.ChunkPublished(chunk, 2 * MIB, 2 * MIB, left, cache, chunk * 2 * MIB)
        drill.tell(published, name, f"{name}.p1")
        drill.sample(guests=160 * MIB + left, caches=cache)
    drill.settle(name, punch=punch)


def tell_a_story(drill: RecordedDrill) -> None:
    drill.now = 1.0
    pause(drill, "web-0", punch=False)
    drill.now = 2.0
    drill.sample(guests=160 * MIB)
    pause(drill, "web-1", punch=True)
    drill.now = 3.0
    drill.sample(guests=128 * MIB)
    drill.discard("web-3")
    drill.now = 4.0
    drill.sample(guests=96 * MIB)


async def frame(drill: RecordedDrill, size: tuple[int, int]) -> str:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=size) as pilot:
        tell_a_story(drill)
        app.look()
        await pilot.press("4")
        await pilot.pause()
        strips = app.screen._compositor.render_strips()
        return "".join("".join(segment.text for segment in strip).rstrip() + "\n" for strip in strips)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 45)])
async def test_the_memory_screen_looks_as_agreed(width: int, height: int, drill: RecordedDrill) -> None:
    shown = await frame(drill, (width, height))
    golden = GOLDENS / f"memory-{width}x{height}.txt"
    if os.environ.get("UPDATE_GOLDENS"):
        golden.write_text(shown)
    assert shown == golden.read_text()


@pytest.mark.parametrize(("width", "height"), [(100, 30), (200, 60)])
async def test_every_size_shows_both_charts(width: int, height: int, drill: RecordedDrill) -> None:
    shown = await frame(drill, (width, height))
    assert "█ guests" in shown


async def test_pause_all_and_resume_all_ask_for_those_that_can(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(80, 24)) as pilot:
        drill.finish_pause("web-0", punch=True)
        app.look()
        await pilot.press("4", "V", "P")
        await pilot.pause(0.2)
        assert drill.calls[1:] == [("resume", ["web-0"]), ("pause", [f"web-{number}" for number in range(1, 6)])]


def tell_of_an_arm(arm: RecordedDrill, *, punch: bool) -> None:
    """Six guests of 32 MiB, all paused at once: copied in 16 steps of 10 ms."""
    names = [f"web-{number}" for number in range(6)]
    arm.tell_of_fleet(names)
    arm.now = 1.0
    for name in names:
        arm.begin_pause(name, punch=punch)
    for step in range(1, 17):
        arm.now = round(1.0 + step / 100, 6)
        arm.sample(guests=(204 - 12 * step if punch else 192) * MIB, caches=12 * step * MIB)
    for name in names:
        arm.settle(name, punch=punch)
    arm.sample(guests=0)


class RecordedArms:
    """An arm is over when it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.torn_down = 0
        self.error: Exception | None = None

    async def __call__(self, view: View, progress: Callable[[str], None], *, punch: bool) -> View:
        if self.error is not None:
            raise self.error
        progress("3/3 pause")
        try:
            await self.go.wait()
        finally:
            self.torn_down += 1
        arm = RecordedDrill()
        tell_of_an_arm(arm, punch=punch)
        return await arm.finish()


@pytest.fixture
def arms() -> RecordedArms:
    return RecordedArms()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 45)])
async def test_a_key_runs_the_twin_and_both_arms_stand_side_by_side(
    width: int, height: int, drill: RecordedDrill, arms: RecordedArms
) -> None:
    app = FleetApp(lambda: drill, twin=Twin(arms))
    async with app.run_test(size=(width, height)) as pilot:
        tell_a_story(drill)
        await until_seen(pilot, "● running")
        await pilot.press("4", "T")
        await until_seen(pilot, "flag off: step 3/3 pause …")
        arms.go.set()
        await until_seen(pilot, "peak off is 1.88 times peak on")
        shown = seen(app) + "\n"
        assert drill.calls == [("started",)], "the run on screen was asked for nothing"
    golden = GOLDENS / f"memory-twin-{width}x{height}.txt"
    if os.environ.get("UPDATE_GOLDENS"):
        golden.write_text(shown)
    assert shown == golden.read_text()


@pytest.mark.parametrize("key", ["T", "q", "R y"])
async def test_a_twin_ends_with_the_key_that_ends_it_or_its_run(
    key: str, drill: RecordedDrill, arms: RecordedArms
) -> None:
    twin = Twin(arms)
    async with FleetApp(lambda: drill, twin=twin).run_test(size=(80, 24)) as pilot:
        await until_seen(pilot, "● running")
        await pilot.press("4", "T")
        await until(pilot, lambda: twin.is_running, "the twin runs")
        await pilot.press(*key.split())
        await until(pilot, lambda: not twin.is_running, "it has ended")
        assert arms.torn_down == 1


async def test_a_twin_that_does_not_fit_is_refused_in_words(drill: RecordedDrill, arms: RecordedArms) -> None:
    arms.error = UserError("it needs 384MiB of memory and 100 MiB are available")
    async with FleetApp(lambda: drill, twin=Twin(arms)).run_test(size=(110, 30)) as pilot:
        await until_seen(pilot, "● running")
        await pilot.press("4", "T")
        await until_seen(pilot, "no twin: it needs 384MiB of memory and 100 MiB are available")


async def test_who_may_only_watch_gets_no_twin(drill: RecordedDrill, arms: RecordedArms) -> None:
    twin = Twin(arms)
    app = FleetApp(lambda: drill, twin=twin)
    app.live.refusing = "read-only: you can watch the fleet, not change it"
    async with app.run_test(size=(80, 24)) as pilot:
        await until_seen(pilot, "● running")
        await pilot.press("4", "T")
        await until_seen(pilot, "two pauses of this run", "read-only: you can watch the fleet, not change it")
        assert not twin.is_running


async def test_a_key_shows_the_last_minutes_and_then_the_last_seconds(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(100, 30)) as pilot:
        tell_a_story(drill)
        drill.now = 400.0
        drill.sample(guests=96 * MIB)
        await pilot.press("4")
        await until_seen(pilot, "400.0 s, 394 s idle left out")
        await pilot.press("w")
        await until_seen(pilot, "100 s └")
        await pilot.press("w")
        await until_seen(pilot, "370 s └")
        await pilot.press("w")
        await until_seen(pilot, "0 s └")
