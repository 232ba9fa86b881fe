"""`decision_pinned`: one pause acts on one decision, whatever the flags do meanwhile."""

from __future__ import annotations

from typing import Any

from sim import events
from sim.checkers.evidence import Evidence, violation
from sim.view import PauseView

PUNCH, BACKGROUND, DEDUP = "memfd-punch-on-snapshot", "memfd-background-copy", "memfile-diff-dedup"


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
            for reason in _contradictions(pause, decisions):
                found = violation(pause.sandbox, reason, incarnation=pause.incarnation, pause=pause.id)
                self.violations.append(found)

    def conclude(self, evidence: Evidence) -> None:
        """Everything was judged when it settled."""


def _contradictions(pause: PauseView, decisions: int) -> list[str]:
    found = []
    if decisions != 1:
        found.append(f"the pause has {decisions} decisions, not one")
    value = {flag: each["value"] for flag, each in pause.decision.items()}
    if pause.punched_bytes and not value.get(PUNCH):
        found.append(f"{pause.punched_bytes} bytes were freed, and the decision was not to punch")
    if pause.path is not None and pause.path not in _paths(pause, value):
        found.append(f"the path was {pause.path}, which is not what the flags said")
    return found


def _paths(pause: PauseView, value: dict[str, Any]) -> set[str]:
    """What the decision allows; whether there is a memfd was latched before it."""
    if pause.checkpoint:
        return {"in-place", "process"}
    if value.get(DEDUP, {}).get("enabled"):
        return {"dedup", "process"}
    return {"memfd-background" if value.get(BACKGROUND) else "memfd", "process"}
