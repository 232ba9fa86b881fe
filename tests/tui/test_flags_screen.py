"""The flags screen: what it shows of flags and their source, and what its keys ask for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flags.inline import Rollout
from sim.record import events, source_events
from sim.tui.fleet_app import FleetApp
from tests.tui.looking import seen, until, until_seen
from tests.tui.test_fleet_goldens import check, tell_a_story, text_of

if TYPE_CHECKING:
    from tests.tui.conftest import RecordedDrill

PUNCH = "memfd-punch-on-snapshot"
BACKGROUND = "memfd-background-copy"
DEDUP = "memfile-diff-dedup"
MIB = 1 << 20


def from_relay(drill: RecordedDrill) -> None:
    drill.tell(events.RunStarted(1, "0", "run", "demo", 42, [], "", 1024 * MIB, "disk", None, flag_source="relay"))
    drill.tell(source_events.FlagSourceChanged("VALID", None))


def tell_of_flags(drill: RecordedDrill) -> None:
    """A rollout by the screen, an outage, and a lease that runs out."""
    tell_a_story(drill)
    from_relay(drill)
    drill.now = 3.0
    drill.tell(events.FlagSet(PUNCH, {"rollout": "50%", "by": "sandbox"}, by="screen"))
    drill.tell(source_events.LeaseMeasured(open=True, age=0.1, duration=2.0))
    drill.now = 4.0
    drill.tell(source_events.OutageBegan("freeze", ""))
    drill.now = 6.1
    drill.tell(source_events.LeaseMeasured(open=False, age=2.1, duration=2.0))


async def frame(drill: RecordedDrill, size: tuple[int, int], keys: list[str]) -> str:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=size) as pilot:
        tell_of_flags(drill)
        app.look()
        await pilot.press("2", *keys)
        await pilot.pause()
        return text_of(app)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 45)])
async def test_the_flags_look_as_agreed(width: int, height: int, drill: RecordedDrill) -> None:
    check(f"flags-{width}x{height}", await frame(drill, (width, height), ["shift+right"]))


@pytest.mark.parametrize(
    ("keys", "calls"),
    [
        ("right enter", [("set_flag", PUNCH, Rollout(1, "sandbox"))]),
        ("L l enter", [("set_flag", PUNCH, Rollout(11, "sandbox"))]),
        ("shift+right shift+right left enter", [("set_flag", PUNCH, Rollout(19, "sandbox"))]),
        ("left enter", [("set_flag", PUNCH, Rollout(0, "sandbox"))]),
        ("L w enter", [("set_flag", PUNCH, Rollout(10, "team"))]),
        ("L escape right enter", [("set_flag", PUNCH, Rollout(1, "sandbox"))]),
        ("j H enter", [("set_flag", BACKGROUND, Rollout(90, "sandbox"))]),
        ("f", [("set_flag", PUNCH, True)]),
        ("j j j f", [("set_flag", DEDUP, {"enabled": True})]),
        ("G k K", [("set_flag", PUNCH, False)]),
        ("d", [("outage", "drop")]),
        ("z u", [("outage", "freeze"), ("outage", "recover")]),
        ("D", [("outage", "down")]),
    ],
)
async def test_a_key_asks_the_run_for_one_thing(keys: str, calls: list[Any], drill: RecordedDrill) -> None:
    from_relay(drill)
    async with FleetApp(lambda: drill).run_test(size=(80, 24)) as pilot:
        await until_seen(pilot, "● running")
        await pilot.press("2", *keys.split())
        await until(pilot, lambda: len(drill.calls) > len(calls), "the run was asked")
        assert drill.calls == [("started",), *calls]


async def test_a_rollout_is_watched_from_nobody_to_everybody(drill: RecordedDrill) -> None:
    async with FleetApp(lambda: drill).run_test(size=(110, 30)) as pilot:
        await until_seen(pilot, "● running")
        await pilot.press("2")
        await until_seen(pilot, "rollout ◂ 0% by sandbox ▸", "cohort  0 of 6")
        await pilot.press(*["L"] * 10)
        await until_seen(pilot, "◂ 100% by sandbox ▸", "⏎ sets it", "at 100%  6 of 6; 6 join: web-0, web-1")
        await pilot.press("enter")
        await until_seen(pilot, "◐ 100% by sandbox", "screen", "cohort  6 of 6: web-0")
        assert "⏎ sets it" not in seen(pilot.app)


async def test_the_kill_switch_does_not_wait_for_what_is_under_way(drill: RecordedDrill) -> None:
    async with FleetApp(lambda: drill).run_test(size=(110, 30)) as pilot:
        await until_seen(pilot, "● running")
        drill.waits = asyncio.Event()  # as while a pause goes on
        await pilot.press("p", "K")
        await until(pilot, lambda: ("set_flag", PUNCH, False) in drill.calls, "punching is asked off")
        drill.waits.set()


async def test_a_source_that_is_not_ours_to_break_says_why(drill: RecordedDrill) -> None:
    async with FleetApp(lambda: drill).run_test(size=(140, 30)) as pilot:
        await until_seen(pilot, "● running")
        await pilot.press("2", "d")
        await until_seen(pilot, "there is no stream to break: leave, and snapdrill tui --relay")
        assert drill.calls == [("started",)]


async def test_an_outage_is_seen_until_it_is_over(drill: RecordedDrill) -> None:
    from_relay(drill)
    async with FleetApp(lambda: drill).run_test(size=(110, 30)) as pilot:
        await until_seen(pilot, "source relay ✓ VALID")
        await pilot.press("2", "z")
        await until_seen(pilot, "source relay ‼ frozen", "flag source fails: freeze")
        await pilot.press("u")
        await until_seen(pilot, "source relay ✓ VALID", "flag source works again")


async def test_escape_forgets_the_draft_and_then_goes_back(drill: RecordedDrill) -> None:
    async with FleetApp(lambda: drill).run_test(size=(110, 30)) as pilot:
        await until_seen(pilot, "● running")
        await pilot.press("2", "L", "escape")
        await until_seen(pilot, "rollout ◂ 0% by sandbox ▸")
        await pilot.press("escape")
        await until_seen(pilot, "▶ web-0    ● running")
        assert drill.calls == [("started",)]
