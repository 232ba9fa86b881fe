"""The memory screen: the node's memory over time, and pauses with and without punching on one axis."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from sim.tui import headlines, memory_chart, requests, twin
from sim.tui.feed import Frame
from sim.tui.keys import MEMORY, Key, key_line
from sim.tui.screens.live import LiveScreen, bindings
from sim.tui.widgets.lines import LinesWidget


class MemoryScreen(LiveScreen):
    """Drawn anew with each frame; it changes nothing but the flag and who is paused."""

    KEYS: ClassVar[tuple[Key, ...]] = MEMORY
    BINDINGS: ClassVar[list[BindingType]] = bindings(MEMORY)

    def compose(self) -> ComposeResult:
        yield LinesWidget(id="title")
        yield LinesWidget(id="flags")
        yield LinesWidget(id="chart")
        yield LinesWidget(id="twin")
        yield LinesWidget(id="status")
        yield LinesWidget(lambda width, _: [key_line(MEMORY, width)], id="keys")

    def take(self, frame: Frame) -> None:
        view = frame.view
        self.draw_title()
        self.show("flags", lambda width, _: [headlines.flags_line(view, width), headlines.faults_line(view, width)])
        self.show("chart", lambda width, height: memory_chart.lines(view, width, height))
        self.show("twin", lambda width, height: twin.lines(view, width, height))
        self.draw_status()

    def draw_status(self) -> None:
        note = self.live.status
        self.show("status", lambda width, _: [headlines.rule(note, width, "")])

    def action_pause_all(self) -> None:
        self.live.ask(requests.pause(requests.in_state(self.live.view, "running")))

    def action_resume_all(self) -> None:
        self.live.ask(requests.resume(requests.in_state(self.live.view, "paused")))

    def action_toggle_punch(self) -> None:
        self.live.ask(requests.toggle_punch(self.live.view))
