"""The mouse: clicks on rows, titles, keys and dialogs; marking text and copying it."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from textual.pilot import Pilot

from sim.tui.fleet_app import FleetApp
from sim.tui.screens.faults import FaultsScreen
from sim.tui.screens.flags import FlagsScreen
from sim.tui.screens.help import HelpScreen
from sim.tui.screens.sandbox import SandboxScreen
from tests.tui.looking import seen, until, until_seen

if TYPE_CHECKING:
    from tests.tui.conftest import RecordedDrill


def place(pilot: Pilot[None], words: str) -> tuple[int, int]:
    """Where on screen these words begin."""
    for y, line in enumerate(seen(pilot.app).split("\n")):
        if words in line:
            return line.index(words), y
    raise AssertionError(f"{words!r} is not on screen:\n{seen(pilot.app)}")


async def click(pilot: Pilot[None], words: str, times: int = 1) -> None:
    await pilot.click(offset=place(pilot, words), times=times)
    await pilot.pause()


async def test_a_click_on_a_row_moves_the_cursor_and_a_second_one_looks_at_the_sandbox(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(100, 30)) as pilot:
        await until_seen(pilot, "▶ web-0")
        await click(pilot, "web-3    ●")
        await until_seen(pilot, "▶ web-3")
        await click(pilot, "web-4    ●", times=2)
        await until(pilot, lambda: isinstance(app.screen, SandboxScreen), "the sandbox is shown")


async def test_a_click_with_ctrl_selects(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(100, 30)) as pilot:
        await until_seen(pilot, "▶ web-0")
        await pilot.click(offset=place(pilot, "web-3    ●"), control=True)
        await until_seen(pilot, "✓web-3", "1 selected")


async def test_a_click_on_a_title_sorts_a_second_backwards_a_third_not(drill: RecordedDrill) -> None:
    async with FleetApp(lambda: drill).run_test(size=(100, 30)) as pilot:
        await until_seen(pilot, "▶ web-0")
        drill.discard("web-4")
        await until_seen(pilot, "web-4    ✗ discarded")
        for title, first in (("state▾", "web-4"), ("state▴", "web-0"), ("state ", "web-0")):
            await click(pilot, "state")
            await until_seen(pilot, title)
            table = seen(pilot.app).split("sandbox  state")[1]
            assert table.index(first) == min(table.index(f"web-{number}") for number in range(6))


async def test_a_click_on_a_key_of_the_footer_does_what_the_key_does(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(100, 30)) as pilot:
        await until_seen(pilot, "▶ web-0")
        await click(pilot, "p pause")
        await until(pilot, lambda: ("pause", ["web-0"]) in drill.calls, "it was paused")
        await click(pilot, "tick  ")
        await until(pilot, lambda: ("tick", 1) in drill.calls, "it has ticked")
        await click(pilot, "? help")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen), "the help is there")


async def test_a_click_on_what_is_next_does_it(drill: RecordedDrill) -> None:
    async with FleetApp(lambda: drill).run_test(size=(100, 30)) as pilot:
        await until_seen(pilot, "next: P pauses them all")
        await click(pilot, "pauses them all")
        await until(pilot, lambda: any(call[0] == "pause" for call in drill.calls), "it was done")


async def test_a_dialog_is_answered_by_a_click(drill: RecordedDrill) -> None:
    async with FleetApp(lambda: drill).run_test(size=(100, 30)) as pilot:
        await until_seen(pilot, "▶ web-0")
        for answer, asked in (("n no", []), ("y yes", [("kill", ["web-0"])])):
            await pilot.press("d")
            await until_seen(pilot, "Kill web-0 for good?")
            await click(pilot, answer)
            await until(pilot, lambda: "Kill web-0" not in seen(pilot.app), "the question is gone")
            await until(pilot, lambda asked=asked: drill.calls[1:] == asked, "it was done, or not")  # type: ignore[misc]


async def test_a_click_on_a_flag_or_a_fault_moves_the_cursor_there(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(100, 40)) as pilot:
        await until_seen(pilot, "▶ web-0")
        await pilot.press("2")
        await until(pilot, lambda: isinstance(app.screen, FlagsScreen), "the flags")
        await click(pilot, "memfd-background-copy")
        await until_seen(pilot, "▶ memfd-background-copy")
        await pilot.press("3")
        await until(pilot, lambda: isinstance(app.screen, FaultsScreen), "the faults")
        await click(pilot, "publish")
        await until_seen(pilot, "▶ publish")


async def test_marked_text_is_copied_and_without_any_the_runs_id(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(100, 30)) as pilot:
        await until_seen(pilot, "▶ web-0")
        await pilot.press("y")
        assert app.clipboard == "run"
        x, y = place(pilot, "node started")
        await pilot.mouse_down(offset=(x, y))
        await pilot.hover(offset=(x + 11, y))
        await pilot.mouse_up(offset=(x + 11, y))
        await pilot.pause()
        await pilot.press("y")
        assert app.clipboard.strip() in {"node started", "node starte"}


async def test_a_screenshot_goes_into_the_runs_folder(drill: RecordedDrill, tmp_path: pathlib.Path) -> None:
    drill.run_dir = tmp_path
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(100, 30)) as pilot:
        await until_seen(pilot, "▶ web-0")
        app.deliver_screenshot()
        await until_seen(pilot, "screenshot:")
    assert ["web-0" in text for text in texts(tmp_path)] == [True]


def texts(folder: pathlib.Path) -> list[str]:
    return [file.read_text() for file in folder.glob("*.svg")]
