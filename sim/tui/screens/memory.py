"""The memory screen: the node's memory over time; below, its twin with the flag off and on, or two of its pauses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from sim.tui import charts, headlines, requests
from sim.tui.frames import NO_RUN, Frame, Live
from sim.tui.keys import MEMORY, Key
from sim.tui.panes import LinesWidget
from sim.tui.screens.live import LiveScreen, bindings
from sim.tui.spans import Spans
from sim.tui.twin import lines
from sim.tui.windows import WINDOWS


class MemoryScreen(LiveScreen):
    """Drawn anew with each frame; of the run on screen it changes nothing but the flag and who is paused."""

    KEYS: ClassVar[tuple[Key, ...]] = MEMORY
    BINDINGS: ClassVar[list[BindingType]] = bindings(MEMORY)
    RULE: ClassVar[str] = ""

    def __init__(self, live: Live) -> None:
        super().__init__(live)
        self._window = 0

    def compose(self) -> ComposeResult:
        yield LinesWidget(id="title")
        yield LinesWidget(id="flags")
        yield LinesWidget(id="chart")
        yield LinesWidget(id="twin")
        yield LinesWidget(id="status")
        yield from self.lowest()

    def take(self, frame: Frame) -> None:
        view = frame.view
        self.draw_title()
        self.show("flags", lambda width, _: [headlines.flags_line(view, width), headlines.faults_line(view, width)])
        self.show("chart", lambda width, height: charts.memory_lines(view, width, height, WINDOWS[self._window]))
        self.draw_status()

    def draw_status(self) -> None:
        super().draw_status()
        self.show("twin", self._beside)

    def _beside(self, width: int, height: int) -> Sequence[Spans]:
        """The twin, once there is one."""
        twin = self.live.twin
        if twin is None:
            return charts.two_pause_lines(self.live.view, width, height)
        if twin.said is None and not twin.arms:
            return charts.two_pause_lines(self.live.view, width, height, "T runs its twin")
        return lines(twin.arms, twin.said, width, height)

    def action_window(self) -> None:
        """Show the next window: all of the run, its last five minutes, its last 30 seconds."""
        self._window = (self._window + 1) % len(WINDOWS)
        self.take(Frame(self.live.view, frozenset(), (), gap=False))

    def action_pause_all(self) -> None:
        self.live.pause(requests.in_state(self.live.view, "running"))

    def action_resume_all(self) -> None:
        self.live.ask(requests.resume(requests.in_state(self.live.view, "paused")))

    def action_twin(self) -> None:
        """Begin it with the flags as they are now, or end it."""
        twin = self.live.twin
        if self.live.refusing is not None or twin is None:
            self.live.say(self.live.refusing or "this run cannot have a twin", failed=True)
        elif twin.is_running:
            twin.cancel()
        elif self.live.has_run:
            twin.begin(self.live.view)
        else:
            self.live.say(NO_RUN, failed=True)

    def action_toggle_punch(self) -> None:
        self.live.ask(requests.toggle_punch(self.live.view))
