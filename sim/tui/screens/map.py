"""The map screen: a large fleet at one look."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from sim.tui import headlines, heat
from sim.tui.frames import Frame, Live
from sim.tui.keys import MAP, Key
from sim.tui.panes import LinesWidget
from sim.tui.screens.live import LiveScreen, bindings


class MapScreen(LiveScreen):
    """One cell a sandbox, or one for several where there are too many."""

    KEYS: ClassVar[tuple[Key, ...]] = MAP
    BINDINGS: ClassVar[list[BindingType]] = bindings(MAP)
    RULE: ClassVar[str] = ""

    def __init__(self, live: Live) -> None:
        super().__init__(live)
        self._by = 0

    def compose(self) -> ComposeResult:
        yield LinesWidget(id="title")
        yield LinesWidget(id="memory")
        yield LinesWidget(id="map")
        yield LinesWidget(id="status")
        yield from self.lowest()

    def take(self, frame: Frame) -> None:
        view, by = frame.view, heat.BYS[self._by]
        self.draw_title()
        self.show("memory", lambda width, _: headlines.node_memory(view, width))
        self.show("map", lambda width, height: heat.lines(view, by, width, height))
        self.draw_status()

    def action_by(self) -> None:
        self._by = (self._by + 1) % len(heat.BYS)
        self.take(Frame(self.live.view, frozenset(), (), gap=False))
