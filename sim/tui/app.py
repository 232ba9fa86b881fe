"""The app: runs, screens, themes, questions."""

from __future__ import annotations

import asyncio
import pathlib
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import ClassVar

from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.driver import Driver
from textual.screen import ModalScreen, Screen
from textual.theme import Theme
from textual.widgets import Static

from sim.record.view import View
from sim.report.words import one_line
from sim.tui import requests
from sim.tui.frames import Live
from sim.tui.keys import EVERYWHERE, Key, asks
from sim.tui.requests import Drive
from sim.tui.screens.faults import FaultsScreen
from sim.tui.screens.flags import FlagsScreen
from sim.tui.screens.fleet import FleetScreen
from sim.tui.screens.help import HelpScreen
from sim.tui.screens.live import LiveScreen, bindings
from sim.tui.screens.memory import MemoryScreen
from sim.tui.screens.sandbox import SandboxScreen
from sim.tui.terminal import MortalTerminal
from sim.tui.twin import Twin

HIGH_CONTRAST = Theme(
    name="high-contrast",
    primary="#5fafff",
    secondary="#87ffff",
    warning="#ffd700",
    error="#ff5f5f",
    success="#5fff87",
    accent="#ff87ff",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#1c1c1c",
    dark=True,
    text_alpha=1.0,
    variables={
        "text-primary": "#5fafff",
        "text-secondary": "#87ffff",
        "text-warning": "#ffd700",
        "text-error": "#ff5f5f",
        "text-success": "#5fff87",
        "text-accent": "#ff87ff",
    },
)
"""Bright tones on black; every one of them at least 7:1 against it (WCAG AAA)."""


class ConfirmScreen(ModalScreen[bool]):
    """Gives True for `y` or enter, False for `n` or esc; what is behind it stays live."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "dismiss(True)", "yes"),
        Binding("n,escape,q", "dismiss(False)", "no"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        with Vertical(id="confirm"):
            yield Static(self._question, markup=False)
            yield Static("\ny yes   n no", markup=False)


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


Start = Callable[[], AbstractAsyncContextManager[Drive, bool | None]]
CLOCK_LOOKS_A_SECOND = 20


class FleetApp(ShowApp):
    """Starts runs with `start`; `last` is the final view of the latest, `failure` what ended the app, if anything.

    `twin` is run beside them, when a key asks for it, and ended with them.
    """

    def __init__(self, start: Start, terminal: type[Driver] = MortalTerminal, twin: Twin | None = None) -> None:
        super().__init__(terminal)
        self.live.twin = twin
        if twin is not None:
            twin.told = self.live.told
        self.last: View | None = None
        self.failure: Exception | None = None
        self.signal: int | None = None
        self._start = start
        self._again = True
        self._judges = True
        self._wanted = asyncio.Event()
        self._life: asyncio.Task[None] | None = None

    def ready(self) -> None:
        self.set_interval(1 / CLOCK_LOOKS_A_SECOND, self._look_at_clock)
        self._life = asyncio.create_task(self._live(), name="runs")

    async def on_unmount(self) -> None:
        """However the app ends, its runs are torn down first."""
        self.end_run(again=False)
        if self._life is not None:
            await self._life
        await self._end_twin()

    def end_run(self, *, again: bool, judged: bool = True) -> None:
        """End the run, `judged` or at once; then start it again on the same seed, or leave."""
        self._again = self._again and again
        self._judges = judged
        self._wanted.set()

    def end_by_signal(self, number: int) -> None:
        """As `q`, remembering which signal it was."""
        self.signal = number
        self.end_run(again=False)

    async def action_quit(self) -> None:
        self.end_run(again=False)

    def action_restart(self) -> None:
        if self.live.refusing is not None:
            self.live.say(self.live.refusing, failed=True)
        else:
            self.confirm("Tear this run down and begin again on the same seed?", lambda: self.end_run(again=True))

    async def _live(self) -> None:
        try:
            while self._again:
                self._wanted.clear()
                await self._one_run()
        except Exception as error:  # noqa: BLE001 - it is raised again by `drive`, once the terminal is back
            self.failure = error
            self.live.say(f"failed: {one_line(error)}", failed=True)
        self.exit()

    async def _one_run(self) -> None:
        self.live.say("starting the node and its guests …")
        async with self._start() as drive:
            for screen in self.live_screens():
                screen.begin()
            self.live.begin(drive)
            self.begun()
            await self._wanted.wait()
            await self._end_twin()
            await self.live.no_more_requests()
            if self._judges:
                self.live.say("judging every invariant and tearing down guests, node and memory …")
                self.last = await drive.finish()
                self.look()
                self.ended(self.last)
            self.live.end()

    async def _end_twin(self) -> None:
        """What it has come to stays."""
        if self.live.twin is not None:
            await self.live.twin.stop()

    def begun(self) -> None:
        """A run is there to be asked."""

    def ended(self, last: View) -> None:
        """A run was judged and torn down; its final view."""

    # -- the clock

    def _look_at_clock(self) -> None:
        """A tick waits for nothing: where something is under way it is left out."""
        if self.live.clock.is_due(time.monotonic()) and not self.live.is_asked:
            self.live.ask(requests.tick())

    def action_hold(self) -> None:
        self.live.clock.toggle(time.monotonic())
        self.look()

    def action_speed(self, steps: int) -> None:
        self.live.clock.change(steps)
        self.look()

    def action_tick(self) -> None:
        self.live.ask(requests.tick())


async def drive(app: FleetApp) -> None:
    """Run the app to its end; SIGINT, SIGTERM and SIGHUP end it as `q` does. Raises what a run failed with."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, app.end_by_signal, number)
    await app.run_async()
    if app.failure is not None:
        raise app.failure
