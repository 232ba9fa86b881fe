"""Judgements of a ledger, today's beside the run's own: as text, and as the `check --json` document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sim.record import events
from sim.record.verdict import Verdict
from sim.record.view import View
from sim.report import words
from sim.report.judgements import NOT_EXERCISED
from sim.report.table import Bullets, CellSpan, Section, Table, toned
from sim.rules.finding import Finding

VERSION = 1
_MOST_REASONS = 5


class Rejudged(NamedTuple):
    """One rule: by the ledger alone, and as the run itself judged reality (None where it did not)."""

    name: str
    ledger: events.Judged
    run: events.Judged | None
    expected: bool  # the scenario wants it violated, and it was: a canary that was caught

    @property
    def verdict(self) -> Verdict:
        """Violated if either saw a violation; inconclusive if the ledger lacks evidence that the run does not give."""
        if Verdict.VIOLATED in self._verdicts:
            return Verdict.VIOLATED
        if self.run is not None and self.run.checked and self.run.verdict == Verdict.HELD:
            return Verdict.HELD
        return Verdict.INCONCLUSIVE if Verdict.INCONCLUSIVE in self._verdicts else Verdict.HELD

    @property
    def checked(self) -> int:
        """How often it was exercised; the larger of the two counts."""
        return max(self.ledger.checked, self.run.checked if self.run else 0)

    @property
    def differs(self) -> bool:
        """True if one saw a violation and the other held."""
        return self.run is not None and {Verdict.HELD, Verdict.VIOLATED} <= self._verdicts and bool(self.checked)

    @property
    def _verdicts(self) -> set[str]:
        return {each.verdict for each in (self.ledger, self.run) if each is not None}


def beside_the_run(findings: Mapping[str, Finding], view: View) -> list[Rejudged]:
    """Today's finding of each rule beside the judgement in the ledger itself."""
    recorded = {each.subject: each for each in view.judged}

    def is_held(subject: str) -> bool:
        return subject in recorded and recorded[subject].verdict == Verdict.HELD

    return [
        Rejudged(name, judged, recorded.get(judged.subject), is_held(f"verdict:violated:{judged.subject}"))
        for name, judged in ((name, finding.judged(name)) for name, finding in findings.items() if finding.applies)
    ]


def verdict_of(rejudged: Iterable[Rejudged], *, complete: bool) -> Verdict:
    """Of a whole ledger; one without the run's end, or that exercises nothing, is at best inconclusive."""
    found = list(rejudged)
    verdicts = {each.verdict for each in found if not (each.expected and each.verdict is Verdict.VIOLATED)}
    if Verdict.VIOLATED in verdicts:
        return Verdict.VIOLATED
    exercised = any(each.checked for each in found)
    return Verdict.HELD if complete and exercised and verdicts <= {Verdict.HELD} else Verdict.INCONCLUSIVE


def sections(rejudged: Sequence[Rejudged]) -> list[Section]:
    """A table of all invariants, then why some did not hold, what the ledger lacks, and where the two disagree."""
    rows = [
        (each.name, _toned(each.ledger), _toned(each.run) if each.run else toned("not recorded", "muted"))
        for each in rejudged
    ]
    differences = [_difference(each) for each in rejudged if each.differs]
    return [
        Section("", (Table(("invariant", "the ledger alone", "the run itself"), rows),)),
        *_reasons(rejudged),
        *_lacking(rejudged),
        Section("differences", (Bullets(differences),)),
    ]


def _toned(judged: events.Judged) -> CellSpan:
    verdict = shown(judged)
    return toned(verdict, "muted" if verdict == NOT_EXERCISED else words.verdict_tone(judged.verdict))


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
        return f"{each.name}: the ledger shows a violation that the run itself did not see"
    return f"{each.name}: the run itself saw a violation that its ledger does not show"


def _notes(notes: Sequence[Mapping[str, Any]]) -> Bullets:
    reasons = [f"{_place(note)}{note.get('reason', '')}" for note in notes[:_MOST_REASONS]] or ["no reason is recorded"]
    return Bullets(reasons + ([f"and {len(notes) - _MOST_REASONS} more"] if len(notes) > _MOST_REASONS else []))


def _place(note: Mapping[str, Any]) -> str:
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
