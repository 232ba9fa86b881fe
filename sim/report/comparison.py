"""Two runs compared: the first fact in which each sandbox differs, and the figures of both. Pure."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from sim.record.digest import facts
from sim.record.ledger import Entry
from sim.record.view import PUNCH, PauseView, View
from sim.report import judgements

_DIGEST_LENGTH = 12  # as reports show it


@dataclass(frozen=True, slots=True)
class Difference:
    """The first fact, the `number`-th from 1, in which a sandbox differs; None if that run has no such fact."""

    sandbox: str
    number: int
    first: str | None
    second: str | None


@dataclass(frozen=True, slots=True)
class FigurePair:
    """One figure of both runs, as text; None where it does not apply."""

    name: str
    first: str | None
    second: str | None


@dataclass(frozen=True, slots=True)
class RunComparison:
    """No difference: everything that the digest covers is the same in both runs. Figures may always differ."""

    differences: tuple[Difference, ...]
    figures: tuple[FigurePair, ...]

    @property
    def same(self) -> bool:
        """True if both would have the same digest."""
        return not self.differences


def compare(first: Sequence[Entry], second: Sequence[Entry], views: tuple[View, View]) -> RunComparison:
    """The two ledgers by the facts of their digests, and the two views by their figures."""
    (ours, our_firings), (theirs, their_firings) = facts(first), facts(second)
    found = [
        difference
        for sandbox in dict.fromkeys([*ours, *theirs])
        if (difference := _first_difference(sandbox, ours.get(sandbox, []), theirs.get(sandbox, []))) is not None
    ]
    found += _firings(our_firings, their_firings)
    rows = [_figures(view) for view in views]
    names = dict.fromkeys([*rows[0], *rows[1]])
    return RunComparison(tuple(found), tuple(FigurePair(name, rows[0].get(name), rows[1].get(name)) for name in names))


def _first_difference(sandbox: str, ours: Sequence[Any], theirs: Sequence[Any]) -> Difference | None:
    for number, (one, other) in enumerate(zip_longest(ours, theirs), 1):
        if one != other:
            return Difference(sandbox, number, *_in_words(one, other))
    return None


def _firings(
    ours: Iterable[tuple[str, str, str, str]], theirs: Iterable[tuple[str, str, str, str]]
) -> Iterable[Difference]:
    one, other = set(ours), set(theirs)
    for firing in sorted(one ^ other):
        sandbox, pause, fault, error = firing
        what = f"fault {fault} {error} fired" + (f" in {pause}" if pause else "")
        yield Difference(sandbox, 0, what if firing in one else None, what if firing in other else None)


def _in_words(one: Any, other: Any) -> tuple[str | None, str | None]:
    """Of two decisions only the flags that differ are listed."""
    if one and other and one[0] == other[0] == "decided":
        differing = {flag for flag in one[1].keys() | other[1].keys() if one[1].get(flag) != other[1].get(flag)}
        one, other = (["decided", {flag: each[1].get(flag) for flag in sorted(differing)}] for each in (one, other))
    return _fact(one), _fact(other)


def _fact(fact: Any) -> str | None:
    match fact:
        case None:
            return None
        case ["state", old, new, stop_reason]:
            return f"{old} -> {new}" + (f" ({stop_reason})" if stop_reason else "")
        case ["decided", values]:
            return "decided " + ", ".join(f"{flag} {_value(value)}" for flag, value in values.items())
        case ["settled", outcome, path, punch, dirty, content]:
            with_punch = "punched" if punch else "not punched"
            return f"pause {outcome}: path {path}, {with_punch}, {dirty} bytes dirty, content {content}"
        case [name, *rest]:
            return " ".join([str(name), *map(str, rest)])
    return str(fact)


def _value(value: Any) -> str:
    return {True: "on", False: "off", None: "not decided"}.get(value, str(value)) if _is_plain(value) else str(value)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _figures(view: View) -> Mapping[str, str | None]:
    run, ended = view.run, view.ended
    outcomes = Counter(each.outcome or "not settled" for each in view.pauses)
    found: dict[str, str | None] = {
        "scenario": run.name if run else None,
        "seed": str(run.seed) if run else None,
        "verdict": judgements.verdict_of(view),
        "digest": ended.digest[:_DIGEST_LENGTH] if ended and ended.digest else None,
        "at the end": ", ".join(f"{count} {state}" for state, count in sorted(view.counts.items())) or None,
        "pauses": ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())) or None,
        "peak memory, bytes": str(view.memory.peak) if view.memory.peak else None,
    }
    for label, on in (("punch off", False), ("punch on", True)):
        group = [each for each in view.measured if bool(each.decision.get(PUNCH, {}).get("value")) is on]
        found |= {f"{name}, {label}": value for name, value in _of_pauses(group).items()}
    return found


def _of_pauses(pauses: Sequence[PauseView]) -> Mapping[str, str]:
    over = [each.peak_over for each in pauses if each.peak_over is not None]
    ratios = [each.peak_ratio for each in pauses if each.peak_ratio is not None]
    blocked = [each.blocked_ms for each in pauses if each.blocked_ms is not None]
    copied = [each.copy_ms for each in pauses if each.copy_ms is not None]
    found = {"freed, bytes": str(sum(each.punched_bytes for each in pauses))} if pauses else {}
    found |= {"peak over, bytes at most": str(max(over))} if over else {}
    found |= {"peak ratio at most": f"{max(ratios):.2f}"} if ratios else {}
    found |= {"answer, ms median": f"{statistics.median(blocked):.1f}"} if blocked else {}
    return found | ({"copy, ms median": f"{statistics.median(copied):.1f}"} if copied else {})
