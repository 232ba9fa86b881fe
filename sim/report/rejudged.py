"""Judgements of a ledger, today's beside the run's own: as text, and as the `check --json` document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sim.record import events
from sim.record.verdict import Verdict
from sim.report import words
from sim.report.judgements import NOT_EXERCISED
from sim.report.table import Bullets, Section, Span, Table, toned
from sim.rules import Rejudged

VERSION = 1
_MOST_REASONS = 5


def sections(rejudged: Sequence[Rejudged]) -> list[Section]:
    """A table of all invariants, then why some did not hold, what the ledger lacks, and where the two disagree."""
    rows = [
        (each.name, _toned(each.ledger), _toned(each.run) if each.run else toned("not in its record", "muted"))
        for each in rejudged
    ]
    differences = [_difference(each) for each in rejudged if each.differs]
    return [
        Section("", (Table(("invariant", "the ledger alone", "the run, of reality"), rows),)),
        *_reasons(rejudged),
        *_lacking(rejudged),
        Section("differences", (Bullets(differences),)),
    ]


def _toned(judged: events.Judged) -> Span:
    said = shown(judged)
    return toned(said, "muted" if said == NOT_EXERCISED else words.verdict_tone(judged.verdict))


def shown(judged: events.Judged) -> str:
    """`held, checked 6 times`."""
    if judged.verdict == Verdict.HELD and judged.checked == 0:
        return NOT_EXERCISED
    return f"{judged.verdict}, checked {words.times(judged.checked)}"


def _reasons(rejudged: Sequence[Rejudged]) -> Iterator[Section]:
    for each in rejudged:
        for judged in (each.ledger, each.run):
            if judged is not None and judged.verdict == Verdict.VIOLATED:
                by = "the ledger alone" if judged is each.ledger else "the run"
                wanted = ", as the scenario expects" if each.expected else ""
                yield Section(f"{each.name} violated, by {by}{wanted}", (_notes(judged.violations),))


def _lacking(rejudged: Sequence[Rejudged]) -> Iterator[Section]:
    for each in rejudged:
        if each.verdict is Verdict.INCONCLUSIVE:
            judged = each.ledger if each.ledger.verdict == Verdict.INCONCLUSIVE else each.run
            title = f"{each.name} inconclusive, evidence is missing"
            yield Section(title, (_notes(judged.violations if judged else []),))


def _difference(each: Rejudged) -> str:
    if each.ledger.verdict == Verdict.VIOLATED:
        return f"{each.name}: its own ledger contradicts it, though the run saw nothing wrong"
    return f"{each.name}: the run saw a violation in reality that its ledger does not show"


def _notes(notes: Sequence[Mapping[str, Any]]) -> Bullets:
    said = [f"{_who(note)}{note.get('reason', '')}" for note in notes[:_MOST_REASONS]] or ["no reason is recorded"]
    return Bullets(said + ([f"and {len(notes) - _MOST_REASONS} more"] if len(notes) > _MOST_REASONS else []))


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
