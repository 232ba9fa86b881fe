"""Every key that a screen tells of does something there."""

from __future__ import annotations

import pytest

from sim.tui.fleet_app import FleetApp
from sim.tui.keys import Key
from sim.tui.screens.faults import FaultsScreen
from sim.tui.screens.flags import FlagsScreen
from sim.tui.screens.fleet import FleetScreen
from sim.tui.screens.live import LiveScreen
from sim.tui.screens.log import LogScreen
from sim.tui.screens.map import MapScreen
from sim.tui.screens.memory import MemoryScreen
from sim.tui.screens.sandbox import SandboxScreen
from sim.tui.terminal import OTHER, to_ascii

SCREENS: tuple[type[LiveScreen], ...] = (
    FleetScreen,
    SandboxScreen,
    FlagsScreen,
    FaultsScreen,
    MemoryScreen,
    LogScreen,
    MapScreen,
)
EACH = [(screen, key) for screen in SCREENS for key in screen.KEYS]


def named(each: object) -> str:
    return each.action if isinstance(each, Key) else getattr(each, "__name__", "")


@pytest.mark.parametrize(("screen", "key"), EACH, ids=named)
def test_a_key_of_a_screen_has_its_action(screen: type[LiveScreen], key: Key) -> None:
    owner, _, action = key.action.partition("(")[0].rpartition(".")
    assert hasattr(FleetApp if owner == "app" else screen, f"action_{action}")


@pytest.mark.parametrize("key", FleetApp.KEYS, ids=named)
def test_a_key_of_every_screen_has_its_action(key: Key) -> None:
    assert hasattr(FleetApp, f"action_{key.action.partition('(')[0]}")


@pytest.mark.parametrize("screen", SCREENS, ids=named)
def test_no_key_means_two_things_on_one_screen(screen: type[LiveScreen]) -> None:
    keys = [each for key in screen.KEYS for each in key.keys.split(",")]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(("screen", "key"), EACH, ids=named)
def test_a_key_is_told_on_a_terminal_without_signs_as_well(screen: type[LiveScreen], key: Key) -> None:
    assert OTHER not in to_ascii(f"{key.shown} {key.short}")
