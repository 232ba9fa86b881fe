"""What was judged, as every report says it: by subject, and `not exercised` where nothing was checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sim.events import Judged
from sim.verdict import Verdict
from sim.view import View

NOT_EXERCISED = "not exercised"
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


def verdict_of(view: View) -> str:
    """The run's verdict; a run that was cut off concluded nothing."""
    return view.ended.verdict if view.ended else Verdict.INCONCLUSIVE.value


def _judgement(view: View, judged: Judged) -> Judgement:
    name = judged.subject.removeprefix(_INVARIANT)
    vacuous = judged.verdict == Verdict.HELD and judged.checked == 0 and name != judged.subject
    verdict = NOT_EXERCISED if vacuous else judged.verdict.replace("_", " ")
    caught = verdict == Verdict.VIOLATED and verdict_of(view) == Verdict.HELD
    return Judgement(name, verdict, judged.checked, tuple(judged.violations), caught)
