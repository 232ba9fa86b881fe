"""`decision_pinned`: one pause acts on one decision, whatever the flags do meanwhile."""

from __future__ import annotations

from typing import Any

from sim import events
from sim.checkers.evidence import Evidence, violation
from sim.trace.decision_pinned import contradictions, freed_unasked
from sim.view import PauseView


class DecisionPinned:
    """Compares what each pause did with the one decision that its ledger entries carry."""

    name = "decision_pinned"

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[dict[str, Any]] = []
        self._done: set[str] = set()

    def observe(self, evidence: Evidence) -> None:
        for pause in evidence.view.pauses:
            if pause.settled_at is None or pause.id in self._done:
                continue
            self._done.add(pause.id)
            self.checked += 1
            decisions = sum(isinstance(each.event, events.Decided) for each in evidence.of_pause(pause.id))
            reasons = [] if decisions == 1 else [f"the pause has {decisions} decisions, not one"]
            reasons += contradictions(pause, _latched(evidence, pause)) or freed_unasked(
                evidence.of_pause(pause.id), pause
            )
            for reason in reasons:
                found = violation(pause.sandbox, reason, incarnation=pause.incarnation, pause=pause.id)
                self.violations.append(found)

    def conclude(self, evidence: Evidence) -> None:
        """Everything was judged when it settled."""


def _latched(evidence: Evidence, pause: PauseView) -> bool | None:
    """Whether the paused incarnation gave its memfd; None where its start was not told."""
    born = (each.born for each in evidence.guests() if each.born.incarnation == pause.incarnation)
    return next((each.use_memfd for each in born), None)
