"""What every rule judges: the ledger, indexed; and reality, where the fleet that it is of is at hand."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from engine import events as engine_events
from engine.events import Event
from sim.record import events
from sim.record.codes import fault_kind
from sim.record.fold import Fold
from sim.record.ledger import Entry
from sim.record.view import PauseView, View
from sim.rules.finding import Finding

if TYPE_CHECKING:
    from sim.rules.reality import Reality


class Told(NamedTuple):
    """An entry and its place in the ledger's order, from 0."""

    at: int
    entry: Entry


class Evidence:
    """A ledger as far as it goes, folded and indexed once; `reality` is None where there is no fleet to look at."""

    def __init__(self, entries: Sequence[Entry], view: View | None = None, reality: Reality | None = None) -> None:
        self.entries = entries
        self.reality = reality
        self.view = _folded(entries) if view is None else view

    def _by(self, key: Callable[[Entry], object]) -> dict[Any, list[Told]]:
        found: dict[Any, list[Told]] = {}
        for told in map(Told, itertools.count(), self.entries):
            found.setdefault(key(told.entry), []).append(told)
        return found

    # -- what is at hand

    @property
    def complete(self) -> bool:
        """True where the run is over: what is not in the ledger by then did not happen."""
        return self.view.ended is not None or (self.reality is not None and self.reality.torn_down)

    @property
    def may_grow(self) -> bool:
        """True while the run goes on: evidence that is missing now may yet come."""
        return self.reality is not None and not self.reality.torn_down

    @property
    def node_is_down(self) -> bool:
        """True where the last that is known of the node is its death."""
        return self.view.node == "crashed"

    def seen(self, rule: str) -> Finding:
        """What a rule has seen of reality so far, as the beginning of its finding; empty without reality."""
        if self.reality is None:
            return Finding()
        known = self.reality.seen[rule].finding
        return Finding(known.checked, list(known.violations), list(known.missing))

    # -- the index

    def of_pause(self, pause: str) -> list[Told]:
        """The entries of one pause, in order."""
        return self._pauses.get(pause, [])

    @cached_property
    def _pauses(self) -> dict[Any, list[Told]]:
        return self._by(lambda entry: entry.pause)

    def events_of(self, pause: str) -> list[Event]:
        """What happened in one pause, in order."""
        return [told.entry.event for told in self.of_pause(pause)]

    def of_sandbox(self, sandbox: str, after: int = -1) -> list[Told]:
        """The entries of one sandbox later than `after`, in order."""
        told = self._sandboxes.get(sandbox, [])
        return told[bisect.bisect_right(told, after, key=lambda each: each.at) :]

    @cached_property
    def _sandboxes(self) -> dict[Any, list[Told]]:
        return self._by(lambda entry: entry.sandbox)

    def of_kind(self, kind: type[Event]) -> list[Told]:
        """Every entry of a kind, in the ledger's order."""
        return self._kinds.get(kind, [])

    @cached_property
    def _kinds(self) -> dict[Any, list[Told]]:
        return self._by(lambda entry: type(entry.event))

    @cached_property
    def crashes(self) -> list[int]:
        """Where in the order the node died: what it did last may not be in the ledger."""
        return [told.at for told in self.of_kind(events.NodeCrashed)]

    def crashed_after(self, at: int) -> bool:
        """True where the node died later than this entry."""
        return any(crash > at for crash in self.crashes)

    def crashed_within(self, pause: str) -> bool:
        """True where the node died between the first and the last entry of a pause."""
        told = self.of_pause(pause)
        return bool(told) and any(told[0].at < crash < told[-1].at for crash in self.crashes)

    @cached_property
    def born(self) -> dict[str, Told]:
        """Each incarnation's GuestSpawned, the first where there are two."""
        found: dict[str, Told] = {}
        for told in self.of_kind(events.GuestSpawned):
            if isinstance(told.entry.event, events.GuestSpawned):
                found.setdefault(told.entry.event.incarnation, told)
        return found

    def spawned(self, incarnation: str) -> events.GuestSpawned | None:
        """How it was born; None where nothing says so."""
        told = self.born.get(incarnation)
        return told.entry.event if told is not None and isinstance(told.entry.event, events.GuestSpawned) else None

    @cached_property
    def guests(self) -> list[events.GuestSpawned]:
        """Every incarnation there ever was."""
        return [told.entry.event for told in self.born.values() if isinstance(told.entry.event, events.GuestSpawned)]

    @cached_property
    def ended(self) -> dict[str, int]:
        """Where in the order the death of each incarnation was confirmed."""
        return {
            told.entry.event.incarnation: told.at
            for told in self.of_kind(events.GuestEnded)
            if isinstance(told.entry.event, events.GuestEnded)
        }

    @cached_property
    def damaged(self) -> frozenset[str]:
        """Builds in which an injected fault flipped a byte: they must be refused, by name, when they are read."""
        return frozenset(damaged_builds(self.entries))

    def incarnation_of(self, pause: PauseView) -> str | None:
        """Which guest the pause froze; else the sandbox's latest when it began; None where neither is in the ledger."""
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
        """Where in the order a pause had settled."""
        places = [told.at for told in self.of_pause(pause) if isinstance(told.entry.event, events.PauseSettled)]
        return places[0] if places else None

    def step_of(self, pause: str) -> events.StepStarted | None:
        """The step in which a pause had settled, or had its last entry; None where the ledger has no such step."""
        told = self.of_pause(pause)
        if not told:
            return None
        settled = self.settled_at(pause)
        steps = self.of_kind(events.StepStarted)
        place = bisect.bisect_right(steps, told[-1].at if settled is None else settled, key=lambda each: each.at)
        step = steps[place - 1].entry.event if place else None
        return step if isinstance(step, events.StepStarted) else None


def _folded(entries: Sequence[Entry]) -> View:
    fold = Fold()
    fold.apply(entries)
    return fold.view()


def damaged_builds(entries: Iterable[Entry]) -> set[str]:
    """Builds in which an injected fault flipped a byte."""
    return {
        each.pause
        for each in entries
        if each.pause is not None and isinstance(each.event, events.FaultFired) and _corrupts(each.event)
    }


def _corrupts(fired: events.FaultFired) -> bool:
    return fault_kind(fired.kind, fired.error) == "corrupt"


class Rule(NamedTuple):
    """One invariant. `judge` reads all there is; `observe` looks at the living fleet, at a barrier, and once more when
    it is torn down (`reality.torn_down`)."""

    judge: Callable[[Evidence], Finding]
    observe: Callable[[Evidence, Reality], None] | None = None


PUNCHES = (engine_events.ChunkPunched, engine_events.CleanPagesPunched)
