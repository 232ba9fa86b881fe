"""The fleet screen: draws each frame of the feed, and turns keys into requests to the run."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import Input

from sim.record import events
from sim.record.view import SandboxView
from sim.tui import headlines, requests, rows
from sim.tui.frames import Frame, Live
from sim.tui.keys import FLEET, Key
from sim.tui.panes import EventLog, FleetTable, LinesWidget, together
from sim.tui.screens.live import LiveScreen, bindings

DETAIL = {"-short": (3, 5), "-tall": (6, 9)}
"""Lines under the fleet for the sandbox under the cursor: at least, at most."""


class FleetScreen(LiveScreen):
    """One fleet, live."""

    KEYS: ClassVar[tuple[Key, ...]] = FLEET
    BINDINGS: ClassVar[list[BindingType]] = bindings(FLEET)

    def __init__(self, live: Live) -> None:
        super().__init__(live)
        self._table = FleetTable(id="fleet")
        self._log = EventLog(id="log")
        self._words = Input(placeholder="part of a name, state, team …; web-1*; !paused", compact=True, id="filter")

    @property
    def under_cursor(self) -> SandboxView | None:
        """The sandbox that the cursor is on; None in an empty fleet."""
        return self._table.under_cursor

    def compose(self) -> ComposeResult:
        yield LinesWidget(id="title")
        yield LinesWidget(id="memory")
        yield LinesWidget(id="flags")
        yield self._words
        yield LinesWidget(id="choice")
        yield LinesWidget(id="columns")
        yield self._table
        yield LinesWidget(id="detail")
        yield LinesWidget(id="status")
        yield self._log
        yield from self.lowest()

    def on_mount(self) -> None:
        self._table.focus()

    # -- the run that is shown

    def begin(self) -> None:
        self._log.clear()

    def take(self, frame: Frame) -> None:
        self._table.show(frame.view, frame.changed)
        self._log.add(frame.entries, gap=frame.gap)
        self._draw()
        self._tell_of_refusals(frame)

    def _tell_of_refusals(self, frame: Frame) -> None:
        """The line under the fleet shows the cursor's sandbox; a refusal of another is a toast."""
        here = self._table.under_cursor
        refused = [
            entry
            for entry in frame.entries
            if isinstance(entry.event, events.RequestRefused) and (here is None or entry.sandbox != here.name)
        ]
        for said in together(refused)[-3:]:
            self.notify(said.text, title="refused", severity="error", timeout=8, markup=False)

    # -- drawing

    def _draw(self) -> None:
        view = self.live.view
        self.draw_title()
        self.show("memory", lambda width, _: headlines.node_memory(view, width))
        self.show("flags", lambda width, _: [headlines.flags_line(view, width), headlines.faults_line(view, width)])
        self._draw_choice()
        self._draw_detail()
        self.draw_status()

    def _draw_choice(self) -> None:
        self.live.chosen = self._table.selected
        lines = self.query_one("#choice", LinesWidget)
        lines.set_class(bool(self._table.choice.words or self.live.chosen), "-open")
        lines.show(lambda width, _: [self._table.choice_line(width)])
        self.show("columns", lambda width, _: [rows.header(self._table.columns(width))])

    def _draw_detail(self) -> None:
        sandbox = self._table.under_cursor
        lines = self.query_one("#detail", LinesWidget)
        lines.show_whole(
            lambda width, height: headlines.detail(sandbox, width, height),
            *DETAIL["-tall" if self.has_class("-tall") else "-short"],
        )

    def on_fleet_table_cursor_moved(self) -> None:
        self._draw_choice()
        self._draw_detail()
        self.live.on_change()

    async def on_fleet_table_chosen(self) -> None:
        await self.run_action("app.sandbox")

    def move_to(self, name: str) -> None:
        """Put the cursor on this sandbox, where it is shown."""
        self._table.move_to(name)

    # -- the filter

    def action_filter(self) -> None:
        self._words.add_class("-open")
        self._words.value = self._table.choice.words
        self._words.focus()

    def on_input_changed(self, message: Input.Changed) -> None:
        self._table.choose(replace(self._table.choice, words=message.value.strip()))

    def on_input_submitted(self) -> None:
        self._words.remove_class("-open")
        self._table.focus()

    def action_sort(self) -> None:
        self._sort(replace(self._table.choice, sort=self._table.choice.next_sort(), backwards=False))

    def action_sort_by(self, column: str) -> None:
        self._sort(self._table.choice.by(column))

    def action_sort_backwards(self) -> None:
        self._sort(replace(self._table.choice, backwards=not self._table.choice.backwards))

    def _sort(self, choice: rows.Choice) -> None:
        self._table.choose(choice)
        self._draw_choice()

    # -- keys that ask for nothing

    def action_cursor(self, count: int) -> None:
        self._table.move_by(count)

    def action_page(self, count: int) -> None:
        self._table.move_by(count * max(1, self._table.size.height))

    def action_edge(self, edge: int) -> None:
        self._table.move_to_edge(edge)

    def action_select(self) -> None:
        self._table.toggle_selected()

    def action_select_shown(self) -> None:
        self._table.select_shown()

    def action_unselect(self) -> None:
        """One step back: the filter that is being typed, the selection, the filter."""
        if self._table.selected and not self._words.has_class("-open"):
            self._table.unselect()
            return
        self._words.remove_class("-open")
        self._table.focus()
        self._table.choose(replace(self._table.choice, words=""))

    # -- keys that ask something of the run

    def action_pause(self) -> None:
        self.live.pause(self._table.targets())

    def action_pause_all(self) -> None:
        self.live.pause(requests.in_state(self.live.view, "running"))

    def action_resume(self) -> None:
        self.live.ask(requests.resume(self._table.targets()))

    def action_resume_all(self) -> None:
        self.live.ask(requests.resume(requests.in_state(self.live.view, "paused")))

    def action_salvage(self) -> None:
        self.live.ask(requests.salvage(self.live.view, self._table.targets()))

    def action_kill(self) -> None:
        self.live.ask(requests.kill(self._table.targets()))

    def action_kill_switch(self) -> None:
        self.live.ask(requests.kill_switch())

    def action_toggle_punch(self) -> None:
        self.live.ask(requests.toggle_punch(self.live.view))

    def action_toggle_background(self) -> None:
        self.live.ask(requests.toggle_background(self.live.view))

    def action_arm(self) -> None:
        self.live.ask(requests.arm(self.live.view.sandboxes[name] for name in self._table.targets()))

    def action_arm_all(self) -> None:
        self.live.ask(requests.arm_all(self.live.view))

    def action_clear(self) -> None:
        self.live.ask(requests.clear())
