"""What the flags said for one pause, pinned, and the engine's options that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.plan import PauseOptions


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One flag's answer and how it came about.

    `reason` is LaunchDarkly's reason kind (OFF, FALLTHROUGH, TARGET_MATCH, RULE_MATCH, PREREQUISITE_FAILED), its
    error as ERROR:FLAG_NOT_FOUND and the like, or WRONG_TYPE where the served value was not of the catalogue's
    type; the value is then the safe one. `variation`, `version` and `rule` (id, else index) are None where there
    is none. `source_state` is the data source's state at that moment.
    """

    flag: str
    value: bool
    reason: str
    variation: int | None
    version: int | None
    rule: str | None
    source_state: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The evaluations of one pause, one for each flag of the catalogue. Later changes do not touch it."""

    evaluations: tuple[Evaluation, ...]

    def value(self, key: str) -> bool:
        """The decided value; KeyError for a flag that was not evaluated."""
        return {each.flag: each.value for each in self.evaluations}[key]

    def as_fields(self) -> dict[str, dict[str, Any]]:
        """JSON-ready: for each flag its value, reason, variation, version and source_state."""
        names = ("value", "reason", "variation", "version", "source_state")
        return {each.flag: {name: getattr(each, name) for name in names} for each in self.evaluations}


def options(decision: Decision) -> PauseOptions:
    """The engine's options for the pause this decision was made for."""
    return PauseOptions(
        background_copy=decision.value("memfd-background-copy"),
        punch=decision.value("memfd-punch-on-snapshot"),
    )
