"""The rule, for both."""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple

from engine import events as engine_events
from sim.record import events
from sim.record.oracle import PAGE, content, describe, key_of
from sim.rules.evidence import PUNCHES, Finding, Trace
from sim.rules.heartbeat import ran_after_its_freeze
from sim.rules.reality import Evidence, SpawnedGuest, violation, zeroed_pages

_DYING = 2.0  # seconds in which a process that was sent SIGKILL may still be seen


class NeverResumed:
    """Looks at every incarnation that runs: is it condemned, and are pages gone that it wrote?"""

    name = "never_resumed"

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[dict[str, Any]] = []
        self._reported: set[str] = set()

    def observe(self, evidence: Evidence) -> None:
        pauses = [each for each in evidence.view.pauses if each.incarnation]
        self.checked = len({each.incarnation for each in pauses if each.punched_bytes})
        condemned = {each.incarnation: each.id for each in pauses if each.condemned}
        end = time.monotonic() + _DYING
        for guest in evidence.guests():
            if guest.born.incarnation not in self._reported and guest.is_running():
                self._look_at(guest, condemned.get(guest.born.incarnation), evidence.seed, end)
        self._ask_the_witness(evidence)

    def conclude(self, evidence: Evidence) -> None:
        """No process is left after teardown; no_leaks looks for those that are. What they did last is written."""
        self._ask_the_witness(evidence)

    def _ask_the_witness(self, evidence: Evidence) -> None:
        if evidence.heartbeats is None:
            return
        for incarnation, pause, microseconds in ran_after_its_freeze(evidence.entries, evidence.heartbeats):
            if incarnation not in self._reported:
                self._reported.add(incarnation)
                reason = f"its own clock went on by {microseconds} us after the freeze: a condemned guest has run"
                sandbox = incarnation.rpartition(".")[0]
                self.violations.append(violation(sandbox, reason, incarnation=incarnation, pause=pause))

    def _look_at(self, guest: SpawnedGuest, condemned_by: str | None, seed: int, end: float) -> None:
        if condemned_by is not None and not _goes_on_running(guest, end):
            return
        page = _first_lost_page(guest, seed)
        if not guest.is_running() or (condemned_by is None and page is None):
            return
        reason = "a condemned guest runs again" if condemned_by else "a guest runs although its memory was freed"
        self._reported.add(guest.born.incarnation)
        self.violations.append(
            violation(guest.sandbox, reason, incarnation=guest.born.incarnation, pause=condemned_by, **(page or {}))
        )


def _goes_on_running(guest: SpawnedGuest, end: float) -> bool:
    while guest.is_running():
        if time.monotonic() > end:
            return True
        time.sleep(0.005)
    return False


def _first_lost_page(guest: SpawnedGuest, seed: int) -> dict[str, Any] | None:
    """The first page that the guest wrote and that the kernel holds no more."""
    try:
        pages, fd = guest.generations(), guest.open_memory()
    except OSError:  # it died meanwhile
        return None
    try:
        for page in zeroed_pages(pages, fd).tolist():
            expected = content(key_of(seed, guest.sandbox), page, pages[page])
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
