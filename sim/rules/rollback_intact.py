"""An uncondemned failure leaves memory byte-identical and the guest running, and its next pause is complete."""

from __future__ import annotations

import os
import time

from engine import events as engine_events
from sim.record import events
from sim.record.view import PauseView
from sim.rules import bytes_exact
from sim.rules.evidence import Evidence
from sim.rules.finding import Finding, Reason
from sim.rules.reality import Reality, SpawnedGuest, page_details

NAME = "rollback_intact"
_DYING = 0.5  # seconds in which a death that was just seen is recorded


def observe(evidence: Evidence, reality: Reality) -> None:
    """Look into the guest after each roll-back, once, unless its sandbox is in another state by now."""
    seen = reality.seen[NAME]
    for pause in evidence.view.pauses:
        if reality.torn_down or pause.outcome != "rolled-back" or pause.id in seen.done:
            continue
        seen.done.add(pause.id)
        guest = reality.guest(evidence.spawned(pause.incarnation))
        if guest is not None and evidence.view.sandboxes[pause.sandbox].state == "running":
            _check_guest(reality, pause, guest)


def _check_guest(reality: Reality, pause: PauseView, guest: SpawnedGuest) -> None:
    finding = reality.seen[NAME].finding
    details = {"incarnation": pause.incarnation, "pause": pause.id}
    if guest.state() is None and _is_recorded_as_dead(reality, pause.incarnation):
        return  # by no act of this run: deaths_explained names it
    if not guest.is_running():
        words = f"the pause was rolled back, and the guest does not run (state {guest.state()})"
        finding.violated(pause.sandbox, Reason("not-running", words), **details)
        return
    try:
        pages, fd = guest.generations(), guest.open_memory()
    except OSError as error:  # or it died meanwhile
        reality.seen[NAME].refused_by_host(pause.sandbox, error, **details)
        return
    for mismatch in reality.mismatches(pause.sandbox, pages, fd):
        reason = Reason("bytes", "the pause was rolled back, and memory is not what it was")
        finding.violated(pause.sandbox, reason, **page_details(mismatch), **details)
        break
    os.close(fd)


def _is_recorded_as_dead(reality: Reality, incarnation: str) -> bool:
    """Its node records a death that it did not bring about a moment after it."""
    end = time.monotonic() + _DYING
    while True:
        died = (each.event for each in reality.entries_by_now() if isinstance(each.event, events.ProcessDied))
        if any(each.incarnation == incarnation for each in died):
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.01)


def judge(evidence: Evidence) -> Finding:
    """States, thaw and the next scan, and what bytes_exact saw of the next snapshot. A ledger does not hold the bytes:
    without reality, and without a violation, it is inconclusive."""
    finding = evidence.seen(NAME)
    for pause in evidence.view.pauses:
        if pause.outcome != "rolled-back" or not evidence.of_pause(pause.id):
            continue
        finding.checked += 1
        reason = _not_running(evidence, pause) or _forgotten(evidence, pause)
        if reason is not None and not finding.blames(pause=pause.id):
            finding.violated(pause.sandbox, reason, incarnation=evidence.incarnation_of(pause), pause=pause.id)
        for lacking in _missing(evidence, pause):
            finding.lacks(pause.sandbox, lacking, pause=pause.id)
    _judge_next_pauses(evidence, finding)
    if evidence.reality is None and finding.checked:
        finding.lacks("*", "a ledger holds no bytes: only the run could compare memory with what it was")
    return finding


def _judge_next_pauses(evidence: Evidence, finding: Finding) -> None:
    """A roll-back that forgets dirty blocks shows in the next snapshot of the same incarnation."""
    rolled_back = {each.incarnation for each in evidence.view.pauses if each.outcome == "rolled-back"}
    took = {each.id: each.incarnation for each in evidence.view.pauses if each.incarnation in rolled_back}
    for lost in evidence.seen(bytes_exact.NAME).violations:
        pause = lost.get("pause")
        if pause in took and "incarnation" not in lost and not finding.blames(pause=pause):
            reason = "the pause after a roll-back is not complete"
            finding.violations.append({**lost, "code": "forgotten", "reason": reason, "incarnation": took[pause]})


def _not_running(evidence: Evidence, pause: PauseView) -> Reason | None:
    if pause.condemned:
        return Reason("condemned", "it was condemned, and recorded as rolled back")
    after = _states_after(evidence, pause)
    if after and after[0].new not in {"running", "killed"}:  # killed: its guest had died, or a request killed it
        return Reason("not-running", f"the pause was rolled back, and the sandbox became {after[0].new}")
    if not after and evidence.complete and not evidence.node_is_down:
        return Reason("not-running", "the pause was rolled back, and the sandbox never ran on")
    return None


def _missing(evidence: Evidence, pause: PauseView) -> list[str]:
    after = _states_after(evidence, pause)
    if not after:
        return ["missing evidence: no `state_changed` event follows the roll-back"]
    incarnation = evidence.incarnation_of(pause)
    began = evidence.of_pause(pause.id)[0].at
    thawed = any(
        isinstance(each.entry.event, events.GuestThawed) and each.entry.event.incarnation == incarnation
        for each in evidence.of_sandbox(pause.sandbox, began)
    )
    if after[0].new == "running" and incarnation is not None and not thawed:
        return [f"missing evidence: no `guest_thawed` event for {incarnation}"]
    return []


def _states_after(evidence: Evidence, pause: PauseView) -> list[events.StateChanged]:
    settled = evidence.settled_at(pause.id)
    return [] if settled is None else evidence.states_of(pause.sandbox, settled)


def _forgotten(evidence: Evidence, pause: PauseView) -> Reason | None:
    """What was dirty at the roll-back is dirty at the same guest's next scan: nothing was exported in between."""
    scan = _scan(evidence, pause)
    settled = evidence.settled_at(pause.id)
    incarnation = evidence.incarnation_of(pause)
    later = (
        each
        for each in evidence.view.pauses
        if each.sandbox == pause.sandbox
        and evidence.of_pause(each.id)
        and settled is not None
        and evidence.of_pause(each.id)[0].at > settled
        and evidence.incarnation_of(each) == incarnation
    )
    rescan = next((found for each in later if (found := _scan(evidence, each)) is not None), None)
    if scan is None or rescan is None or scan.tracker != rescan.tracker:
        return None
    before, now = scan.dirty_bytes + scan.empty_bytes, rescan.dirty_bytes + rescan.empty_bytes
    if now >= before:
        return None
    words = f"{before} bytes were dirty at the roll-back, and {now} at the next scan of the same guest"
    return Reason("forgotten", words)


def _scan(evidence: Evidence, pause: PauseView) -> engine_events.Scanned | None:
    return next((each for each in evidence.events_of(pause.id) if isinstance(each, engine_events.Scanned)), None)
