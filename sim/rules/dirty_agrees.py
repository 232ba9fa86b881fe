"""Of a virtual machine, the tracker and KVM's dirty log name the same blocks at every pause."""

from __future__ import annotations

from engine import events as engine_events
from sim.rules.evidence import Evidence
from sim.rules.finding import Finding, Reason

NAME = "dirty_agrees"
_TRACKER = "write-protect-scan"


def judge(evidence: Evidence) -> Finding:
    """Every comparison; a scan of a machine without one lacks evidence."""
    finding = evidence.seen(NAME)
    machines = {each.incarnation for each in evidence.guests if each.guest == "vm"}
    finding.applies = bool(machines)
    for pause in evidence.view.pauses:
        if (incarnation := evidence.incarnation_of(pause)) not in machines:
            continue
        told = evidence.events_of(pause.id)
        comparisons = [each for each in told if isinstance(each, engine_events.DirtyCompared)]
        scanned = any(isinstance(each, engine_events.Scanned) and each.tracker == _TRACKER for each in told)
        if scanned and not comparisons:
            reason = f"missing evidence: no `dirty_compared` event for {pause.id}, whose guest is a virtual machine"
            finding.lacks(pause.sandbox, reason, incarnation=incarnation, pause=pause.id)
        for compared in comparisons:
            finding.checked += 1
            if (why := _differs(compared)) is not None:
                finding.violated(pause.sandbox, why, incarnation=incarnation, pause=pause.id)
    return finding


def _differs(compared: engine_events.DirtyCompared) -> Reason | None:
    if compared.missed:
        lost = f"{compared.missed} of {compared.logged} blocks that the virtual machine wrote"
        return Reason("missed", f"{lost} are not in the dirty set, block {compared.first_missed} first")
    if compared.unlogged:
        more = f"{compared.unlogged} of {compared.tracked} blocks in the dirty set"
        words = f"{more} were not written by the virtual machine, block {compared.first_unlogged} first"
        return Reason("unlogged", f"{words}: the host side wrote them, or the tracker is wrong")
    return None
