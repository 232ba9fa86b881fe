"""The stage screen: twelve rows in the middle of the terminal."""

from __future__ import annotations

from collections.abc import Callable

from textual.app import ComposeResult

from sim.tui.feed import Frame
from sim.tui.live import Live
from sim.tui.screens.live import LiveScreen
from sim.tui.stage.lines import ROWS, Scene, lines
from sim.tui.widgets.lines import LinesWidget


class StageScreen(LiveScreen):
    """Draws the scene that `scene` gives."""

    def __init__(self, live: Live, scene: Callable[[], Scene]) -> None:
        super().__init__(live)
        self._scene = scene

    def compose(self) -> ComposeResult:
        yield LinesWidget(id="stage")

    def take(self, _frame: Frame) -> None:
        self.draw_status()

    def draw_status(self) -> None:
        scene = self._scene()
        self.show("stage", lambda width, height: lines(scene, width)[: min(height, ROWS)])
