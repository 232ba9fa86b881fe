"""`no_leaks`: every guest that was told to start is told to end, and every cache is finished or deleted."""

from __future__ import annotations

from engine import events as engine_events
from sim.trace.evidence import Finding, Trace
from sim.verdict import Verdict
from sim.view import PauseView

_CRASHED = "the node died, and"
_LOOKED = "the run found nothing that was left, though"
_CUT_OFF = "the ledger does not tell the run's end, and"


def judge(trace: Trace) -> Finding:
    """Something that is not told to be gone is left, unless the teller died or the ledger was cut off."""
    finding = Finding()
    for incarnation, told in trace.born.items():
        finding.checked += 1
        if incarnation not in trace.ended:
            _left(finding, trace, told.at, told.entry.sandbox, f"{incarnation} is never told to have ended")
    for pause in trace.view.pauses:
        if not _made_a_cache(trace, pause):
            continue
        finding.checked += 1
        if not _cache_is_gone(trace, pause):
            reason = f"the cache of {pause.id} was neither finished nor deleted"
            _left(finding, trace, trace.of_pause(pause.id)[0].at, pause.sandbox, reason)
    return finding


def _left(finding: Finding, trace: Trace, since: int, sandbox: str | None, reason: str) -> None:
    if trace.crashed_after(since):
        finding.lacks(sandbox, f"{_CRASHED} {reason}")
    elif not trace.complete:
        finding.lacks(sandbox, f"{_CUT_OFF} {reason}")
    elif _looked_for(trace):
        finding.lacks(sandbox, f"{_LOOKED} {reason}")
    else:
        finding.violated(sandbox, reason)


def _looked_for(trace: Trace) -> bool:
    """True where the run tells that it looked for what is left, and found nothing."""
    told = (each for each in trace.view.judged if each.subject == "invariant:no_leaks")
    return any(each.verdict == Verdict.HELD and each.checked for each in told)


def _made_a_cache(trace: Trace, pause: PauseView) -> bool:
    return any(isinstance(told.entry.event, engine_events.Planned) for told in trace.of_pause(pause.id))


def _cache_is_gone(trace: Trace, pause: PauseView) -> bool:
    ends = (engine_events.BuildFinished, engine_events.CacheDeleted)
    told = any(isinstance(each.entry.event, ends) for each in trace.of_pause(pause.id))
    return told or pause.outcome == "finished"
