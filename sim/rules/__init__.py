"""The nine invariants, one module each: judged while the fleet lives, or from a ledger alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from sim.record import events
from sim.record.ledger import Entry
from sim.record.verdict import Verdict
from sim.rules import (
    bytes_exact,
    decision_pinned,
    failed_copy_discards,
    legal_transitions,
    never_resumed,
    no_leaks,
    no_unpublished,
    peak_bounded,
    rollback_intact,
)
from sim.rules.bytes_exact import BytesExact
from sim.rules.decision_pinned import DecisionPinned
from sim.rules.evidence import Finding, Trace
from sim.rules.failed_copy_discards import FailedCopyDiscards
from sim.rules.legal_transitions import LegalTransitions
from sim.rules.never_resumed import NeverResumed
from sim.rules.no_leaks import NoLeaks
from sim.rules.no_unpublished import NoUnpublished
from sim.rules.peak_bounded import PeakBounded
from sim.rules.reality import Evidence
from sim.rules.rollback_intact import RollbackIntact


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


JUDGES: Mapping[str, Callable[[Trace], Finding]] = {
    "never_resumed": never_resumed.judge,
    "failed_copy_discards": failed_copy_discards.judge,
    "bytes_exact": bytes_exact.judge,
    "rollback_intact": rollback_intact.judge,
    "peak_bounded": peak_bounded.judge,
    "decision_pinned": decision_pinned.judge,
    "no_leaks": no_leaks.judge,
    "legal_transitions": legal_transitions.judge,
    "no_unpublished": no_unpublished.judge,
}
_INVARIANT = "invariant:"


class Rejudged(NamedTuple):
    """One invariant: by the ledger alone, and as the run itself judged reality (None where it did not)."""

    name: str
    ledger: events.Judged
    run: events.Judged | None
    expected: bool  # the scenario wants it violated, and it was: a canary that was caught

    @property
    def verdict(self) -> Verdict:
        """Violated where either saw it; inconclusive where the ledger lacks evidence that the run does not give."""
        if Verdict.VIOLATED in self._verdicts:
            return Verdict.VIOLATED
        if self.run is not None and self.run.checked and self.run.verdict == Verdict.HELD:
            return Verdict.HELD
        return Verdict.INCONCLUSIVE if Verdict.INCONCLUSIVE in self._verdicts else Verdict.HELD

    @property
    def checked(self) -> int:
        """How often it was exercised, by whoever saw more of it."""
        return max(self.ledger.checked, self.run.checked if self.run else 0)

    @property
    def differs(self) -> bool:
        """True where one saw a violation and the other says that it held."""
        return self.run is not None and {Verdict.HELD, Verdict.VIOLATED} <= self._verdicts and bool(self.checked)

    @property
    def _verdicts(self) -> set[str]:
        return {each.verdict for each in (self.ledger, self.run) if each is not None}


def judge(entries: Sequence[Entry]) -> list[events.Judged]:
    """Every invariant by these entries alone; checked 0 and held: not exercised."""
    trace = Trace(entries)
    found = []
    for name, judge_one in JUDGES.items():
        finding = judge_one(trace)
        notes = finding.violations or finding.missing
        found.append(events.Judged(f"{_INVARIANT}{name}", finding.verdict.value, finding.checked, notes))
    return found


def rejudge(entries: Sequence[Entry]) -> list[Rejudged]:
    """Today's judgement of each invariant beside the one that the ledger tells of."""
    told = {entry.event.subject: entry.event for entry in entries if isinstance(entry.event, events.Judged)}
    return [
        Rejudged(
            each.subject.removeprefix(_INVARIANT),
            each,
            told.get(each.subject),
            _is_held(told.get(f"verdict:violated:{each.subject}")),
        )
        for each in judge(entries)
    ]


def _is_held(judged: events.Judged | None) -> bool:
    return judged is not None and judged.verdict == Verdict.HELD


def verdict_of(rejudged: Iterable[Rejudged], *, complete: bool) -> Verdict:
    """Of a whole ledger; one that does not tell the run's end, or exercises nothing, is at best inconclusive."""
    found = list(rejudged)
    verdicts = {each.verdict for each in found if not (each.expected and each.verdict is Verdict.VIOLATED)}
    if Verdict.VIOLATED in verdicts:
        return Verdict.VIOLATED
    exercised = any(each.checked for each in found)
    return Verdict.HELD if complete and exercised and verdicts <= {Verdict.HELD} else Verdict.INCONCLUSIVE
