"""The rollout screen: the stages of a rehearsal, what cannot be undone in them, and its decision."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from sim.tui import rollout_lines
from sim.tui.frames import Frame
from sim.tui.keys import ROLLOUT, Key
from sim.tui.panes import LinesWidget
from sim.tui.screens.live import LiveScreen, bindings


class RolloutScreen(LiveScreen):
    """Drawn anew with each frame."""

    KEYS: ClassVar[tuple[Key, ...]] = ROLLOUT
    BINDINGS: ClassVar[list[BindingType]] = bindings(ROLLOUT)
    RULE: ClassVar[str] = ""

    def compose(self) -> ComposeResult:
        yield LinesWidget(id="title")
        yield LinesWidget(id="rollout")
        yield LinesWidget(id="status")
        yield from self.lowest()

    def take(self, frame: Frame) -> None:
        rollout, decided = frame.view.rollout, self.live.decided
        self.draw_title()
        self.show("rollout", lambda width, height: rollout_lines.lines(rollout, decided, width, height))
        self.draw_status()
