"""What the screens of a run have in common: the app gives each its frames, and lines are drawn where they changed."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import Screen

from sim.tui import headlines, story
from sim.tui.frames import Frame, Live
from sim.tui.keys import Key, key_line
from sim.tui.panes import Lines, LinesWidget
from sim.tui.spans import Span, Spans, wrap


def bindings(keys: tuple[Key, ...]) -> list[BindingType]:
    """What textual binds."""
    return [Binding(key.keys, key.action, key.short) for key in keys]


LEAST = (60, 12)
"""Cells."""


def too_small(cells: int, _height: int) -> list[Spans]:
    """The text shown where a screen has no room."""
    said = f"This needs a terminal of {LEAST[0]}x{LEAST[1]} cells at least: make it larger. The run goes on; q ends it."
    return wrap((Span(said, "warn"),), max(1, cells))


class LiveScreen(Screen[None]):
    """A screen that `take`s each frame, also while another is on top of it."""

    KEYS: ClassVar[tuple[Key, ...]] = ()

    def __init__(self, live: Live) -> None:
        super().__init__()
        self.live = live

    def on_mount(self) -> None:
        if self.live.foot is not None and not self.query("#foot"):
            keys = self.query_one("#keys")
            keys.add_class("-empty")
            self.mount(LinesWidget(self.live.foot, id="foot"), after=keys)
        self.take(Frame(self.live.view, frozenset(self.live.view.sandboxes), (), gap=False))

    def begin(self) -> None:
        """Another run begins: forget the one before."""

    def take(self, frame: Frame) -> None:
        """Draw what is new."""
        raise NotImplementedError

    RULE: ClassVar[str] = "events"
    """What stands below the line that says what is under way."""

    def draw_status(self) -> None:
        """Draw what is under way or went wrong, and what is next."""
        note, step, playing = self.live.status, self.live.step, self.live.playing
        for status in self.query("#status").results(LinesWidget):
            status.show_whole(lambda width, _: headlines.rule(note, width, self.RULE), 1, 4)
        for line in self.query("#next").results(LinesWidget):
            line.show_whole(lambda width, _: story.line(step, width, playing=playing), 0, 3)

    def draw_title(self) -> None:
        """The first line, which every screen has."""
        view, violations, clock = self.live.view, self.live.violations, self.live.moment()
        self.show("title", lambda width, _: [headlines.title(view, violations, width, clock)])

    def lowest(self) -> ComposeResult:
        """The last lines, which every screen has; and what stands there alone where there is no room for a screen."""
        watched, keys = self.live.refusing is not None, self.live.keys
        with Vertical(id="lowest"):
            yield LinesWidget(id="next")
            yield LinesWidget(
                lambda width, _: [key_line(self.KEYS, width, everywhere=keys, watched=watched)], id="keys"
            )
        yield LinesWidget(too_small, id="small")

    def draw_foot(self) -> None:
        """Where there is one."""
        if self.live.foot is not None:
            for foot in self.query("#foot").results(LinesWidget):
                foot.show(self.live.foot)

    def show(self, name: str, lines: Lines) -> None:
        """Have the widget of that id draw these lines from now on."""
        self.query_one(f"#{name}", LinesWidget).show(lines)
