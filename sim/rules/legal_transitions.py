"""The rule, for both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from sim.files.lifecycle import LEGAL, State
from sim.record import events
from sim.record.ledger import Entry
from sim.rules.evidence import Finding, Trace
from sim.rules.reality import Evidence, violation


class LegalTransitions:
    """Walks the ledger: every step is an edge, and begins where the last one ended."""

    name = "legal_transitions"

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[dict[str, Any]] = []

    def observe(self, evidence: Evidence) -> None:
        """The ledger is walked once, at the end."""

    def conclude(self, evidence: Evidence) -> None:
        for step in steps(evidence.entries):
            self.checked += 1
            self.violations += [violation(step.sandbox, mistake) for mistake in step.mistakes]


_EDGES = {(old.value, new.value) for old, after in LEGAL.items() for new in after}


class Step(NamedTuple):
    """One transition of a sandbox, and what is wrong with it, if anything."""

    sandbox: str
    mistakes: tuple[str, ...]


def judge(trace: Trace) -> Finding:
    """Every transition that is told."""
    finding = Finding()
    for step in steps(trace.entries):
        finding.checked += 1
        for mistake in step.mistakes:
            finding.violated(step.sandbox, mistake)
    return finding


def steps(entries: Iterable[Entry]) -> Iterator[Step]:
    """Every step is an edge, and begins where the last one ended; a sandbox that is not told to be created may begin
    anywhere: its first states are not in this ledger."""
    now: dict[str, str] = {}
    for entry in entries:
        if entry.sandbox is None:
            continue
        match entry.event:
            case events.SandboxCreated():
                now[entry.sandbox] = State.CREATED.value
            case events.StateChanged(old, new):
                before = now.get(entry.sandbox, old)
                now[entry.sandbox] = new
                mistakes = [] if old == before else [f"it was {before} and left {old}"]
                mistakes += [] if (old, new) in _EDGES else [f"it went from {old} to {new}"]
                yield Step(entry.sandbox, tuple(mistakes))
            case _:
                pass
