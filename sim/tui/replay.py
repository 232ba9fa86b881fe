"""A stored run on screen: the screens of a live one over a recording, which nobody can ask for anything."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from textual.binding import Binding, BindingType
from textual.driver import Driver
from textual.widgets import Input

from sim.stored_run import StoredRun
from sim.tui import replay_lines
from sim.tui.driver import MortalTerminal
from sim.tui.keys import REPLAY, Key
from sim.tui.recording import NEAR, Playback, Recording, beside
from sim.tui.show import ShowApp
from sim.tui.spans import Span

FRAMES_A_SECOND = 10
REFUSING = "a recording: it can be watched, not asked"
FAR = 10.0
"""Seconds of `{` and `}` where the run has no steps."""


class ReplayApp(ShowApp):
    """Plays `stored` from its beginning, or is `held` there."""

    KEYS: ClassVar[tuple[Key, ...]] = REPLAY
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key.keys, key.action, key.short, priority=key.action not in {"help", "quit"}) for key in REPLAY
    ]

    def __init__(self, stored: StoredRun, *, held: bool = False, terminal: type[Driver] = MortalTerminal) -> None:
        super().__init__(terminal)
        self._recording = Recording(stored.entries)
        self.playback = Playback(self._recording.end, held=held)
        self._said: Span | None = None
        self._drawn_at = -1.0
        self._looked = time.monotonic()
        self.live.moment = lambda: self.playback.words
        self.live.foot = lambda cells, _: replay_lines.foot(self.playback, self._recording.marks, self._said, cells)
        self._show_from_here()

    def _show_from_here(self) -> None:
        self.live.show(lambda: self._recording.view_at(self.playback.t), REFUSING)

    def ready(self) -> None:
        self.set_interval(1 / FRAMES_A_SECOND, self._play)

    def _play(self) -> None:
        now = time.monotonic()
        self.playback.advance(now - self._looked)
        self._looked = now
        self.look()

    def look(self) -> None:
        """Nothing is folded again where nothing moved."""
        if self.is_running and self.playback.t != self._drawn_at:
            if self.playback.t < self._drawn_at:
                self._begin_again()
            self._drawn_at = self.playback.t
            self.live.found = self._found()
            super().look()
        for screen in self.live_screens():
            screen.draw_title()
            screen.draw_foot()

    def _found(self) -> list[dict[str, Any]]:
        """What the checkers had found by then: the ledger says it only at its end, where it is judged."""
        until = self.playback.t + NEAR
        violations = [mark for mark in self._recording.marks if mark.kind == "violation"]
        return [{"reason": mark.words} for mark in violations if mark.t <= until]

    def _begin_again(self) -> None:
        """Backwards the logs are told anew."""
        self._show_from_here()
        for screen in self.live_screens():
            screen.begin()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While somebody types, keys are letters."""
        return not (isinstance(self.focused, Input) and action in {key.action.partition("(")[0] for key in REPLAY})

    # -- keys

    def action_hold(self) -> None:
        self.playback.toggle()
        self._went()

    def action_speed(self, steps: int) -> None:
        self.playback.change(steps)
        self._went(f"{self.playback.speed:g} times as fast as it was")

    def action_scrub(self, seconds: float) -> None:
        self.playback.seek(self.playback.t + seconds)
        self._went()

    def action_step(self, direction: int) -> None:
        steps = self._recording.steps
        to = beside(steps, self.playback.t, direction)
        self.playback.seek(self.playback.t + direction * FAR if to is None else to)
        self._went()

    def action_edge(self, edge: int) -> None:
        self.playback.seek(0.0 if edge == 0 else self._recording.end)
        self._went()

    def action_jump(self, direction: int) -> None:
        """To the next violation or fault, or the one before."""
        jumps = [mark for mark in self._recording.marks if mark.words]
        to = beside([mark.t for mark in jumps], self.playback.t, direction)
        if to is None:
            self._went("no violation and no fault in that direction")
            return
        self.playback.seek(to)
        there = [mark.words for mark in jumps if mark.t == to]
        more = len(there) - 1
        self._went(there[0] + (f" (and {more} more)" if more else ""))

    def _went(self, said: str | None = None) -> None:
        self._said, self.live.note = (None if said is None else Span(said, "warn")), None
        self.look()

    async def action_quit(self) -> None:
        self.exit()
