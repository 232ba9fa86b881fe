"""The app's base: gives what is new of one run to its screens, and shows one screen or another."""

from __future__ import annotations

import pathlib
from collections.abc import Awaitable, Callable, Iterable
from typing import ClassVar

from textual.app import App, SystemCommand
from textual.binding import BindingType
from textual.driver import Driver
from textual.screen import Screen

from sim.tui.driver import MortalTerminal
from sim.tui.keys import EVERYWHERE, Key, asks
from sim.tui.live import Live
from sim.tui.screens.confirm import ConfirmScreen
from sim.tui.screens.faults import FaultsScreen
from sim.tui.screens.flags import FlagsScreen
from sim.tui.screens.fleet import FleetScreen
from sim.tui.screens.help import HelpScreen
from sim.tui.screens.live import LiveScreen, bindings
from sim.tui.screens.memory import MemoryScreen
from sim.tui.screens.sandbox import SandboxScreen
from sim.tui.themes import HIGH_CONTRAST

REFRESHES_A_SECOND = 4
SCREENS: dict[str, type[LiveScreen]] = {
    "flags": FlagsScreen,
    "faults": FaultsScreen,
    "memory": MemoryScreen,
}
"""The screens over the fleet that a key shows, by the name in the key's action."""


class ShowApp(App[None]):
    """Where the run comes from is up to those that derive from it: a drill, or a recording."""

    CSS_PATH = pathlib.Path(__file__).with_name("app.tcss")  # beside this one, wherever one that derives from it is
    TITLE = "snapdrill"
    KEYS: ClassVar[tuple[Key, ...]] = EVERYWHERE
    BINDINGS: ClassVar[list[BindingType]] = bindings(EVERYWHERE)

    def __init__(self, terminal: type[Driver] = MortalTerminal) -> None:
        super().__init__(driver_class=terminal)
        self.VERTICAL_BREAKPOINTS = [(0, "-short"), (32, "-tall")]
        self.register_theme(HIGH_CONTRAST)
        self.live = Live()
        self.live.told = self._draw_status
        self.live.confirm = self.confirm
        self._fleet = FleetScreen(self.live)

    def first_screen(self) -> Screen[None]:
        """What is shown at first, and below all others."""
        return self._fleet

    async def on_mount(self) -> None:
        await self.push_screen(self.first_screen())
        self.set_interval(1 / REFRESHES_A_SECOND, self.look)
        self.ready()

    def ready(self) -> None:
        """The first screen is there: begin."""

    def look(self) -> None:
        """Give what is new to every screen; an app that is gone draws nothing."""
        frame = self.live.next() if self.is_running else None
        if frame is not None:
            for screen in self.live_screens():
                screen.take(frame)

    def _draw_status(self) -> None:
        """Something is asked, or was: its outcome is in the view."""
        self.look()
        for screen in self.live_screens():
            screen.draw_status()

    def live_screens(self) -> list[LiveScreen]:
        """Those that show the run, the one at the bottom first."""
        return [screen for screen in self.screen_stack if isinstance(screen, LiveScreen) and screen.is_running]

    async def action_show(self, name: str) -> None:
        """Show this screen over the fleet, instead of the one that is there; `fleet` is what is below."""
        while len(self.screen_stack) > 1 and self.screen is not self._fleet:
            await self.pop_screen()
        if name in SCREENS:
            await self.push_screen(SCREENS[name](self.live))

    def action_sandbox(self) -> None:
        """Show the sandbox under the cursor."""
        sandbox = self._fleet.under_cursor
        if sandbox is not None:
            self.push_screen(SandboxScreen(self.live, sandbox.name))

    def action_help(self) -> None:
        self.push_screen(HelpScreen(self._keys_of(self.screen)))

    def _keys_of(self, screen: Screen[object]) -> tuple[Key, ...]:
        """Those that do something there: in a run that is only watched nothing is asked."""
        keys = (*(screen.KEYS if isinstance(screen, LiveScreen) else ()), *self.KEYS)
        return tuple(key for key in keys if self.live.refusing is None or not asks(key))

    def confirm(self, question: str, go_on: Callable[[], None]) -> None:
        """Go on after a yes."""
        self.push_screen(ConfirmScreen(question), lambda yes: go_on() if yes else None)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Textual's own that are of use here, and every key that does something on this screen."""
        yield from (each for each in super().get_system_commands(screen) if each.title in {"Theme", "Screenshot"})
        for key in self._keys_of(screen):
            yield SystemCommand(f"{key.short} ({key.shown})", key.help, self._runs(key, screen))

    def _runs(self, key: Key, screen: Screen[object]) -> Callable[[], Awaitable[object]]:
        namespace = self if key in self.KEYS else screen
        return lambda: self.run_action(key.action, namespace)
