"""The app: screens, themes, questions."""

from __future__ import annotations

import pathlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import ClassVar

from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.driver import Driver
from textual.screen import ModalScreen, Screen
from textual.theme import Theme
from textual.widgets import Static

from sim.record.view import View
from sim.tui.frames import Live
from sim.tui.keys import EVERYWHERE, Key, asks, name_of, with_own
from sim.tui.screens.faults import FaultsScreen
from sim.tui.screens.flags import FlagsScreen
from sim.tui.screens.fleet import FleetScreen
from sim.tui.screens.help import HelpScreen
from sim.tui.screens.live import LEAST, LiveScreen, bindings
from sim.tui.screens.log import LogScreen
from sim.tui.screens.map import MapScreen
from sim.tui.screens.memory import MemoryScreen
from sim.tui.screens.rollout import RolloutScreen
from sim.tui.screens.sandbox import SandboxScreen
from sim.tui.spans import colours
from sim.tui.terminal import MortalTerminal

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


class ConfirmScreen(ModalScreen[bool | None]):
    """Gives True for `y` or enter, False for `n`, None for esc; what is behind it stays live."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "dismiss(True)", "yes"),
        Binding("n", "dismiss(False)", "no"),
        Binding("escape,q", "dismiss(None)", "cancel"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        with Vertical(id="confirm"):
            yield Static(self._question, markup=False)
            yield Static("\n[@click=screen.dismiss(True)]y yes[/]   [@click=screen.dismiss(False)]n no[/]")


REFRESHES_A_SECOND = 4
LARGE = 200
"""Sandboxes from which on a fleet is shown as a map at first."""
SCREENS: dict[str, type[LiveScreen]] = {
    "flags": FlagsScreen,
    "faults": FaultsScreen,
    "memory": MemoryScreen,
    "log": LogScreen,
    "map": MapScreen,
    "rollout": RolloutScreen,
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
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (LEAST[0], "-wide")]
        self.VERTICAL_BREAKPOINTS = [(0, "-low"), (LEAST[1], "-short"), (32, "-tall")]
        self.register_theme(HIGH_CONTRAST)
        self.live = Live()
        self.live.keys = self.KEYS
        self.live.on_change = self._draw_status
        self.live.confirm = self.confirm
        self._fleet = FleetScreen(self.live)
        self._saw_first = False
        self._own: Mapping[str, str] = {}

    def use_keys(self, own: Mapping[str, str]) -> None:
        """Take these keys, by action, beside the built-in ones."""
        everywhere = {name_of(key) for key in self.KEYS}
        for action, key in own.items():
            self.bind(key, action if action in everywhere else f"screen.{action}")
        self._own = own

    def get_css_variables(self) -> dict[str, str]:
        """With the colours of the tones."""
        return super().get_css_variables() | colours(dark=self.current_theme.dark)

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
            first = self._first_over_the_fleet(frame.view)
            if first is not None and not self._saw_first and self.screen is self._fleet:
                self._saw_first = True
                self.push_screen(first(self.live))
            for screen in self.live_screens():
                screen.take(frame)

    def _first_over_the_fleet(self, view: View) -> type[LiveScreen] | None:
        """What says more than the fleet's rows: stages where there are some, a map where there are many rows."""
        if view.rollout is not None:
            return RolloutScreen
        return MapScreen if len(view.sandboxes) >= LARGE else None

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

    def action_copy(self) -> None:
        """Copy what the mouse has marked, else the run's id."""
        run = self.live.view.run
        marked = self.screen.get_selected_text()
        if marked:
            self.copy_to_clipboard(marked)
            self.live.say("copied what is marked", calm=True)
        elif run is not None:
            self.copy_to_clipboard(run.run)
            self.live.say(f"copied the run's id: {run.run}", calm=True)

    def deliver_screenshot(
        self, filename: str | None = None, path: str | None = None, time_format: str | None = None
    ) -> str | None:
        """Into the run's folder, where there is one."""
        folder = self.folder()
        if folder is None:
            return super().deliver_screenshot(filename, path, time_format)
        file = self.save_screenshot(filename, str(folder), time_format)
        self.live.say(f"screenshot: {file}", calm=True)
        return file

    def folder(self) -> pathlib.Path | None:
        """The folder of the run that is shown."""
        return None

    def action_help(self) -> None:
        self.push_screen(HelpScreen(self._keys_of(self.screen)))

    def _keys_of(self, screen: Screen[object]) -> tuple[Key, ...]:
        """Those that do something there: in a run that is only watched nothing is asked."""
        keys = (*(screen.KEYS if isinstance(screen, LiveScreen) else ()), *self.KEYS)
        return with_own((key for key in keys if self.live.refusing is None or not asks(key)), self._own)

    def confirm(self, question: str, go_on: Callable[[], None], otherwise: Callable[[], None] = lambda: None) -> None:
        """Go on after a yes, otherwise after a no; esc does neither."""
        self.push_screen(ConfirmScreen(question), lambda yes: None if yes is None else go_on() if yes else otherwise())

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Textual's own that are of use here, and every key that does something on this screen."""
        yield from (each for each in super().get_system_commands(screen) if each.title in {"Theme", "Screenshot"})
        for key in self._keys_of(screen):
            yield SystemCommand(f"{key.short} ({key.shown})", key.help, self._runs(key, screen))

    def _runs(self, key: Key, screen: Screen[object]) -> Callable[[], Awaitable[object]]:
        namespace = self if name_of(key) in map(name_of, self.KEYS) else screen
        return lambda: self.run_action(key.action, namespace)
