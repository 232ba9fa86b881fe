"""The faults screen: choose a point, a kind and a place, arm it on the selection, and see it fire."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from sim.record import events
from sim.record.ledger import Entry
from sim.tui import fault_lines, requests
from sim.tui.fault_lines import Aim
from sim.tui.frames import Frame, Live
from sim.tui.keys import FAULTS, Key
from sim.tui.panes import EventLog, LinesWidget
from sim.tui.screens.live import LiveScreen, bindings

TOLD = (
    events.FaultArmed,
    events.FaultFired,
    events.FaultsCleared,
    events.StateChanged,
    events.NodeCrashed,
    events.NodeStarted,
)
"""The events that are shown at its foot."""


class FaultsScreen(LiveScreen):
    """One point of the catalogue is under the cursor; what would be armed there stands below."""

    KEYS: ClassVar[tuple[Key, ...]] = FAULTS
    BINDINGS: ClassVar[list[BindingType]] = bindings(FAULTS)

    def __init__(self, live: Live) -> None:
        super().__init__(live)
        self._aim = Aim()
        self._log = EventLog(id="log")

    def compose(self) -> ComposeResult:
        yield LinesWidget(id="title")
        yield LinesWidget(id="points")
        yield LinesWidget(id="aim")
        yield LinesWidget(id="summary")
        yield LinesWidget(id="armed")
        yield LinesWidget(id="status")
        yield self._log
        yield from self.lowest()

    def on_mount(self) -> None:
        self._log.add(filter(_is_told, self.live.view.log), gap=False)

    # -- drawing

    def begin(self) -> None:
        self._log.clear()

    def take(self, frame: Frame) -> None:
        self._log.add(filter(_is_told, frame.entries), gap=False)
        self._draw()

    def _draw(self) -> None:
        view, aim, chosen = self.live.view, self._aim, self.live.chosen
        self.draw_title()
        self.show("points", lambda width, height: fault_lines.catalogue(aim, width, height))
        self.show("aim", lambda width, _: fault_lines.aim_lines(aim, chosen, width))
        self.show("summary", lambda width, _: [fault_lines.summary(view, width)])
        self.show("armed", lambda width, height: fault_lines.armed_lines(view, width, height))
        self.draw_status()

    def _take_aim(self, aim: Aim) -> None:
        self._aim = aim
        self._draw()

    def on_lines_widget_pressed(self, message: LinesWidget.Pressed) -> None:
        """A click on a point moves the cursor there."""
        if message.widget == "points":
            at = fault_lines.point_at(self._aim, message.line, self.query_one("#points").size.height)
            self.action_cursor(at - self._aim.point)

    # -- keys

    def action_cursor(self, count: int) -> None:
        self._take_aim(self._aim.move(count))

    def action_edge(self, edge: int) -> None:
        self._take_aim(self._aim.move(-len(fault_lines.POINTS) if edge == 0 else len(fault_lines.POINTS)))

    def action_kind(self, count: int) -> None:
        self._take_aim(self._aim.turn(count))

    def action_place(self, count: int) -> None:
        self._take_aim(self._aim.move_place(count))

    def action_targets(self) -> None:
        self._take_aim(replace(self._aim, everybody=not self._aim.everybody))

    def action_kernel(self) -> None:
        if self._aim.can_be_kernel:
            self._take_aim(replace(self._aim, by_kernel=not self._aim.by_kernel))
        else:
            self.live.say(
                "the kernel gives an errno, and only to a copy: in copy.read, copy.write and punch", failed=True
            )

    def action_arm(self) -> None:
        aim = self._aim
        names = fault_lines.targets(aim, self.live.chosen)
        self.live.ask(requests.inject(aim.spec.point, aim.given, aim.at, names, by_kernel=aim.from_kernel))

    def action_clear(self) -> None:
        self.live.ask(requests.clear())

    def action_restart_node(self) -> None:
        if self.live.refusing is None and self.live.view.node != "crashed":
            self.live.say("the node is up: there is nothing to restart", failed=True)
        else:
            self.live.ask(requests.restart_node())

    def action_pause(self) -> None:
        running = requests.in_state(self.live.view, "running")
        chosen = [name for name in self.live.chosen if name in running]
        self.live.pause(chosen or running)

    def action_resume(self) -> None:
        self.live.ask(requests.resume(self.live.chosen or requests.in_state(self.live.view, "paused")))


def _is_told(entry: Entry) -> bool:
    return isinstance(entry.event, TOLD)
