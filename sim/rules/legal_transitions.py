"""Every step of a sandbox's life is an edge of the lifecycle, and begins where the last one ended."""

from __future__ import annotations

from sim.files.lifecycle import LEGAL, State
from sim.record import events
from sim.rules.evidence import Evidence
from sim.rules.finding import Finding, Reason

NAME = "legal_transitions"
_EDGES = {(old.value, new.value) for old, after in LEGAL.items() for new in after}


def judge(evidence: Evidence) -> Finding:
    """A sandbox whose creation is not in the ledger may begin anywhere: its first states are not in it either."""
    finding = Finding()
    now: dict[str, str] = {}
    for entry in evidence.entries:
        if entry.sandbox is None:
            continue
        match entry.event:
            case events.SandboxCreated():
                now[entry.sandbox] = State.CREATED.value
            case events.StateChanged(old, new):
                finding.checked += 1
                before = now.get(entry.sandbox, old)
                now[entry.sandbox] = new
                if old != before:
                    finding.violated(entry.sandbox, Reason("gap", f"it was {before} and left {old}"))
                if (old, new) not in _EDGES:
                    finding.violated(entry.sandbox, Reason(f"{old}-to-{new}", f"it went from {old} to {new}"))
            case _:
                pass
    return finding
