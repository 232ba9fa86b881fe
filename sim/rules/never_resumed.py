"""An incarnation with a punched byte, or a condemned one, never runs again."""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple

from engine import events as engine_events
from sim.record import events
from sim.record.names import sandbox_of
from sim.record.oracle import PAGE, content, describe, key_of
from sim.rules.evidence import PUNCHES, Evidence
from sim.rules.finding import Finding, Reason
from sim.rules.guest_end import judge_end
from sim.rules.heartbeat import ran_after_its_freeze
from sim.rules.reality import Reality, SpawnedGuest, zeroed_pages

NAME = "never_resumed"
_RUNS = Reason("runs", "a condemned guest runs again")
_RUNS_FREED = Reason("runs-freed", "a guest runs although its memory was freed")
_ALIVE = Reason("alive", "its memory was freed, and the guest is still alive")
_DYING = 2.0  # seconds in which a process that was sent SIGKILL may still be seen


def observe(evidence: Evidence, reality: Reality) -> None:
    """Look at every incarnation that runs: is it condemned, and are pages gone that it wrote? And at every one that was
    punched: it must be dead. No process is left after teardown: no_leaks looks for those that are."""
    _ask_the_witness(evidence, reality)
    if reality.torn_down:
        return
    seen = reality.seen[NAME]
    condemned = {each.incarnation: each.id for each in evidence.view.pauses if each.incarnation and each.condemned}
    end = time.monotonic() + _DYING
    for incarnation, guest in reality.guests(evidence.guests).items():
        if incarnation not in seen.done and guest.is_running():
            _look_at(guest, condemned.get(incarnation), reality, end)
    _look_for_the_living(evidence, reality)


def _look_for_the_living(evidence: Evidence, reality: Reality) -> None:
    """Who was punched was seen dead before that, so no line of a punch may be read while its guest is there."""
    seen, guests = reality.seen[NAME], reality.guests(evidence.guests)
    for pause in evidence.view.pauses:
        guest = guests.get(pause.incarnation)
        if guest is None or pause.incarnation in seen.done or guest.state() is None:
            continue
        if any(isinstance(each, PUNCHES) for each in evidence.events_of(pause.id)):
            seen.done.add(pause.incarnation)
            seen.finding.violated(pause.sandbox, _ALIVE, incarnation=pause.incarnation, pause=pause.id)


def _look_at(guest: SpawnedGuest, condemned_by: str | None, reality: Reality, end: float) -> None:
    if condemned_by is not None and not _goes_on_running(guest, end):
        return
    page = _first_lost_page(guest, reality)
    if not guest.is_running() or (condemned_by is None and page is None):
        return
    reason = _RUNS if condemned_by else _RUNS_FREED
    seen, incarnation = reality.seen[NAME], guest.born.incarnation
    seen.done.add(incarnation)
    seen.finding.violated(guest.sandbox, reason, incarnation=incarnation, pause=condemned_by, **(page or {}))


def _ask_the_witness(evidence: Evidence, reality: Reality) -> None:
    """The guest's own clock, which the engine has no hand in: it may not have gone on after the freeze."""
    if reality.heartbeats is None:
        return
    seen = reality.seen[NAME]
    for incarnation, pause, microseconds in ran_after_its_freeze(evidence.entries, reality.heartbeats):
        if incarnation not in seen.done and not _seen_to_run_and_not_punched(evidence, pause):
            seen.done.add(incarnation)
            words = f"its own clock went on by {microseconds} us after the freeze: a condemned guest has run"
            why = Reason("heartbeat", words)
            seen.finding.violated(sandbox_of(incarnation), why, incarnation=incarnation, pause=pause)


def _seen_to_run_and_not_punched(evidence: Evidence, pause: str) -> bool:
    """The last look before SIGKILL says that it ran, and nothing of it was freed: it was killed as it was, and its copy
    is discarded, or was whole before it ran."""
    happened = evidence.events_of(pause)
    ran = any(isinstance(each, engine_events.GuestLooked) and each.before == "kill" and each.code for each in happened)
    return ran and not any(isinstance(each, PUNCHES) for each in happened)


def _goes_on_running(guest: SpawnedGuest, end: float) -> bool:
    """A busy machine may take long to end a process that was killed: that one runs nothing more."""
    while guest.is_running() and not guest.is_dying():
        if time.monotonic() > end:
            return True
        time.sleep(0.005)
    return False


def _first_lost_page(guest: SpawnedGuest, reality: Reality) -> dict[str, Any] | None:
    """The first page that the guest wrote and that the kernel holds no more."""
    try:
        pages, fd = guest.generations(), guest.open_memory()
    except OSError as error:  # or it died meanwhile
        reality.seen[NAME].refused_by_host(guest.sandbox, error, incarnation=guest.born.incarnation)
        return None
    try:
        for page in zeroed_pages(pages, fd).tolist():
            expected = content(key_of(reality.seed, guest.sandbox), page, pages[page])
            found = os.pread(fd, PAGE, page * PAGE)
            return {"page": page, "expected": describe(expected), "found": describe(found)}
    finally:
        os.close(fd)
    return None


class _Lost(NamedTuple):
    """An incarnation that may never run again, from this place in the ledger on."""

    sandbox: str
    incarnation: str
    pause: str
    at: int
    punched: bool


def judge(evidence: Evidence) -> Finding:
    """Walk on from each point of no return. Exercised by those that were punched."""
    finding = evidence.seen(NAME)
    everything = _lost(evidence, finding)
    for pause in evidence.view.pauses:
        judge_end(evidence, pause, finding)
    finding.checked = len({each.incarnation for each in everything if each.punched})
    for lost in everything:
        if finding.blames(incarnation=lost.incarnation):
            continue
        again = _ran_again(evidence, lost)
        if again is not None:
            finding.violated(lost.sandbox, again, incarnation=lost.incarnation, pause=lost.pause)
        elif evidence.reality is None and lost.incarnation not in evidence.ended:
            reason = f"missing evidence: no `guest_ended` event for {lost.incarnation}, which was condemned or punched"
            finding.lacks(lost.sandbox, reason, incarnation=lost.incarnation, pause=lost.pause)
    return finding


def _lost(evidence: Evidence, finding: Finding) -> list[_Lost]:
    found = []
    for pause in evidence.view.pauses:
        told = evidence.of_pause(pause.id)
        condemned = [each.at for each in told if isinstance(each.entry.event, engine_events.Condemned)]
        punched = [each.at for each in told if isinstance(each.entry.event, PUNCHES)]
        settled = [each.at for each in told if _settled_condemned(each.entry.event)]
        places = condemned[:1] + punched[:1] + settled[:1]
        if not places:
            continue
        incarnation = evidence.incarnation_of(pause)
        if incarnation is None:
            reason = f"missing evidence: no `guest_frozen` or `guest_spawned` event says which guest {pause.id} froze"
            finding.lacks(pause.sandbox, reason, pause=pause.id)
            continue
        if condemned and punched and punched[0] < condemned[0]:
            why = "it was punched before it was condemned: a crash in between would have let it run again"
            finding.violated(pause.sandbox, Reason("punched-first", why), incarnation=incarnation, pause=pause.id)
        freed = pause.punched_bytes > 0 or bool(punched)
        found.append(_Lost(pause.sandbox, incarnation, pause.id, min(places), freed))
    return found


def _settled_condemned(event: object) -> bool:
    return isinstance(event, events.PauseSettled) and (event.condemned or event.punched_bytes > 0)


def _ran_again(evidence: Evidence, lost: _Lost) -> Reason | None:
    """The first event of it that only a running guest can bring about."""
    now = lost.incarnation
    for _, entry in evidence.of_sandbox(lost.sandbox, lost.at):
        match entry.event:
            case events.GuestThawed(incarnation) if incarnation == lost.incarnation:
                return Reason("thawed", "a condemned guest was thawed")
            case events.GuestSpawned(incarnation) if incarnation == lost.incarnation:
                return Reason("started", "a condemned incarnation was started again")
            case events.Resumed(incarnation) if incarnation == lost.incarnation:
                return Reason("resumed", "a condemned incarnation was resumed")
            case events.GuestFrozen(incarnation) if incarnation == lost.incarnation and entry.pause != lost.pause:
                return Reason("paused", "a condemned guest was paused once more, so it had run on")
            case events.GuestSpawned(incarnation):
                now = incarnation
            case events.StateChanged(_, "running") if now == lost.incarnation:
                return Reason("runs", "the sandbox runs again without a new incarnation")
            case _:
                pass
    return None
