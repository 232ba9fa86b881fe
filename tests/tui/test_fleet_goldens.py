"""What the fleet looks like, as text. After a wanted change: UPDATE_GOLDENS=1 pytest tests/tui, then read the diff."""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING

import pytest

from sim.record import events
from sim.tui.fleet_app import FleetApp

if TYPE_CHECKING:
    from tests.tui.conftest import RecordedDrill

GOLDENS = pathlib.Path(__file__).parent / "goldens"
MIB = 1 << 20


def tell_a_story(drill: RecordedDrill) -> None:
    """A whole copy, a punched one, one past the point of no return, a discard asked to resume, a fresh pause."""
    drill.now = 1.5
    drill.tell(events.Ticked(5))
    drill.finish_pause("web-0", punch=False)
    drill.sample(guests=192 * MIB, caches=192 * MIB)
    drill.now = 2.25
    drill.tell(events.FlagSet("memfd-punch-on-snapshot", True))
    drill.tell(events.FaultArmed(1, "copy.write", "ENOSPC", "chunk 3", "web-3"))
    drill.finish_pause("web-1", punch=True)
    drill.begin_pause("web-2", punch=True)
    drill.publish("web-2", 7, punch=True)
    drill.discard("web-3")
    drill.begin_pause("web-4", punch=False, chunks=0)
    drill.sample(guests=114 * MIB, caches=14 * MIB)
    why = "it was discarded and can never run again: copy.write of chunk 3 failed: No space left on device (injected)"
    drill.tell(events.RequestRefused("resume", why), "web-3")


def text_of(app: FleetApp) -> str:
    strips = app.screen._compositor.render_strips()
    return "".join("".join(segment.text for segment in strip).rstrip() + "\n" for strip in strips)


async def frame(drill: RecordedDrill, size: tuple[int, int], keys: list[str]) -> str:
    """The text of the screen after the story and these keys."""
    app = FleetApp(lambda: drill)
    async with app.run_test(size=size) as pilot:
        tell_a_story(drill)
        app.look()
        await pilot.press("j", "j", "x", *keys)
        await pilot.pause()
        return text_of(app)


def check(name: str, shown: str) -> None:
    golden = GOLDENS / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDENS"):
        golden.write_text(shown)
    assert shown == golden.read_text()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 45)])
async def test_the_fleet_looks_as_agreed(width: int, height: int, drill: RecordedDrill) -> None:
    check(f"fleet-{width}x{height}", await frame(drill, (width, height), []))


async def test_the_help_looks_as_agreed(drill: RecordedDrill) -> None:
    check("help-140x45", await frame(drill, (140, 45), ["question_mark"]))


@pytest.mark.parametrize("theme", ["textual-light", "nord", "ansi-dark"])
async def test_a_theme_changes_no_character(theme: str, drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(80, 24)) as pilot:
        tell_a_story(drill)
        app.look()
        app.theme = theme
        await pilot.press("j", "j", "x")
        await pilot.pause()
        assert text_of(app) == (GOLDENS / "fleet-80x24.txt").read_text()


async def test_no_color_leaves_no_colour(drill: RecordedDrill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(80, 24)) as pilot:
        tell_a_story(drill)
        app.look()
        await pilot.pause()
        colours = {
            tuple(color.triplet)
            for strip in app.screen._compositor.render_strips()
            for segment in strip
            if segment.style is not None
            for color in (segment.style.color, segment.style.bgcolor)
            if color is not None and color.triplet is not None
        }
    assert colours
    assert all(red == green == blue for red, green, blue in colours)
