"""How a guest ended, by its ledger alone: what the looks at its threads showed, and whether it died before a punch."""

from __future__ import annotations

from collections.abc import Sequence

from engine import events as engine_events
from engine.events import Event
from sim.record import events
from sim.record.view import PauseView
from sim.rules.evidence import PUNCHES, Evidence
from sim.rules.finding import Finding, Reason

_ENDS = (engine_events.GuestLooked, engine_events.GuestKilled, engine_events.GuestDied, engine_events.KillFailed)
_UNENDED = Reason("punched-alive", "it was punched, though it could not be ended")
_EARLY = Reason("punched-alive", "it was punched before it was seen dead")
_UNSEEN = Reason("punched-alive", "it was punched, and was never seen dead")
_NO_DEATH = "missing evidence: it was punched, and no `guest_died` event says that it was dead by then"
_NO_LOOK = "missing evidence: no `guest_looked` event says what its threads did between its freeze and its kill"
Threads = dict[str, list[int]]


def judge_end(evidence: Evidence, pause: PauseView, finding: Finding) -> None:
    """Nothing is punched of a guest before it was seen dead, and nothing is kept of one that ran since its freeze."""
    happened = evidence.events_of(pause.id)
    punch = next((at for at, each in enumerate(happened) if isinstance(each, PUNCHES)), None)
    details = {"incarnation": evidence.incarnation_of(pause), "pause": pause.id}
    if (torn := _kept_though_it_ran(happened, is_punched=punch is not None)) is not None:
        finding.violated(pause.sandbox, torn, **details)
    if punch is None:
        return
    before, has_lines = happened[:punch], _has_lines_of_ends(evidence)
    if (alive := _not_dead_by(happened, punch, has_lines=has_lines)) is not None:
        if alive is _UNSEEN and _may_lack_lines(evidence, pause):
            finding.lacks(pause.sandbox, _NO_DEATH, **details)
        else:
            finding.violated(pause.sandbox, alive, **details)
    if has_lines and not any(_is_a_last_look(each, _at_freeze(happened)) for each in before):
        finding.lacks(pause.sandbox, _NO_LOOK, **details)


def _has_lines_of_ends(evidence: Evidence) -> bool:
    """True where each look, kill and death has a line: ledgers of older versions have none of any guest."""
    run = evidence.view.run
    return (run is not None and run.asks_keeper) or any(evidence.of_kind(kind) for kind in _ENDS)


def _not_dead_by(happened: Sequence[Event], punch: int, *, has_lines: bool) -> Reason | None:
    before, after = ({type(each) for each in part} for part in (happened[:punch], happened[punch:]))
    if engine_events.KillFailed in before:
        return _UNENDED
    if engine_events.GuestDied in before:
        return None
    if engine_events.GuestDied in after:
        return _EARLY
    return _UNSEEN if has_lines else None


def _may_lack_lines(evidence: Evidence, pause: PauseView) -> bool:
    """Lines were lost, maybe with their count in a node that died; or the ledger begins after the pause did."""
    told = evidence.of_pause(pause.id)
    is_whole = any(isinstance(each.entry.event, events.GuestFrozen) for each in told)
    return bool(evidence.of_kind(events.LinesLost)) or evidence.crashed_after(told[0].at) or not is_whole


def _kept_though_it_ran(happened: Sequence[Event], *, is_punched: bool) -> Reason | None:
    """What a look shows once the build is whole costs nothing, where nothing was punched."""
    frozen = _at_freeze(happened)
    for at, look in enumerate(happened):
        if not isinstance(look, engine_events.GuestLooked) or not _shows_that_it_ran(look, frozen):
            continue
        if is_punched or any(isinstance(each, engine_events.BuildFinished) for each in happened[at:]):
            kept = "its memory was punched" if is_punched else "its build was finished"
            words = f"the look before {look.before} shows that it may have run since its freeze, and {kept}"
            return Reason("slices", words)
    return None


def _shows_that_it_ran(look: engine_events.GuestLooked, frozen: Threads | None) -> bool:
    if look.code is not None:
        return True
    return frozen is not None and look.threads is not None and look.threads != frozen


def _is_a_last_look(event: Event, frozen: Threads | None) -> bool:
    """True for one that can be compared with the freeze."""
    if not isinstance(event, engine_events.GuestLooked) or event.before != "kill":
        return False
    return event.threads is not None and frozen is not None


def _at_freeze(happened: Sequence[Event]) -> Threads | None:
    """Time slices and run time of each thread at the freeze; None where the ledger has none."""
    return next((each.threads for each in happened if isinstance(each, events.GuestFrozen)), None)
