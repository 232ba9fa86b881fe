"""The flags screen: each flag of the pause path, its rollout and cohort, the kill switch and the source's outages."""

from __future__ import annotations

from typing import ClassVar, Literal

from textual.app import ComposeResult
from textual.binding import BindingType

from flags.catalog import CATALOG
from sim.record import events, source_events
from sim.record.ledger import Entry
from sim.tui import flag_lines, requests
from sim.tui.flag_lines import FlagDraft
from sim.tui.frames import Frame, Live
from sim.tui.keys import FLAGS, Key
from sim.tui.panes import EventLog, LinesWidget
from sim.tui.screens.live import LiveScreen, bindings

TOLD = (
    events.FlagSet,
    source_events.OutageBegan,
    source_events.OutageEnded,
    source_events.FlagSourceChanged,
    source_events.LeaseMeasured,
    events.Decided,
)
"""The events that are shown at its foot."""


class FlagsScreen(LiveScreen):
    """One flag is under the cursor; its rollout is a draft until it is set."""

    KEYS: ClassVar[tuple[Key, ...]] = FLAGS
    BINDINGS: ClassVar[list[BindingType]] = bindings(FLAGS)

    def __init__(self, live: Live) -> None:
        super().__init__(live)
        self._cursor = 0
        self._draft: FlagDraft | None = None
        self._log = EventLog(id="log")

    def compose(self) -> ComposeResult:
        yield LinesWidget(id="title")
        yield LinesWidget(id="source")
        yield LinesWidget(id="columns")
        yield LinesWidget(id="catalog")
        yield LinesWidget(id="detail")
        yield LinesWidget(id="status")
        yield self._log
        yield from self.lowest()

    def on_mount(self) -> None:
        self._log.add(filter(_is_told, self.live.view.log), gap=False)

    @property
    def key(self) -> str:
        """Of the flag under the cursor."""
        return CATALOG[self._cursor].key

    @property
    def draft(self) -> FlagDraft:
        """What the rollout would be; the one in force if it is not edited."""
        return self._draft or flag_lines.draft_of(self.live.view, self.key)

    # -- drawing

    def begin(self) -> None:
        self._draft = None
        self._log.clear()

    def take(self, frame: Frame) -> None:
        self._log.add(filter(_is_told, frame.entries), gap=False)
        self._draw()

    def _draw(self) -> None:
        view = self.live.view
        self.draw_title()
        self.show("source", lambda width, _: flag_lines.source_lines(view, width))
        self.show("columns", lambda width, _: [flag_lines.header(width)])
        cursor, key, draft = self._cursor, self.key, self.draft
        self.show("catalog", lambda width, height: flag_lines.rows(view, cursor, width, height))
        self.show("detail", lambda width, height: flag_lines.detail(view, key, draft, width, height))
        self.draw_status()

    def on_lines_widget_pressed(self, message: LinesWidget.Pressed) -> None:
        """A click on a flag moves the cursor there."""
        if message.widget == "catalog":
            height = self.query_one("#catalog").size.height
            shown = flag_lines.around(self._cursor, len(CATALOG), height)
            self.action_cursor(min(len(shown) - 1, message.line) + shown.start - self._cursor)

    # -- keys

    def action_cursor(self, count: int) -> None:
        self._cursor = max(0, min(len(CATALOG) - 1, self._cursor + count))
        self._edit(None)

    def action_edge(self, edge: int) -> None:
        self._cursor = 0 if edge == 0 else len(CATALOG) - 1
        self._edit(None)

    def action_percent(self, steps: float) -> None:
        self._edit(self.draft.changed(steps))

    def action_by(self) -> None:
        self._edit(self.draft.by_next())

    def action_undo(self) -> None:
        """Forget the draft; without one, back to the fleet."""
        if self._draft is None:
            self.app.pop_screen()
        else:
            self._edit(None)

    def _edit(self, draft: FlagDraft | None) -> None:
        self._draft = draft
        self._draw()

    def action_set(self) -> None:
        self.live.ask(requests.set_flag(self.key, self.draft.value))
        self._draft = None

    def action_flip(self) -> None:
        self._draft = None
        self.live.ask(requests.toggle(self.live.view, self.key))

    def action_kill_switch(self) -> None:
        self._draft = None
        self.live.ask(requests.kill_switch())

    def action_outage(self, fault: Literal["drop", "freeze", "down", "recover"]) -> None:
        source = self.live.view.run.flag_source if self.live.view.run else "relay"
        if self.live.refusing is None and source in flag_lines.NOT_OURS:
            self.live.say(flag_lines.NOT_OURS[source], failed=True)
        else:
            self.live.ask(requests.outage(fault))


def _is_told(entry: Entry) -> bool:
    return isinstance(entry.event, TOLD)
