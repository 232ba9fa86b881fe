"""Judgements of a ledger, today's beside the run's own: as text, and as the `check --json` document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.record import events
from sim.record.verdict import Verdict
from sim.report import words
from sim.report.judgements import NOT_EXERCISED
from sim.rules import Rejudged

VERSION = 1
_MOST_REASONS = 5


def lines(rejudged: Sequence[Rejudged]) -> list[str]:
    """A table of all invariants, then why some did not hold, what the ledger lacks, and where the two disagree."""
    rows = [("", "the ledger alone", "the run, of reality")]
    rows += [(each.name, shown(each.ledger), shown(each.run) if each.run else "not told") for each in rejudged]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    table = [f"  {name:<{widths[0]}}  {ledger:<{widths[1]}}  {run}".rstrip() for name, ledger, run in rows]
    return [*table, *_reasons(rejudged), *_lacking(rejudged), *_differences(rejudged)]


def shown(judged: events.Judged) -> str:
    """`held, checked 6 times`."""
    if judged.verdict == Verdict.HELD and judged.checked == 0:
        return NOT_EXERCISED
    return f"{judged.verdict}, checked {words.times(judged.checked)}"


def _reasons(rejudged: Sequence[Rejudged]) -> list[str]:
    found = []
    for each in rejudged:
        for judged in (each.ledger, each.run):
            if judged is not None and judged.verdict == Verdict.VIOLATED:
                by = "the ledger alone" if judged is each.ledger else "the run"
                wanted = ", as the scenario expects" if each.expected else ""
                found += ["", f"{each.name} violated, by {by}{wanted}", *_notes(judged.violations)]
    return found


def _lacking(rejudged: Sequence[Rejudged]) -> list[str]:
    found = []
    for each in rejudged:
        if each.verdict is Verdict.INCONCLUSIVE:
            judged = each.ledger if each.ledger.verdict == Verdict.INCONCLUSIVE else each.run
            found += [
                "",
                f"{each.name} inconclusive, evidence is missing",
                *_notes(judged.violations if judged else []),
            ]
    return found


def _differences(rejudged: Sequence[Rejudged]) -> list[str]:
    found = [_difference(each) for each in rejudged if each.differs]
    return ["", "differences", *(f"  {text}" for text in found)] if found else []


def _difference(each: Rejudged) -> str:
    if each.ledger.verdict == Verdict.VIOLATED:
        return f"{each.name}: its own ledger contradicts it, though the run saw nothing wrong"
    return f"{each.name}: the run saw a violation in reality that its ledger does not show"


def _notes(notes: Sequence[Mapping[str, Any]]) -> list[str]:
    told = [f"  {_who(note)}{note.get('reason', '')}" for note in notes[:_MOST_REASONS]]
    return told + ([f"  and {len(notes) - _MOST_REASONS} more"] if len(notes) > _MOST_REASONS else [])


def _who(note: Mapping[str, Any]) -> str:
    sandbox, pause = note.get("sandbox", "*"), note.get("pause")
    return "" if sandbox == "*" else f"{sandbox}{f' ({pause})' if pause else ''}: "


def document(
    file: str, rejudged: Sequence[Rejudged], verdict: Verdict, count: int, unknown: Mapping[str, int]
) -> dict[str, Any]:
    """The `check --json` document; `count` events were read, `unknown` names those that were left out."""
    return {
        "version": VERSION,
        "file": file,
        "verdict": verdict.value,
        "exit_code": int(verdict.exit_code),
        "events": count,
        "unknown_events": dict(unknown),
        "invariants": [
            {
                "name": each.name,
                "verdict": each.verdict.value if each.checked or each.verdict is not Verdict.HELD else NOT_EXERCISED,
                "expected": each.expected,
                "differs": each.differs,
                "ledger": _judged(each.ledger),
                "run": _judged(each.run) if each.run else None,
            }
            for each in rejudged
        ],
    }


def _judged(judged: events.Judged) -> dict[str, Any]:
    notes = "violations" if judged.verdict == Verdict.VIOLATED else "missing"
    return {"verdict": judged.verdict, "checked": judged.checked, notes: list(judged.violations)}
