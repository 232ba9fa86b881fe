"""What the judges of a ledger look at: its entries by pause and by incarnation, and nothing else. Pure."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from engine import events as engine_events
from engine.events import Event
from sim.record import events
from sim.record.fold import Fold
from sim.record.ledger import Entry
from sim.record.verdict import Verdict
from sim.record.view import PauseView, View


class Told(NamedTuple):
    """An entry and its place in the ledger's order, from 0."""

    at: int
    entry: Entry


@dataclass(slots=True)
class Finding:
    """One invariant: how often it was exercised, what did not hold, and which evidence the ledger does not have."""

    checked: int = 0
    violations: list[dict[str, Any]] = field(default_factory=list)
    missing: list[dict[str, Any]] = field(default_factory=list)

    def violated(self, sandbox: str | None, reason: str, **details: Any) -> None:
        """Note what did not hold: whose, why, and what else is known (incarnation, pause)."""
        self.violations.append(_note(sandbox, reason, details))

    def lacks(self, sandbox: str | None, reason: str, **details: Any) -> None:
        """Note what the ledger would have to tell and does not."""
        self.missing.append(_note(sandbox, reason, details))

    @property
    def verdict(self) -> Verdict:
        """Violated, else inconclusive where evidence is missing, else held."""
        if self.violations:
            return Verdict.VIOLATED
        return Verdict.INCONCLUSIVE if self.missing else Verdict.HELD


def _note(sandbox: str | None, reason: str, details: dict[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in details.items() if value is not None}
    return {"sandbox": sandbox or "*", "reason": reason, **known}


class Trace:
    """A whole ledger, folded and indexed once."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        fold = Fold()
        fold.apply(entries)
        self.view: View = fold.view()
        self._pauses: dict[str, list[Told]] = {}
        self._sandboxes: dict[str, list[Told]] = {}
        self._kinds: dict[type[Event], list[Told]] = {}
        for told in map(Told, itertools.count(), entries):
            self._kinds.setdefault(type(told.entry.event), []).append(told)
            if told.entry.sandbox is not None:
                self._sandboxes.setdefault(told.entry.sandbox, []).append(told)
            if told.entry.pause is not None:
                self._pauses.setdefault(told.entry.pause, []).append(told)

    def of_pause(self, pause: str) -> list[Told]:
        """The entries of one pause, in order."""
        return self._pauses.get(pause, [])

    def of_sandbox(self, sandbox: str, after: int = -1) -> list[Told]:
        """The entries of one sandbox later than `after`, in order."""
        told = self._sandboxes.get(sandbox, [])
        return told[bisect.bisect_right(told, after, key=lambda each: each.at) :]

    def of_kind(self, kind: type[Event]) -> list[Told]:
        """Every entry of a kind, in the ledger's order."""
        return self._kinds.get(kind, [])

    @property
    def complete(self) -> bool:
        """True where the run's end is told: what is not told by then did not happen."""
        return self.view.ended is not None

    @property
    def node_is_down(self) -> bool:
        """True where the last that is told of the node is its death."""
        return self.view.node == "crashed"

    @cached_property
    def crashes(self) -> list[int]:
        """Where in the order the node died: what it did last may not be told."""
        return [told.at for told in self.of_kind(events.NodeCrashed)]

    def crashed_after(self, at: int) -> bool:
        """True where the node died later than this entry."""
        return any(crash > at for crash in self.crashes)

    @cached_property
    def born(self) -> dict[str, Told]:
        """Each incarnation's GuestSpawned, the first where it is told twice."""
        found: dict[str, Told] = {}
        for told in self.of_kind(events.GuestSpawned):
            if isinstance(told.entry.event, events.GuestSpawned):
                found.setdefault(told.entry.event.incarnation, told)
        return found

    @cached_property
    def ended(self) -> dict[str, int]:
        """Where in the order the death of each incarnation was confirmed."""
        return {
            told.entry.event.incarnation: told.at
            for told in self.of_kind(events.GuestEnded)
            if isinstance(told.entry.event, events.GuestEnded)
        }

    def incarnation_of(self, pause: PauseView) -> str | None:
        """Whom the pause froze; else the sandbox's latest guest when it began; None where neither is told."""
        if pause.incarnation:
            return pause.incarnation
        began = self.of_pause(pause.id)[0].at
        before = [
            each.entry.event.incarnation
            for each in self.of_sandbox(pause.sandbox)
            if isinstance(each.entry.event, events.GuestSpawned) and each.at < began
        ]
        return before[-1] if before else None

    def states_of(self, sandbox: str, after: int = -1) -> list[events.StateChanged]:
        """The sandbox's transitions later than `after`, in order."""
        told = (each.entry.event for each in self.of_sandbox(sandbox, after))
        return [event for event in told if isinstance(event, events.StateChanged)]

    def settled_at(self, pause: str) -> int | None:
        """Where in the order it was told that nothing more happens in a pause."""
        places = [told.at for told in self.of_pause(pause) if isinstance(told.entry.event, events.PauseSettled)]
        return places[0] if places else None

    def crashed_within(self, pause: str) -> bool:
        """True where the node died between the first and the last that is told of a pause."""
        told = self.of_pause(pause)
        return bool(told) and any(told[0].at < crash < told[-1].at for crash in self.crashes)


PUNCHES = (engine_events.ChunkPunched, engine_events.CleanPagesPunched)
