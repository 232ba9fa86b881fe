"""`never_resumed`: a condemned or punched incarnation is not told to thaw, run, freeze again or be resumed."""

from __future__ import annotations

from typing import NamedTuple

from engine import events as engine_events
from sim import events
from sim.trace.evidence import PUNCHES, Finding, Trace


class _Lost(NamedTuple):
    """An incarnation that may never run again, from this place in the ledger on."""

    sandbox: str
    incarnation: str
    pause: str
    at: int


def judge(trace: Trace) -> Finding:
    """Walk on from each point of no return."""
    finding = Finding()
    for lost in _lost(trace, finding):
        finding.checked += 1
        reason = _ran_again(trace, lost)
        if reason is not None:
            finding.violated(lost.sandbox, reason, incarnation=lost.incarnation, pause=lost.pause)
        elif lost.incarnation not in trace.ended:
            finding.lacks(
                lost.sandbox, f"no guest_ended tells the end of {lost.incarnation}, which was condemned or punched",
                incarnation=lost.incarnation, pause=lost.pause,
            )  # fmt: skip
    return finding


def _lost(trace: Trace, finding: Finding) -> list[_Lost]:
    found = []
    for pause in trace.view.pauses:
        told = trace.of_pause(pause.id)
        condemned = [each.at for each in told if isinstance(each.entry.event, engine_events.Condemned)]
        punched = [each.at for each in told if isinstance(each.entry.event, PUNCHES)]
        settled = [each.at for each in told if _settled_condemned(each.entry.event)]
        places = condemned[:1] + punched[:1] + settled[:1]
        if not places:
            continue
        incarnation = trace.incarnation_of(pause)
        if incarnation is None:
            finding.lacks(pause.sandbox, f"neither guest_frozen nor guest_spawned tells whom {pause.id} took",
                          pause=pause.id)  # fmt: skip
            continue
        if condemned and punched and punched[0] < condemned[0]:
            reason = "it was punched before it was condemned: a crash in between would have let it run again"
            finding.violated(pause.sandbox, reason, incarnation=incarnation, pause=pause.id)
        found.append(_Lost(pause.sandbox, incarnation, pause.id, min(places)))
    return found


def _settled_condemned(event: object) -> bool:
    return isinstance(event, events.PauseSettled) and (event.condemned or event.punched_bytes > 0)


def _ran_again(trace: Trace, lost: _Lost) -> str | None:
    """The first thing told of it that only a running guest can do."""
    now = lost.incarnation
    for _, entry in trace.of_sandbox(lost.sandbox, lost.at):
        match entry.event:
            case events.GuestThawed(incarnation) if incarnation == lost.incarnation:
                return "a condemned guest was thawed"
            case events.GuestSpawned(incarnation) if incarnation == lost.incarnation:
                return "a condemned incarnation was started again"
            case events.Resumed(incarnation) if incarnation == lost.incarnation:
                return "a condemned incarnation was resumed"
            case events.GuestFrozen(incarnation) if incarnation == lost.incarnation and entry.pause != lost.pause:
                return "a condemned guest was paused once more, so it had run on"
            case events.GuestSpawned(incarnation):
                now = incarnation
            case events.StateChanged(_, "running") if now == lost.incarnation:
                return "the sandbox runs again without a new incarnation"
            case _:
                pass
    return None
