"""What the screens of a run have in common: the app gives each its frames, and lines are drawn where they changed."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.screen import Screen

from sim.tui import headlines
from sim.tui.frames import Frame, Live
from sim.tui.keys import Key, key_line
from sim.tui.panes import Lines, LinesWidget


def bindings(keys: tuple[Key, ...]) -> list[BindingType]:
    """What textual binds."""
    return [Binding(key.keys, key.action, key.short) for key in keys]


class LiveScreen(Screen[None]):
    """A screen that `take`s each frame, also while another is on top of it."""

    KEYS: ClassVar[tuple[Key, ...]] = ()

    def __init__(self, live: Live) -> None:
        super().__init__()
        self.live = live

    def on_mount(self) -> None:
        if self.live.foot is not None and not self.query("#foot"):
            keys = self.query_one("#keys")
            keys.display = False
            self.mount(LinesWidget(self.live.foot, id="foot"), after=keys)
        self.take(Frame(self.live.view, frozenset(self.live.view.sandboxes), (), gap=False))

    def begin(self) -> None:
        """Another run begins: forget the one before."""

    def take(self, frame: Frame) -> None:
        """Draw what is new."""
        raise NotImplementedError

    def draw_status(self) -> None:
        """Draw what is under way, where the screen has a line for it."""

    def draw_title(self) -> None:
        """The first line, which every screen has."""
        view, violations, clock = self.live.view, self.live.violations, self.live.moment()
        self.show("title", lambda width, _: [headlines.title(view, violations, width, clock)])

    def keys_line(self) -> LinesWidget:
        """The last line, which every screen has."""
        watched = self.live.refusing is not None
        return LinesWidget(lambda width, _: [key_line(self.KEYS, width, watched=watched)], id="keys")

    def draw_foot(self) -> None:
        """Where there is one."""
        if self.live.foot is not None:
            for foot in self.query("#foot").results(LinesWidget):
                foot.show(self.live.foot)

    def show(self, name: str, lines: Lines) -> None:
        """Have the widget of that id draw these lines from now on."""
        self.query_one(f"#{name}", LinesWidget).show(lines)
