"""A stored run as the screen shows it: its view at any time, played, held and scrubbed. Time is a parameter."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from engine import events as engine_events
from sim import events
from sim.ledger import Entry
from sim.view import Fold, View

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
        case events.Judged(subject, "violated", _, violations) if subject.startswith("invariant:"):
            of = subject.removeprefix("invariant:")
            return [Mark(ends.get(each.get("line"), entry.t), "violation", _violation(of, each)) for each in violations]
    return []


def _violation(invariant: str, found: dict[str, Any]) -> str:
    who = "" if found.get("sandbox", "*") == "*" else f"{found['sandbox']}: "
    return f"{invariant}: {who}{found.get('reason', '')}"


class Playback:
    """Where in a recording of `end` seconds the screen is, and how fast it goes on."""

    def __init__(self, end: float, *, held: bool = False) -> None:
        self.t = 0.0
        self.end = end
        self.held = held
        self._speed = SPEEDS.index(1.0)

    @property
    def speed(self) -> float:
        """Recorded seconds a second."""
        return SPEEDS[self._speed]

    @property
    def words(self) -> str:
        """`playing 0.1x`, `held`, `at its end`."""
        if self.t >= self.end:
            return "at its end"
        return "held" if self.held else f"playing {self.speed:g}x"

    def change(self, steps: int) -> None:
        """Faster, or slower where `steps` is negative, as far as it goes."""
        self._speed = max(0, min(len(SPEEDS) - 1, self._speed + steps))

    def toggle(self) -> None:
        """Play or hold; from the end it plays once more."""
        if self.t >= self.end:
            self.t, self.held = 0.0, False
        else:
            self.held = not self.held

    def advance(self, seconds: float) -> None:
        """So much time has gone by on the wall."""
        if not self.held:
            self.t = min(self.end, self.t + seconds * self.speed)

    def seek(self, t: float) -> None:
        """Go there and stay."""
        self.t, self.held = max(0.0, min(self.end, t)), True


def beside(times: Sequence[float], t: float, direction: int) -> float | None:
    """The next of these (ascending) after `t`, or the last before it where `direction` is negative."""
    if direction > 0:
        at = bisect_right(times, t + NEAR)
        return times[at] if at < len(times) else None
    at = bisect_left(times, t - NEAR)
    return times[at - 1] if at else None
