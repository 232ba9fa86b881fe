"""What came of a case: what the fault made of the sandbox that it hit, or why the case says nothing or says no."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.cluster import Judgement, UnitResult
from sim.fault_catalogue import kind_of
from sim.sweep.cases import Case
from sim.verdict import ExitCode, Verdict

VIOLATED, ERROR, INCONCLUSIVE, NOT_REACHED = "violated", "error", "inconclusive", "not reached"
OUTCOMES = (
    "finished", "rolled back", "discarded", "refused", "running", "paused", "killed", "recovered",
    NOT_REACHED, INCONCLUSIVE, ERROR, VIOLATED,
)  # fmt: skip
"""In the order of a table. `running` and `paused` are where a sandbox was after a fault in its resume; `recovered` is
after a crash in which no pause was under way."""
_CODES = {VIOLATED: ExitCode.VIOLATED, ERROR: ExitCode.INTERNAL, INCONCLUSIVE: ExitCode.INCONCLUSIVE}
_CODES[NOT_REACHED] = ExitCode.INCONCLUSIVE


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case that was run. `broken` are its violations; `run_dir` is kept where it did not hold."""

    case: Case
    outcome: str
    seconds: float
    broken: tuple[Judgement, ...] = ()
    why: str | None = None
    run_dir: Path | None = None

    @property
    def exit_code(self) -> ExitCode:
        return _CODES.get(self.outcome, ExitCode.HELD)


def result_of(case: Case, result: UnitResult) -> CaseResult:
    """Judged on invariants and liveness alone: whatever else is inconclusive in a case is no verdict of it."""
    broken = violations(result)
    if broken:
        reason = first_reason(broken[0]).get("reason")
        return CaseResult(case, VIOLATED, result.seconds, broken, str(reason), result.run_dir)
    if result.error is not None:
        return CaseResult(case, ERROR, result.seconds, (), result.error, result.run_dir)
    if (cut_off := out_of_time(result)) is not None:
        return CaseResult(case, INCONCLUSIVE, result.seconds, (), cut_off, result.run_dir)
    return CaseResult(case, _came_of(case, result) if _fired(case, result) else NOT_REACHED, result.seconds)


def violations(result: UnitResult) -> tuple[Judgement, ...]:
    """What was judged violated."""
    return tuple(each for each in result.judgements if each.verdict == Verdict.VIOLATED)


def out_of_time(result: UnitResult) -> str | None:
    """Why a run was cut off; None where it took every step."""
    cut = [each for each in result.judgements if each.subject == "time-limit"]
    return str(first_reason(cut[0]).get("reason")) if cut else None


def first_reason(judgement: Judgement) -> dict[str, Any]:
    """The first violation in full, as a ledger tells it."""
    return judgement.reasons[0] if judgement.reasons else {"reason": f"{judgement.subject} is {judgement.verdict}"}


def _fired(case: Case, result: UnitResult) -> bool:
    point, pauses = case.point, {None, case.point.occasion}
    return any(
        (each.sandbox, each.fault, each.chunk) == (point.sandbox, point.fault, point.chunk)
        and kind_of(each.error) == case.kind
        and each.pause in pauses
        for each in result.firings
    )


def _came_of(case: Case, result: UnitResult) -> str:
    """The outcome of the pause that was hit; the final state where that says more, or where there was no pause."""
    point = case.point
    state = result.states.get(point.sandbox, "gone")
    if case.kind in {"kill-guest", "kill-node"} and state == "killed":
        return state
    for pause in result.pauses:
        if pause.id == point.occasion:
            return pause.outcome.replace("-", " ")
    if case.kind == "kill-node":
        return "recovered"
    return state if point.of_resume else NOT_REACHED
