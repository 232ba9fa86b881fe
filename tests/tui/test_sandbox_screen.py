"""One sandbox in full: its pages while they are copied and punched, its pause's stages, and its keys."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from textual.pilot import Pilot

from engine import events as engine_events
from sim.files.faults import AtChunk
from sim.record import events
from sim.tui.fleet_app import FleetApp

if TYPE_CHECKING:
    from tests.tui.conftest import RecordedDrill

GOLDENS = pathlib.Path(__file__).parent / "goldens"
MIB = 1 << 20
PUNCH = "memfd-punch-on-snapshot"


def begin_pause(drill: RecordedDrill, name: str) -> None:
    """Frozen and scanned: half of its memory is dirty, in two places; a quarter is clean, a quarter zero."""
    pause = f"{name}.p1"
    drill.now = 2.0
    drill.begin_pause(name, punch=True)
    drill.now = 2.0004
    drill.tell(events.GuestFrozen(f"{name}.1", 0.4), name, pause)
    drill.now = 2.0016
    drill.tell(engine_events.Scanned("write-protect-scan", 16 * MIB, 0, 24 * MIB, 1.1), name, pause)
    drill.tell(events.MemoryMapped("256d 256c 128d 100m 28d 256z"), name, pause)


def copy(drill: RecordedDrill, name: str, chunk: int, start: int, *, punched: bool = True) -> None:
    drill.now = round(drill.now + 0.0007, 6)
    left = (24 - 2 * chunk) * MIB
    published = engine_events.ChunkPublished(chunk, 2 * MIB, 2 * MIB, left, (chunk + 1) * 2 * MIB, start)
    drill.tell(published, name, f"{name}.p1")
    if chunk == 0:
        drill.tell(engine_events.Condemned(f"{name}.p1"), name, f"{name}.p1")
        drill.tell(engine_events.CleanPagesPunched(16 * MIB, 16 * MIB), name, f"{name}.p1")
    if punched:
        drill.tell(engine_events.ChunkPunched(chunk, 2 * MIB, start, 2 * MIB), name, f"{name}.p1")


def tell_of_a_held_copy(drill: RecordedDrill) -> None:
    """Three chunks are published, two of them punched; two more are under copiers that are held."""
    drill.tell(events.PaceSet(200.0, True), "web-2")
    begin_pause(drill, "web-2")
    copy(drill, "web-2", 0, 0)
    copy(drill, "web-2", 1, 2 * MIB)
    copy(drill, "web-2", 2, 4 * MIB, punched=False)
    for chunk, start in ((3, 6 * MIB), (4, 16 * MIB)):
        drill.tell(events.BoundaryReached("chunk", chunk, start, 2 * MIB), "web-2", "web-2.p1")


def text_of(app: FleetApp) -> str:
    strips = app.screen._compositor.render_strips()
    return "".join("".join(segment.text for segment in strip).rstrip() + "\n" for strip in strips)


async def until(pilot: Pilot[None], app: FleetApp, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain:\n{text_of(app)}"
        await pilot.pause(0.02)


async def frame(drill: RecordedDrill, size: tuple[int, int], tell: Callable[[RecordedDrill], None]) -> str:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=size) as pilot:
        tell(drill)
        app.look()
        await pilot.press("j", "j", "enter")
        await pilot.pause()
        return text_of(app)


def check(name: str, shown: str) -> None:
    golden = GOLDENS / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDENS"):
        golden.write_text(shown)
    assert shown == golden.read_text()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 45)])
async def test_a_held_copy_past_the_point_of_no_return_looks_as_agreed(
    width: int, height: int, drill: RecordedDrill
) -> None:
    check(f"sandbox-{width}x{height}", await frame(drill, (width, height), tell_of_a_held_copy))


@pytest.mark.parametrize(("width", "height"), [(100, 30), (200, 60)])
async def test_every_size_shows_the_sandbox_and_its_keys(width: int, height: int, drill: RecordedDrill) -> None:
    shown = await frame(drill, (width, height), tell_of_a_held_copy)
    assert "web-2 ◆ CONDEMNED" in shown
    assert "esc fleet" in shown


async def test_a_sandbox_without_a_pause_says_that_places_are_not_known(drill: RecordedDrill) -> None:
    shown = await frame(drill, (80, 24), lambda _drill: None)
    assert "32 of 32 MiB resident; where, a pause's scan finds out" in shown


async def test_a_refused_resume_of_a_punched_sandbox_says_why_here(drill: RecordedDrill) -> None:
    def tell(told: RecordedDrill) -> None:
        told.discard("web-2")
        told.tell(events.RequestRefused("resume", "it was discarded and can never run again: ENOSPC"), "web-2")

    shown = await frame(drill, (80, 24), tell)
    assert "web-2 ✗ discarded; refused: it was discarded and can never run again" in shown


@pytest.mark.parametrize(
    ("keys", "call"),
    [
        ("p", ("pause", ["web-0"])),
        ("j p", ("pause", ["web-1"])),
        ("k p", ("pause", ["web-5"])),
        ("r", ("resume", ["web-0"])),
        ("h", ("pace", "web-0", 1.0, True, 0)),
        ("s", ("pace", "web-0", 200.0, False, 0)),
        ("n", ("pace", "web-0", 1.0, True, 0)),
        ("e", ("inject", "copy.write", "ENOSPC", AtChunk(3), "web-0")),
        ("c", ("clear",)),
        ("f", ("set_flag", PUNCH, True)),
        ("full_stop", ("tick", 1)),
    ],
)
async def test_a_key_asks_for_one_thing_of_this_sandbox(
    keys: str, call: tuple[object, ...], drill: RecordedDrill
) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("enter", *keys.split())
        await until(pilot, app, lambda: len(drill.calls) > 1)
        assert drill.calls == [("started",), call]


async def test_the_keys_of_the_pace_go_on_from_what_was_asked(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("enter", "s")
        await until(pilot, app, lambda: drill.view().sandboxes["web-0"].pace.factor > 1)
        await pilot.press("h")
        await until(pilot, app, lambda: app.live.view.sandboxes["web-0"].pace.held)
        await pilot.press("n")
        await until(pilot, app, lambda: len(drill.calls) == 4)
        await pilot.press("h")
        await until(pilot, app, lambda: len(drill.calls) == 5)
    paced = [call[1:] for call in drill.calls if call[0] == "pace"]
    assert paced[:4] == [
        ("web-0", 200.0, False, 0),
        ("web-0", 200.0, True, 0),
        ("web-0", 200.0, True, 1),
        ("web-0", 200.0, False, 0),
    ]


async def test_what_is_held_is_let_go_before_the_run_is_judged(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(80, 24)) as pilot:
        drill.tell(events.PaceSet(1.0, True), "web-1")
        app.look()
        await pilot.press("q")
        await until(pilot, app, lambda: ("torn down",) in drill.calls)
    assert drill.calls[1:] == [("pace", "*", 1.0, False, 0), ("finish",), ("torn down",)]


async def test_escape_goes_back_to_the_fleet(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("j", "enter")
        await until(pilot, app, lambda: "pages " in text_of(app))
        await pilot.press("escape")
        await until(pilot, app, lambda: "▶ web-1" in text_of(app))
