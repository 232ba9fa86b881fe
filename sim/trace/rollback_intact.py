"""`rollback_intact`: after an uncondemned failure the same guest is told to run on, and its next dirty set is whole."""

from __future__ import annotations

from engine import events as engine_events
from sim import events
from sim.trace.evidence import Finding, Trace
from sim.view import PauseView


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
