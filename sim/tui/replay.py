"""A stored run on the same screens."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar, Literal

from textual.binding import Binding, BindingType
from textual.driver import Driver
from textual.widgets import Input

from engine import events as engine_events
from sim.record import events
from sim.record.fold import Fold
from sim.record.folder import StoredRun
from sim.record.ledger import Entry
from sim.record.rollout_view import decision_of
from sim.record.verdict import INVARIANT
from sim.record.view import View
from sim.tui.app import ShowApp
from sim.tui.keys import REPLAY, Key
from sim.tui.spans import Piece, Span, Spans, Tone, fit, line_of, opposite
from sim.tui.terminal import MortalTerminal

FRAMES_A_SECOND = 10
REFUSING = "a recording: it can be watched, not asked"
FAR = 10.0
"""Seconds of `{` and `}` where the run has no steps."""


class ReplayApp(ShowApp):
    """Plays `stored` from its beginning, or is `stopped` there."""

    KEYS: ClassVar[tuple[Key, ...]] = REPLAY
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key.keys, key.action, key.short, priority=key.action not in {"help", "quit"}) for key in REPLAY
    ]

    def __init__(self, stored: StoredRun, *, stopped: bool = False, terminal: type[Driver] = MortalTerminal) -> None:
        super().__init__(terminal)
        self._stored = stored
        self._recording = Recording(stored.entries)
        self.playback = Playback(self._recording.end, stopped=stopped)
        self._decided = decision_of(stored.folder)
        self._said: Span | None = None
        self._drawn_at = -1.0
        self._looked = time.monotonic()
        self.live.moment = lambda: self.playback.words
        self.live.foot = lambda cells, _: foot(self.playback, self._recording.marks, self._said, cells)
        self._show_from_here()

    def _show_from_here(self) -> None:
        self.live.show(lambda: self._recording.view_at(self.playback.t), REFUSING)

    def folder(self) -> Path:
        return self._stored.folder

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
            self.live.decided = self._decided if self.playback.t >= self._recording.end else None
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
        """After a move backwards the logs are filled anew."""
        self._show_from_here()
        for screen in self.live_screens():
            screen.begin()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While the user types, keys are letters."""
        return not (isinstance(self.focused, Input) and action in {key.action.partition("(")[0] for key in REPLAY})

    # -- keys

    def action_clock(self) -> None:
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


SPEEDS = (0.001, 0.01, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Times as fast as it was: a copy of a few milliseconds is seen at the slow end."""
NEAR = 1e-6
"""Seconds; the ledger's own resolution."""
MarkKind = Literal["violation", "fault", "discard", "condemn", "pause"]


@dataclass(frozen=True, slots=True)
class Mark:
    """Something on the time line, at `t`; `words` where one may jump to it."""

    t: float
    kind: MarkKind
    words: str = ""


class Recording:
    """Folds forward from where it is, and from the beginning to go back."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._times = list(accumulate((entry.t for entry in entries), max))  # writers may overtake each other
        self.end = self._times[-1] if entries else 0.0
        self.marks = marks(entries)
        self.steps = sorted({entry.t for entry in entries if isinstance(entry.event, events.StepStarted)})
        self._fold = Fold()
        self._folded = 0

    def view_at(self, t: float) -> View:
        """What was known then."""
        upto = bisect_right(self._times, t + NEAR)
        if upto < self._folded:
            self._fold, self._folded = Fold(), 0
        self._fold.apply(self._entries[self._folded : upto])
        self._folded = upto
        return self._fold.view()


def marks(entries: Sequence[Entry]) -> tuple[Mark, ...]:
    """What the time line shows, in order of time."""
    found = [mark for entry in entries for mark in _marks_of(entry)]
    ends = _ends_of_steps(entries)
    for judged in (entry for entry in entries if isinstance(entry.event, events.Judged)):
        found += _violations(judged, ends)
    return tuple(sorted(found, key=lambda mark: mark.t))


def _marks_of(entry: Entry) -> list[Mark]:
    match entry.event:
        case events.FaultFired(fault=fault, error=error):
            return [Mark(entry.t, "fault", f"fault: {fault} {error} on {entry.sandbox or 'the node'}")]
        case events.NodeCrashed():
            return [Mark(entry.t, "fault", "the node crashed")]
        case events.StateChanged(new="discarded"):
            return [Mark(entry.t, "discard")]
        case engine_events.Condemned():
            return [Mark(entry.t, "condemn")]
        case events.Decided():
            return [Mark(entry.t, "pause")]
    return []


def _ends_of_steps(entries: Sequence[Entry]) -> dict[object, float]:
    """By the line in the scenario that a step is on."""
    lines = {each.event.index: each.event.line for each in entries if isinstance(each.event, events.StepStarted)}
    return {lines.get(each.event.index): each.t for each in entries if isinstance(each.event, events.StepEnded)}


def _violations(entry: Entry, ends: dict[object, float]) -> list[Mark]:
    """Each where it was found: at the end of its step, else where it was judged."""
    match entry.event:
        case events.Judged(subject, "violated", _, violations) if subject.startswith(INVARIANT):
            of = subject.removeprefix(INVARIANT)
            return [Mark(ends.get(each.get("line"), entry.t), "violation", _violation(of, each)) for each in violations]
    return []


def _violation(invariant: str, found: dict[str, Any]) -> str:
    who = "" if found.get("sandbox", "*") == "*" else f"{found['sandbox']}: "
    return f"{invariant}: {who}{found.get('reason', '')}"


class Playback:
    """Where in a recording of `end` seconds the screen is, and how fast it goes on."""

    def __init__(self, end: float, *, stopped: bool = False) -> None:
        self.t = 0.0
        self.end = end
        self.stopped = stopped
        self._speed = SPEEDS.index(1.0)

    @property
    def speed(self) -> float:
        """Recorded seconds a second."""
        return SPEEDS[self._speed]

    @property
    def words(self) -> str:
        """`playing 0.1x`, `stopped`, `at its end`."""
        if self.t >= self.end:
            return "at its end"
        return "stopped" if self.stopped else f"playing {self.speed:g}x"

    def change(self, steps: int) -> None:
        """Faster, or slower where `steps` is negative, as far as it goes."""
        self._speed = max(0, min(len(SPEEDS) - 1, self._speed + steps))

    def toggle(self) -> None:
        """Play or stop; from the end it plays once more."""
        if self.t >= self.end:
            self.t, self.stopped = 0.0, False
        else:
            self.stopped = not self.stopped

    def advance(self, seconds: float) -> None:
        """So much time has gone by on the wall."""
        if not self.stopped:
            self.t = min(self.end, self.t + seconds * self.speed)

    def seek(self, t: float) -> None:
        """Go there and stay."""
        self.t, self.stopped = max(0.0, min(self.end, t)), True


def beside(times: Sequence[float], t: float, direction: int) -> float | None:
    """The next of these (ascending) after `t`, or the last before it where `direction` is negative."""
    if direction > 0:
        at = bisect_right(times, t + NEAR)
        return times[at] if at < len(times) else None
    at = bisect_left(times, t - NEAR)
    return times[at - 1] if at else None


GLYPHS: dict[MarkKind, tuple[str, Tone]] = {
    "pause": ("▴", "calm"),
    "condemn": ("◆", "warn"),
    "discard": ("✗", "bad"),
    "fault": ("!", "warn"),
    "violation": ("‼", "bad"),
}
"""Ascending: where two fall on one cell, the graver one is drawn."""
GRAVITY = {kind: number for number, kind in enumerate(GLYPHS)}


def foot(playback: Playback, marks: Sequence[Mark], said: Span | None, cells: int) -> list[Spans]:
    """Time line, position with the last note, keys."""
    return [time_line(playback, marks, cells), _position(playback, marks, said, cells), _keys(cells)]


def time_line(playback: Playback, marks: Sequence[Mark], cells: int) -> Spans:
    """From the run's beginning to its end; what is past is drawn heavier."""
    room = max(1, cells - 2)
    here = _cell(playback.t, playback.end, room)
    line = [Span("━", "busy") if cell < here else Span("─", "muted") for cell in range(room)]
    drawn: dict[int, int] = {}
    for mark in marks:
        cell = _cell(mark.t, playback.end, room)
        if GRAVITY[mark.kind] >= drawn.get(cell, 0):
            drawn[cell] = GRAVITY[mark.kind]
            line[cell] = Span(*GLYPHS[mark.kind])
    line[here] = Span("┃", "title")
    return (Span(" "), *line, Span(" "))


def _cell(t: float, end: float, room: int) -> int:
    return min(room - 1, int(t / end * room)) if end > 0 else 0


def _position(playback: Playback, marks: Sequence[Mark], said: Span | None, cells: int) -> Spans:
    sign = "■" if playback.stopped or playback.t >= playback.end else "▶"
    where = f" {sign} {playback.words}  {playback.t:.3f} s of {playback.end:.3f} s"
    kinds = [kind for kind in GLYPHS if any(mark.kind == kind for mark in marks)]
    signs = [Piece(9 - GRAVITY[kind], (Span(*GLYPHS[kind]), Span(f" {kind}", "muted"))) for kind in kinds]
    left: Spans = (Span(where, "title"),)
    room = cells - len(where) - 3
    if said is not None and room > 0:
        return opposite(left, fit((said,), min(room, len(said.text))), cells - 1)
    return opposite(left, (*line_of(signs, room, gap=2), Span(" ")), cells)


def _keys(cells: int) -> Spans:
    pieces = [
        Piece(key.rank, (Span(key.shown, "title"), Span(f" {key.short}", "muted"))) for key in REPLAY if key.rank < 9
    ]
    return (Span(" "), *line_of(pieces, cells - 2, gap=2))
