"""What was judged, as every report says it: by subject, and `not exercised` where nothing was checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sim.events import Judged
from sim.report import words
from sim.verdict import Verdict
from sim.view import View

NOT_EXERCISED = "not exercised"
CUT_OFF = "the record was cut off: there is no verdict"
UNJUDGED = "the run ended without judging everything"
_INVARIANT = "invariant:"


@dataclass(frozen=True, slots=True)
class Judgement:
    """One invariant or expectation; `verdict` is a Verdict's value or NOT_EXERCISED."""

    name: str
    verdict: str
    checked: int
    violations: tuple[dict[str, Any], ...]
    expected: bool = False  # violated in a run that held: a canary that was caught


def invariants(view: View) -> list[Judgement]:
    """The invariants, by their bare names."""
    return [_judgement(view, each) for each in view.judged if each.subject.startswith(_INVARIANT)]


def expectations(view: View) -> list[Judgement]:
    """Everything else that was judged: `metric:...`, `state:...`, `verdict:...`."""
    return [_judgement(view, each) for each in view.judged if not each.subject.startswith(_INVARIANT)]


def failed(view: View) -> list[Judgement]:
    """What was violated (and not by a canary that was caught) or could not be judged."""
    bad = (Verdict.VIOLATED, Verdict.INCONCLUSIVE)
    return [each for each in [*invariants(view), *expectations(view)] if each.verdict in bad and not each.expected]


def message(judgement: Judgement) -> str:
    """Why, in one sentence: the first reason that its violations give."""
    reasons = [str(each["reason"]) for each in judgement.violations if each.get("reason")]
    return reasons[0] if reasons else f"{judgement.name} is {judgement.verdict}"


def why(view: View) -> str:
    """The reason of the run's verdict, in one sentence."""
    bad = failed(view)
    if bad:
        more = f"; and {len(bad) - 1} more" if len(bad) > 1 else ""
        return f"{bad[0].name}: {message(bad[0])}{more}"
    if view.ended is None:
        return CUT_OFF
    if view.ended.verdict != Verdict.HELD:
        return UNJUDGED
    held = [each for each in invariants(view) if each.verdict == Verdict.HELD]
    met, unexercised = len(expectations(view)), len(invariants(view)) - len(held)
    parts = [
        f"{words.plural(len(held), 'invariant')} held" if held else "",
        f"{words.plural(met, 'expectation')} met" if met else "",
        f"{unexercised} not exercised" if unexercised else "",
    ]
    return ", ".join(filter(None, parts)) or "nothing was judged"


def verdict_of(view: View) -> str:
    """The run's verdict; a run that was cut off concluded nothing."""
    return view.ended.verdict if view.ended else Verdict.INCONCLUSIVE.value


def _judgement(view: View, judged: Judged) -> Judgement:
    name = judged.subject.removeprefix(_INVARIANT)
    vacuous = judged.verdict == Verdict.HELD and judged.checked == 0 and name != judged.subject
    verdict = NOT_EXERCISED if vacuous else judged.verdict.replace("_", " ")
    caught = verdict == Verdict.VIOLATED and verdict_of(view) == Verdict.HELD
    return Judgement(name, verdict, judged.checked, tuple(judged.violations), caught)
