"""The log screen: everything that happened, whole, and the words that are looked for."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import Input

from sim.report.words import plural
from sim.tui.frames import Frame, Live
from sim.tui.keys import LOG, Key
from sim.tui.panes import EventLog, LinesWidget
from sim.tui.screens.live import LiveScreen, bindings
from sim.tui.spans import Span, Spans


class LogScreen(LiveScreen):
    """The newest events that are kept, of the whole run; older ones are in the run's folder."""

    KEYS: ClassVar[tuple[Key, ...]] = LOG
    BINDINGS: ClassVar[list[BindingType]] = bindings(LOG)
    AUTO_FOCUS = ""  # not the words: keys are keys until a search begins

    def __init__(self, live: Live) -> None:
        super().__init__(live)
        self._log = EventLog(id="log")
        self._words = Input(placeholder="words that the sentence has: web-3 refused", compact=True, id="filter")

    def compose(self) -> ComposeResult:
        yield LinesWidget(id="title")
        yield self._words
        yield LinesWidget(id="choice")
        yield LinesWidget(id="status")
        yield self._log
        yield from self.lowest()

    def on_mount(self) -> None:
        """Beside that of the base: textual calls both."""
        self._tell_again()

    def begin(self) -> None:
        self._log.clear()

    def take(self, frame: Frame) -> None:
        self._log.add(frame.entries, gap=frame.gap)
        self._draw()

    def _tell_again(self) -> None:
        self._log.clear()
        self._log.add(self.live.view.log, gap=False)
        self._draw()

    def _draw(self) -> None:
        self.draw_title()
        lines = self.query_one("#choice", LinesWidget)
        lines.set_class(bool(self._log.words or self._log.fine), "-open")
        lines.show(lambda _width, _height: [self._choice()])
        self.draw_status()

    def _choice(self) -> Spans:
        found = (
            Span(" with ", "muted"),
            Span(self._log.words, "title"),
            Span(f"  {plural(self._log.shown, 'sentence')}", "plain"),
        )
        return (*(found if self._log.words else ()), Span("  details too" if self._log.fine else "", "muted"))

    # -- keys

    def action_find(self) -> None:
        self._words.add_class("-open")
        self._words.value = self._log.words
        self._words.focus()

    def on_input_changed(self, message: Input.Changed) -> None:
        self._log.choose(message.value.strip())
        self._draw()

    def on_input_submitted(self) -> None:
        self._words.remove_class("-open")
        self.set_focus(None)

    def action_back(self) -> None:
        """One step back: the words that are typed or looked for; then the fleet."""
        if not self._log.words and not self._words.has_class("-open"):
            self.app.pop_screen()
            return
        self._words.remove_class("-open")
        self._words.value = ""
        self.set_focus(None)
        self._log.choose("")
        self._draw()

    def action_fine(self) -> None:
        self._log.fine = not self._log.fine
        self._tell_again()

    def action_scroll(self, lines: int) -> None:
        self._log.scroll_relative(y=lines, animate=False)

    def action_page(self, pages: int) -> None:
        self._log.scroll_relative(y=pages * max(1, self._log.size.height - 1), animate=False)

    def action_edge(self, edge: int) -> None:
        if edge == 0:
            self._log.scroll_home(animate=False)
        else:
            self._log.scroll_end(animate=False)
