"""The rule, for both."""

from __future__ import annotations

import os
from typing import Any

from engine import events as engine_events
from sim.record import events
from sim.record.view import PauseView
from sim.rules.bytes_exact import BytesExact
from sim.rules.evidence import Finding, Trace
from sim.rules.reality import Evidence, SpawnedGuest, page_violation, violation


class RollbackIntact:
    """Looks into the guest after each roll-back, and at the next snapshot of the same incarnation."""

    name = "rollback_intact"

    def __init__(self, bytes_exact: BytesExact) -> None:
        self.checked = 0
        self.violations: list[dict[str, Any]] = []
        self._bytes_exact = bytes_exact
        self._done: set[str] = set()

    def observe(self, evidence: Evidence) -> None:
        guests = {each.born.incarnation: each for each in evidence.guests()}
        for pause in evidence.view.pauses:
            if pause.outcome != "rolled-back" or pause.id in self._done or pause.settled_at is None:
                continue
            self._done.add(pause.id)
            self.checked += 1
            if pause.incarnation in guests and evidence.view.sandboxes[pause.sandbox].state == "running":
                self._check_guest(evidence, pause, guests[pause.incarnation])
        self._check_next_pauses(evidence)

    def conclude(self, evidence: Evidence) -> None:
        """Everything was judged at its barrier."""

    def _check_guest(self, evidence: Evidence, pause: PauseView, guest: SpawnedGuest) -> None:
        if not guest.is_running():
            reason = f"the pause was rolled back, and the guest does not run (state {guest.state()})"
            self.violations.append(violation(pause.sandbox, reason, incarnation=pause.incarnation, pause=pause.id))
            return
        try:
            pages, fd = guest.generations(), guest.open_memory()
        except OSError:  # it died meanwhile
            return
        for mismatch in evidence.mismatches(pause.sandbox, pages, fd):
            reason = "the pause was rolled back, and memory is not what it was"
            found = page_violation(pause.sandbox, reason, mismatch, incarnation=pause.incarnation, pause=pause.id)
            self.violations.append(found)
            break
        os.close(fd)

    def _check_next_pauses(self, evidence: Evidence) -> None:
        """A roll-back that forgets dirty blocks shows in the next snapshot of the same incarnation."""
        rolled_back = {each.incarnation for each in evidence.view.pauses if each.outcome == "rolled-back"}
        for pause in evidence.view.pauses:
            if pause.id in self._bytes_exact.failed_pauses and pause.incarnation in rolled_back:
                self._bytes_exact.failed_pauses.discard(pause.id)
                lost = next(v for v in self._bytes_exact.violations if v.get("pause") == pause.id)
                reason = "the pause after a roll-back is not complete"
                self.violations.append({**lost, "reason": reason, "incarnation": pause.incarnation})


def judge(trace: Trace) -> Finding:
    """States, thaw and the next scan; a ledger does not hold the bytes, so without violation it is inconclusive."""
    finding = Finding()
    for pause in trace.view.pauses:
        if pause.outcome != "rolled-back" or not trace.of_pause(pause.id):
            continue
        finding.checked += 1
        reason = _not_running(trace, pause) or _forgotten(trace, pause)
        if reason is not None:
            finding.violated(pause.sandbox, reason, incarnation=trace.incarnation_of(pause), pause=pause.id)
        for lacking in _not_told(trace, pause):
            finding.lacks(pause.sandbox, lacking, pause=pause.id)
    if finding.checked:
        finding.lacks("*", "a ledger holds no bytes: only the run could compare memory with what it was")
    return finding


def _not_running(trace: Trace, pause: PauseView) -> str | None:
    if pause.condemned:
        return "it was condemned and told as rolled back"
    after = _states_after(trace, pause)
    if after and after[0].new not in {"running", "killed"}:  # killed: its guest had died, or somebody wanted it so
        return f"the pause was rolled back, and the sandbox became {after[0].new}"
    if not after and trace.complete and not trace.node_is_down:
        return "the pause was rolled back, and the sandbox is never told to run on"
    return None


def _not_told(trace: Trace, pause: PauseView) -> list[str]:
    after = _states_after(trace, pause)
    if not after:
        return ["no state_changed follows the roll-back"]
    incarnation = trace.incarnation_of(pause)
    began = trace.of_pause(pause.id)[0].at
    thawed = any(
        each.entry.event == events.GuestThawed(incarnation or "") for each in trace.of_sandbox(pause.sandbox, began)
    )
    if after[0].new == "running" and incarnation is not None and not thawed:
        return [f"no guest_thawed tells that {incarnation} runs on"]
    return []


def _states_after(trace: Trace, pause: PauseView) -> list[events.StateChanged]:
    settled = trace.settled_at(pause.id)
    return [] if settled is None else trace.states_of(pause.sandbox, settled)


def _forgotten(trace: Trace, pause: PauseView) -> str | None:
    """What was dirty at the roll-back is dirty at the same guest's next scan: nothing was exported in between."""
    scan = _scan(trace, pause)
    settled = trace.settled_at(pause.id)
    incarnation = trace.incarnation_of(pause)
    later = (
        each
        for each in trace.view.pauses
        if each.sandbox == pause.sandbox
        and trace.of_pause(each.id)
        and settled is not None
        and trace.of_pause(each.id)[0].at > settled
        and trace.incarnation_of(each) == incarnation
    )
    rescan = next((found for each in later if (found := _scan(trace, each)) is not None), None)
    if scan is None or rescan is None or scan.tracker != rescan.tracker:
        return None
    before, now = scan.dirty_bytes + scan.empty_bytes, rescan.dirty_bytes + rescan.empty_bytes
    if now >= before:
        return None
    return f"{before} bytes were dirty at the roll-back, and {now} at the next scan of the same guest"


def _scan(trace: Trace, pause: PauseView) -> engine_events.Scanned | None:
    for told in trace.of_pause(pause.id):
        if isinstance(told.entry.event, engine_events.Scanned):
            return told.entry.event
    return None
