"""Every step of a sandbox's life is an edge of the lifecycle, and begins where the last one ended.

And a sandbox is paused by the pause that it was sent into: not by a build of an older one.
"""

from __future__ import annotations

from engine import events as engine_events
from engine.events import Event
from sim.files.lifecycle import LEGAL, State
from sim.record import events
from sim.rules.evidence import Evidence
from sim.rules.finding import Finding, Reason

NAME = "legal_transitions"
_EDGES = {(old.value, new.value) for old, after in LEGAL.items() for new in after}
_SENT = {State.PAUSING.value, State.CHECKPOINTING.value}


def judge(evidence: Evidence) -> Finding:
    """A sandbox whose creation is not in the ledger may begin anywhere: its first states are not in it either."""
    finding = Finding()
    now: dict[str, str] = {}
    sent: dict[str, int] = {}
    for at, entry in enumerate(evidence.entries):
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
                elif new == State.PAUSED and old in _SENT and entry.sandbox in sent:
                    _judge_paused(finding, evidence, entry.sandbox, old, sent[entry.sandbox])
                if new in _SENT:
                    sent[entry.sandbox] = at
            case _:
                pass
    return finding


def _judge_paused(finding: Finding, evidence: Evidence, sandbox: str, old: str, sent: int) -> None:
    """Paused it is where a pause that began since then finished, was answered, or left its build stranded."""
    since = evidence.of_sandbox(sandbox, sent)
    for told in since:
        pause = told.entry.pause
        if pause is not None and evidence.of_pause(pause)[0].at > sent and _keeps_memory(told.entry.event):
            return
    words = f"it went from {old} to paused, and no pause that began meanwhile was finished or answered"
    if evidence.of_kind(events.LinesLost):
        finding.lacks(sandbox, f"lines of the ledger were lost: {words}")
    else:
        finding.violated(sandbox, Reason("older-build", words))


def _keeps_memory(event: Event) -> bool:
    match event:
        case events.PauseSettled(outcome="finished") | events.PauseReturned(condemned=True):
            return True
        case engine_events.BuildFinished() | engine_events.Stranded():
            return True
    return False
