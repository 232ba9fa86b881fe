"""`legal_transitions`: a sandbox goes from state to state along the edges of its lifecycle only."""

from __future__ import annotations

from typing import Any

from sim import events
from sim.checkers.evidence import Evidence, violation
from sim.sandbox import LEGAL, State

_EDGES = {(old.value, new.value) for old, after in LEGAL.items() for new in after}


class LegalTransitions:
    """Walks the ledger: every step is an edge, and begins where the last one ended."""

    name = "legal_transitions"

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[dict[str, Any]] = []

    def observe(self, evidence: Evidence) -> None:
        """The ledger is walked once, at the end."""

    def conclude(self, evidence: Evidence) -> None:
        now: dict[str, str] = {}
        for entry in evidence.entries:
            if entry.sandbox is None or not isinstance(entry.event, events.StateChanged):
                continue
            old, new = entry.event.old, entry.event.new
            before = now.get(entry.sandbox, State.CREATED.value)
            now[entry.sandbox] = new
            self.checked += 1
            if old != before:
                self.violations.append(violation(entry.sandbox, f"it was {before} and left {old}"))
            if (old, new) not in _EDGES:
                self.violations.append(violation(entry.sandbox, f"it went from {old} to {new}"))
