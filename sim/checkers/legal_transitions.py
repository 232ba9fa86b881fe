"""`legal_transitions`: a sandbox goes from state to state along the edges of its lifecycle only."""

from __future__ import annotations

from typing import Any

from sim.checkers.evidence import Evidence, violation
from sim.trace.legal_transitions import steps


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
