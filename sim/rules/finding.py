"""What a rule found: how often it was exercised, what did not hold, which evidence is missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sim.files.yaml import Origin
from sim.record import events
from sim.record.verdict import Verdict


class Reason(NamedTuple):
    """Why a rule does not hold: a code that programs compare, and words for people."""

    code: str
    words: str


@dataclass(slots=True)
class Finding:
    """One rule: how often it was exercised, what did not hold, and which evidence is missing."""

    checked: int = 0
    violations: list[dict[str, Any]] = field(default_factory=list)
    missing: list[dict[str, Any]] = field(default_factory=list)
    applies: bool = True
    """False where the fleet has nothing that the rule is about: it is not reported unless it is asked for by name."""

    def violated(self, sandbox: str | None, why: Reason, **details: Any) -> None:
        """Note what did not hold: whose, why, and what else is known (incarnation, pause, page, expected, found)."""
        self.violations.append(_note(sandbox, why.words, {"code": why.code, **details}))

    def lacks(self, sandbox: str | None, reason: str, **details: Any) -> None:
        """Note evidence that is not there."""
        self.missing.append(_note(sandbox, reason, details))

    def blames(self, **details: str) -> bool:
        """True where a violation with these details was noted: reality shows more of it than its ledger."""
        return any(all(each.get(key) == value for key, value in details.items()) for each in self.violations)

    @property
    def verdict(self) -> Verdict:
        """Violated, else inconclusive where evidence is missing, else held."""
        if self.violations:
            return Verdict.VIOLATED
        return Verdict.INCONCLUSIVE if self.missing else Verdict.HELD

    def judged(self, name: str) -> events.Judged:
        """As a ledger has it."""
        notes = self.violations or self.missing
        return events.Judged(f"invariant:{name}", self.verdict.value, self.checked, list(notes))


def _note(sandbox: str | None, reason: str, details: dict[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in details.items() if value is not None}
    return {"sandbox": sandbox or "*", "reason": reason, **known}


def in_file(place: Origin | events.StepStarted) -> dict[str, Any]:
    """A place in a scenario file as a violation carries it."""
    return {"line": place.line, "column": place.column} | ({"file": place.file} if place.file else {})
