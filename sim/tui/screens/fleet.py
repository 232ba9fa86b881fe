"""The fleet screen: draws each frame of the feed, and turns keys into requests to the run."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen

from sim import events
from sim.tui import headlines, requests, rows, words
from sim.tui.drive import Drive
from sim.tui.feed import Feed, Frame
from sim.tui.keys import KEYS, key_line
from sim.tui.requests import Request
from sim.tui.screens.help import HelpScreen
from sim.tui.spans import Span
from sim.tui.widgets.event_log import EventLog
from sim.tui.widgets.fleet_table import FleetTable
from sim.tui.widgets.lines import Lines, LinesWidget
from sim.view import View

REFRESHES_A_SECOND = 4


class FleetScreen(Screen[None]):
    """One fleet, live; between runs, and while one starts or ends, the last view stays and keys ask for nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding(key.keys, key.action, key.short) for key in KEYS]

    def __init__(self) -> None:
        super().__init__()
        self._table = FleetTable(id="fleet")
        self._log = EventLog(id="log")
        self._view = View()
        self._drive: Drive | None = None
        self._feed: Feed | None = None
        self._violations = 0
        self._turn = asyncio.Lock()
        self._doing: list[str] = []
        self._note: Span | None = None

    def compose(self) -> ComposeResult:
        yield LinesWidget(id="title")
        yield LinesWidget(id="memory")
        yield LinesWidget(id="flags")
        yield LinesWidget(id="columns")
        yield self._table
        yield LinesWidget(id="detail")
        yield LinesWidget(id="status")
        yield self._log
        yield LinesWidget(lambda width, _: [key_line(width)], id="keys")

    def on_mount(self) -> None:
        self._table.focus()
        self.set_interval(1 / REFRESHES_A_SECOND, self.look)
        self._draw()

    # -- the run that is shown

    def begin(self, drive: Drive) -> None:
        """Show this run from its first entry."""
        self._drive, self._feed = drive, Feed(drive.view)
        self._note = Span("t lets the guests work, P pauses them, ? explains every key", "calm")
        self._log.clear()
        self.look()

    async def no_more_requests(self) -> None:
        """The run is about to end: it is still shown; what is under way ends first, what waits its turn is dropped."""
        self._drive = None
        async with self._turn:
            pass

    def end(self) -> None:
        """Look for the last time."""
        self.look()
        self._feed = None

    def say(self, text: str, *, failed: bool = False) -> None:
        """One line between fleet and log, until something else is said."""
        self._note = Span(text, "bad" if failed else "busy")
        if self.is_running:
            self._draw_status()

    def look(self) -> None:
        """Draw what is new; a screen that is gone, because the app died, draws nothing."""
        if self._feed is None or not self.is_running:
            return
        frame = self._feed.next()
        self._view = frame.view
        self._violations = len(self._drive.panel.violations()) if self._drive else self._violations
        self._table.show(frame.view, frame.changed)
        self._log.add(frame.entries, gap=frame.gap)
        self._draw()
        self._tell_of_refusals(frame)

    def _tell_of_refusals(self, frame: Frame) -> None:
        """The line under the fleet tells of the sandbox under the cursor; of others a toast does."""
        here = self._table.under_cursor
        refused = [
            entry
            for entry in frame.entries
            if isinstance(entry.event, events.RequestRefused) and (here is None or entry.sandbox != here.name)
        ]
        for said in filter(None, map(words.sentence, refused[-3:])):
            self.notify(said.text, title="refused", severity="error", timeout=8, markup=False)

    # -- drawing

    def _draw(self) -> None:
        view, violations = self._view, self._violations
        self._show("title", lambda width, _: [headlines.title(view, violations, width)])
        self._show("memory", lambda width, _: headlines.node_memory(view, width))
        self._show("flags", lambda width, _: [headlines.flags_line(view, width), headlines.faults_line(view, width)])
        self._show("columns", lambda width, _: [rows.header(self._table.columns(width))])
        self._draw_detail()
        self._draw_status()

    def _draw_detail(self) -> None:
        sandbox = self._table.under_cursor
        self._show("detail", lambda width, height: headlines.detail(sandbox, width, height))

    def _draw_status(self) -> None:
        note = Span(f"{', then '.join(self._doing)} …", "busy") if self._doing else self._note
        self._show("status", lambda width, _: [headlines.rule(note, width)])

    def _show(self, name: str, lines: Lines) -> None:
        self.query_one(f"#{name}", LinesWidget).show(lines)

    def on_fleet_table_cursor_moved(self) -> None:
        self._draw_detail()

    # -- keys that ask for nothing

    def action_cursor(self, count: int) -> None:
        self._table.move_by(count)

    def action_page(self, count: int) -> None:
        self._table.move_by(count * max(1, self._table.size.height))

    def action_edge(self, edge: int) -> None:
        self._table.move_to_edge(edge)

    def action_select(self) -> None:
        self._table.toggle_selected()

    def action_unselect(self) -> None:
        self._table.unselect()

    def action_help(self) -> None:
        self.app.push_screen(HelpScreen())

    # -- keys that ask something of the run

    def action_pause(self) -> None:
        self._ask(requests.pause(self._table.targets()))

    def action_pause_all(self) -> None:
        self._ask(requests.pause(requests.running(self._view)))

    def action_resume(self) -> None:
        self._ask(requests.resume(self._table.targets()))

    def action_tick(self) -> None:
        self._ask(requests.tick())

    def action_toggle_punch(self) -> None:
        self._ask(requests.toggle_punch(self._view))

    def action_toggle_background(self) -> None:
        self._ask(requests.toggle_background(self._view))

    def action_arm(self) -> None:
        self._ask(requests.arm(self._view.sandboxes[name] for name in self._table.targets()))

    def action_arm_all(self) -> None:
        self._ask(requests.arm_all(self._view))

    def action_clear(self) -> None:
        self._ask(requests.clear())

    def _ask(self, request: Request | None) -> None:
        if self._drive is None:
            self.say("no run to ask: it is starting or ending", failed=True)
        elif request is None:
            self.say("no sandbox is there for that", failed=True)
        else:
            self.run_worker(self._carry_out(request), group="requests")

    async def _carry_out(self, request: Request) -> None:
        """One request at a time: the checkers look at the fleet after each, and want it still."""
        self._note = None
        self._doing.append(request.doing)
        self._draw_status()
        try:
            async with self._turn:
                if self._drive is not None:
                    await request.ask(self._drive)
        except Exception as error:  # noqa: BLE001 - whatever it is belongs on one line, not over the screen
            self.say(f"{request.doing} failed: {words.one_line(error)}", failed=True)
        finally:
            self._doing.remove(request.doing)
            self.look()
