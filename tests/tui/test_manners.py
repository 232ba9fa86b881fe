"""Manners of every screen: what cannot be undone is asked back, read-only is read-only, any size, any theme, ASCII."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from textual.pilot import Pilot

from sim.record import events
from sim.tui.app import HIGH_CONTRAST
from sim.tui.fleet_app import FleetApp
from sim.tui.keys import asks
from sim.tui.screens.live import LiveScreen
from sim.tui.screens.log import LogScreen
from sim.tui.terminal import OTHER, to_ascii
from tests.tui.looking import seen, until, until_seen

if TYPE_CHECKING:
    from tests.tui.conftest import RecordedDrill

SCREENS = {
    "fleet": "1",
    "flags": "2",
    "faults": "3",
    "memory": "4",
    "log": "5",
    "map": "6",
    "sandbox": "1 enter",
    "help": "question_mark",
}


async def begun(pilot: Pilot[None]) -> None:
    await until(pilot, lambda: "● running" in seen(pilot.app), "the fleet is there")


def asked(drill: RecordedDrill) -> list[str]:
    return [call[0] for call in drill.calls[1:]]


async def test_a_kill_is_asked_back_and_done_after_a_yes(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(80, 24)) as pilot:
        await begun(pilot)
        await pilot.press("d")
        await until(pilot, lambda: "Kill web-0 for good?" in seen(app), "it is asked back")
        assert asked(drill) == []
        await pilot.press("y")
        await until(pilot, lambda: asked(drill) == ["kill"], "it was killed")


@pytest.mark.parametrize("no", ["n", "escape"])
@pytest.mark.parametrize("key", ["d", "R"])
async def test_a_no_does_nothing(key: str, no: str, drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(80, 24)) as pilot:
        await begun(pilot)
        await pilot.press(key)
        await until(pilot, lambda: "y yes" in seen(app), "it is asked back")
        await pilot.press(no)
        await until(pilot, lambda: "y yes" not in seen(app), "the question is gone")
        assert asked(drill) == []


@pytest.mark.parametrize("key", ["p", "R"])
async def test_read_only_refuses_what_changes_the_fleet(key: str, drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    app.live.refusing = "read-only: you can watch the fleet, not change it"
    async with app.run_test(size=(80, 24)) as pilot:
        await begun(pilot)
        await pilot.press(key)
        await until(pilot, lambda: "read-only: you can watch the fleet" in seen(app), "it is refused")
        assert asked(drill) == []


async def test_read_only_lets_the_clock_tick(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    app.live.refusing = "read-only: you can watch the fleet, not change it"
    async with app.run_test(size=(80, 24)) as pilot:
        await begun(pilot)
        await pilot.press("full_stop")
        await until(pilot, lambda: asked(drill) == ["tick"], "it ticks")


async def test_the_keys_that_ask_are_refused_to_who_may_only_watch_and_no_others(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    app.live.refusing = "read-only"
    async with app.run_test(size=(80, 24)) as pilot:
        await begun(pilot)
        for name in ("1", "2", "3", "4", "5", "6", "1 enter"):
            await pilot.press(*name.split())
            screen = app.screen
            assert isinstance(screen, LiveScreen)
            for key in screen.KEYS:
                if key.action.startswith("app.") or key.action == "undo":  # to another screen
                    continue
                app.live.note = None
                await screen.run_action(key.action)
                refused = app.live.note is not None and app.live.note.text == "read-only"
                assert refused == asks(key), (name, key.action)
        assert asked(drill) == []


async def test_what_may_only_be_watched_is_helped_and_offered_with_no_key_that_asks(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    app.live.refusing = "read-only"
    async with app.run_test(size=(120, 60)) as pilot:
        await begun(pilot)
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert "memory (4)" in titles
        assert not {"pause (p)", "kill (d)", "restart (R)"} & set(titles)
        await pilot.press("question_mark")
        await until(pilot, lambda: "the node's memory over time" in seen(app), "the help is there")
        assert "freeze, copy, tear down" not in seen(app)


async def test_the_palette_knows_every_key_of_the_screen_and_runs_it(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(120, 40)) as pilot:
        await begun(pilot)
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert {"pause (p)", "kill (d)", "memory (4)", "quit (q)"} <= set(titles)
        await pilot.press("ctrl+p", *"all (P)", "enter")
        await until(pilot, lambda: asked(drill) == ["pause"], "it was asked")


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (140, 45), (200, 60)], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_every_screen_fills_every_size_and_says_how_to_leave(size: tuple[int, int], drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=size) as pilot:
        await begun(pilot)
        drill.finish_pause("web-1", punch=True)
        drill.discard("web-2")
        for screen, keys in SCREENS.items():
            await pilot.press(*keys.split())
            await pilot.pause()
            lines = seen(app).split("\n")
            assert len(lines) == size[1], screen
            assert max(map(len, lines)) <= size[0], screen
            assert "q quit" in lines[-1], screen


async def test_resizing_at_any_time_draws_the_whole_screen(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(80, 24)) as pilot:
        await begun(pilot)
        for keys in SCREENS.values():
            await pilot.press(*keys.split())
            for size in ((200, 60), (40, 10), (60, 12)):
                await pilot.resize_terminal(*size)
                await pilot.pause()
                assert len(seen(app).split("\n")) == size[1]
            if keys == "question_mark":
                await pilot.press("escape")


async def test_the_theme_of_high_contrast_is_there(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(80, 24)) as pilot:
        app.theme = HIGH_CONTRAST.name
        await begun(pilot)
        assert app.current_theme.background == "#000000"


def luminance(colour: str) -> float:
    """As WCAG 2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("tone", ["primary", "secondary", "warning", "error", "success", "accent", "foreground"])
def test_every_tone_of_it_stands_out(tone: str) -> None:
    assert (luminance(getattr(HIGH_CONTRAST, tone)) + 0.05) / (luminance("#000000") + 0.05) >= 7


async def test_every_screen_can_be_drawn_in_ascii(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(140, 45)) as pilot:
        await begun(pilot)
        drill.tell(events.FaultArmed(1, "copy.write", "ENOSPC", "chunk 3", "web-3"))
        drill.finish_pause("web-1", punch=True)
        drill.discard("web-2")
        for keys in SCREENS.values():
            await pilot.press(*keys.split())
            await pilot.pause()
            assert {sign for sign in seen(app) if not sign.isascii() and to_ascii(sign) == OTHER} == set(), keys


@pytest.mark.parametrize("size", [(59, 24), (100, 11), (20, 5)], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_where_there_is_no_room_it_says_so_and_comes_back(size: tuple[int, int], drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "60x12" in " ".join(seen(app).split()), "it says what it needs")
        assert "running" not in seen(app)
        await pilot.resize_terminal(60, 12)
        await begun(pilot)
        assert "60x12" not in seen(app)


async def test_without_colour_what_is_discarded_still_stands_out(
    drill: RecordedDrill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(80, 24)) as pilot:
        await begun(pilot)
        drill.discard("web-0")
        await until(pilot, lambda: "✗ discarded" in seen(app), "it is discarded")
        styles = [
            segment.style
            for strip in app.screen._compositor.render_strips()
            for segment in strip
            if "✗ discarded" in segment.text
        ]
    assert styles
    assert all(style is not None and style.bold and style.reverse for style in styles)


async def test_a_key_of_ones_own_does_what_the_built_in_one_does_and_help_says_so(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    app.use_keys({"pause_all": "f5", "tick": "f6", "show('log')": "ctrl+l"})
    async with app.run_test(size=(100, 40)) as pilot:
        await until(pilot, lambda: app.live.has_run, "the run has begun")
        await pilot.press("f5", "f6")
        await until(pilot, lambda: ("tick", 1) in drill.calls, "one tick")
        assert ("pause", [f"web-{number}" for number in range(6)]) in drill.calls
        await pilot.press("question_mark")
        await until_seen(pilot, "P f5")
        await pilot.press("escape", "ctrl+l")
        await until(pilot, lambda: isinstance(app.screen, LogScreen), "the log")


@pytest.mark.parametrize("screen", ["flags", "faults", "log", "map"])
async def test_the_key_that_is_next_does_it_on_every_screen(screen: str, drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(100, 30)) as pilot:
        await begun(pilot)
        await pilot.press(SCREENS[screen])
        await until_seen(pilot, "next: P pauses them all")
        await pilot.press("V")
        assert asked(drill) == [], "that is not next"
        await pilot.press("P")
        await until(pilot, lambda: asked(drill) == ["pause"], "all are paused")
