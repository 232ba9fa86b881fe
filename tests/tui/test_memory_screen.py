"""The node's memory over time, and pauses with and without punching side by side."""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING

import pytest

from engine import events as engine_events
from sim.tui.app import FleetApp

if TYPE_CHECKING:
    from tests.tui.conftest import RecordedDrill

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
