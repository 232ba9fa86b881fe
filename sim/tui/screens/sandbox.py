"""The sandbox screen: where its memory is, page by page, how its pause went, why, and what happened to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from sim.record import events
from sim.record.ledger import Entry
from sim.record.view import SandboxView
from sim.tui import charts, headlines, page_map, requests
from sim.tui.frames import Frame, Live
from sim.tui.keys import SANDBOX, Key
from sim.tui.panes import EventLog, LinesWidget
from sim.tui.screens.live import LiveScreen, bindings

FOR_ALL = (events.FlagSet, events.FaultArmed, events.FaultsCleared, events.NodeStarted, events.NodeCrashed)
"""What happens to the whole run and is shown for every sandbox."""

WHO = (2, 3)
"""Lines for what it is: at least, at most."""


class SandboxScreen(LiveScreen):
    """One sandbox of the fleet, by name: it stays while a run is started again."""

    KEYS: ClassVar[tuple[Key, ...]] = SANDBOX
    BINDINGS: ClassVar[list[BindingType]] = bindings(SANDBOX)

    def __init__(self, live: Live, name: str) -> None:
        super().__init__(live)
        self._of = name
        self._log = EventLog(id="log")

    def compose(self) -> ComposeResult:
        yield LinesWidget(id="title")
        yield LinesWidget(id="who")
        yield LinesWidget(id="pages")
        yield LinesWidget(id="timeline")
        yield LinesWidget(id="why")
        yield LinesWidget(id="status")
        yield self._log
        yield from self.lowest()

    def on_mount(self) -> None:
        """Beside that of the base: textual calls both."""
        self._tell_again()

    def begin(self) -> None:
        self._log.clear()

    def _tell_again(self) -> None:
        self._log.clear()
        self._log.add(filter(self._concerns_it, self.live.view.log), gap=False)

    def _concerns_it(self, entry: Entry) -> bool:
        return entry.sandbox == self._of or isinstance(entry.event, FOR_ALL)

    @property
    def _sandbox(self) -> SandboxView | None:
        return self.live.view.sandboxes.get(self._of)

    def take(self, frame: Frame) -> None:
        self._log.add(filter(self._concerns_it, frame.entries), gap=frame.gap)
        self._draw()

    def _draw(self) -> None:
        sandbox = self._sandbox
        self.draw_title()
        if sandbox is not None:
            who = self.query_one("#who", LinesWidget)
            who.show_whole(lambda width, height: headlines.who(sandbox, width, height), *WHO)
            self.show("pages", lambda width, height: page_map.lines(sandbox, width, height))
            self.show("timeline", lambda width, height: charts.time_lines(sandbox, width, height))
            self.show("why", lambda width, height: headlines.why(sandbox, width, height))
        self.draw_status()

    # -- keys

    def action_next(self, count: int) -> None:
        names = list(self.live.view.sandboxes)
        if self._of in names:
            self._of = names[(names.index(self._of) + count) % len(names)]
            self._tell_again()
            self._draw()

    def action_pause(self) -> None:
        self.live.pause([self._of])

    def action_resume(self) -> None:
        self.live.ask(requests.resume([self._of]))

    def action_salvage(self) -> None:
        self.live.ask(requests.salvage(self.live.view, [self._of]))

    def action_stop_copy(self) -> None:
        self._ask_of_it(requests.stop)

    def action_step(self) -> None:
        self._ask_of_it(requests.step)

    def action_slow(self) -> None:
        self._ask_of_it(requests.slow)

    def _ask_of_it(self, make: Callable[[SandboxView], requests.Request]) -> None:
        sandbox = self._sandbox
        self.live.ask(None if sandbox is None else make(sandbox))

    def action_arm(self) -> None:
        sandbox = self._sandbox
        self.live.ask(requests.arm([sandbox] if sandbox else []))

    def action_clear(self) -> None:
        self.live.ask(requests.clear())

    def action_toggle_punch(self) -> None:
        self.live.ask(requests.toggle_punch(self.live.view))
