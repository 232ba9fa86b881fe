"""One module an invariant; each looks at bytes, blocks, fds and processes. A panel asks them all."""

from __future__ import annotations

from typing import Any, Protocol

from sim.checkers.bytes_exact import BytesExact
from sim.checkers.decision_pinned import DecisionPinned
from sim.checkers.evidence import Evidence
from sim.checkers.failed_copy_discards import FailedCopyDiscards
from sim.checkers.legal_transitions import LegalTransitions
from sim.checkers.never_resumed import NeverResumed
from sim.checkers.no_leaks import NoLeaks
from sim.checkers.no_unpublished import NoUnpublished
from sim.checkers.peak_bounded import PeakBounded
from sim.checkers.rollback_intact import RollbackIntact


class Checker(Protocol):
    """One invariant. `checked` counts what it was exercised on, `violations` what did not hold."""

    name: str
    checked: int
    violations: list[dict[str, Any]]

    def observe(self, evidence: Evidence) -> None:
        """Look at a barrier, while the fleet lives."""

    def conclude(self, evidence: Evidence) -> None:
        """Look once more after teardown."""


class Panel:
    """Every checker, for one run."""

    def __init__(self) -> None:
        bytes_exact = BytesExact()
        self.checkers: tuple[Checker, ...] = (
            NeverResumed(),
            FailedCopyDiscards(),
            bytes_exact,
            RollbackIntact(bytes_exact),
            PeakBounded(),
            DecisionPinned(),
            NoLeaks(),
            LegalTransitions(),
            NoUnpublished(),
        )

    def observe(self, evidence: Evidence) -> None:
        """Have every checker look now."""
        for checker in self.checkers:
            checker.observe(evidence)

    def conclude(self, evidence: Evidence) -> None:
        """Have every checker look after teardown."""
        for checker in self.checkers:
            checker.conclude(evidence)

    def violations(self) -> list[dict[str, Any]]:
        """Everything that was seen not to hold."""
        return [each for checker in self.checkers for each in checker.violations]
