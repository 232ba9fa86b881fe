"""A pause takes at most 8 MiB beyond its guest where it punches, and its dirty bytes more where it does not.

By what the kernel said during the pause (st_blocks and cachestat, sampled by the copier).
"""

from __future__ import annotations

from engine import events as engine_events
from sim.record.view import PauseView
from sim.rules.evidence import Evidence
from sim.rules.finding import Finding, Reason

NAME = "peak_bounded"
MARGIN = 8 << 20


def judge(evidence: Evidence) -> Finding:
    """By the pause's own peak and by what was resident at each chunk, whichever is more."""
    finding = Finding()
    for pause in evidence.view.pauses:
        seen = max((each for each in (_seen(evidence, pause), pause.peak_over) if each is not None), default=None)
        if seen is None:
            if _is_owed(evidence, pause):
                finding.lacks(pause.sandbox, f"missing evidence: no peak of {pause.id}", pause=pause.id)
            continue
        finding.checked += 1
        if seen > (most := bound(evidence, pause)):
            reason = Reason("above", f"the pause took {seen} bytes beyond its guest, more than {most}")
            finding.violated(pause.sandbox, reason, incarnation=evidence.incarnation_of(pause), pause=pause.id)
        elif pause.peak_over is None and _is_owed(evidence, pause):
            lacking = f"missing evidence: the peak of {pause.id} is known at its chunks only"
            finding.lacks(pause.sandbox, lacking, pause=pause.id)
    return finding


def bound(evidence: Evidence, pause: PauseView) -> int:
    """Bytes. Where punching could not go on, the bytes are safe and the peak is that of not punching.

    A node that died says so by its events alone: the next one settles the pause without the error.
    """
    failures = (engine_events.PunchFailed, engine_events.CondemnFailed)
    failed = pause.punch_error is not None or pause.condemn_error is not None
    failed = failed or any(isinstance(each, failures) for each in evidence.events_of(pause.id))
    return MARGIN if pause.punch and not failed else (pause.dirty_bytes or 0) + MARGIN


def _is_owed(evidence: Evidence, pause: PauseView) -> bool:
    """A pause that copied a memfd has a peak; one that was refused, failed before its plan or was cut off by the
    node's death has none."""
    told = evidence.of_pause(pause.id)
    if evidence.crashed_within(pause.id) or (pause.settled_at is None and evidence.crashed_after(told[0].at)):
        return False
    planned = any(isinstance(each, engine_events.Planned) for each in evidence.events_of(pause.id))
    return pause.path not in {None, "process"} and (pause.settled_at is None or planned or pause.outcome == "finished")


def _seen(evidence: Evidence, pause: PauseView) -> int | None:
    """The largest sum at a chunk's publishing, beyond what was resident at the freeze; None where that is missing."""
    at_freeze: int | None = None
    most: int | None = None
    for event in evidence.events_of(pause.id):
        match event:
            case engine_events.Scanned(resident_bytes=resident):
                at_freeze = resident
            case engine_events.ChunkPublished(source_resident=int(source), cache_resident=cache) if at_freeze:
                most = max(most or 0, source + cache - at_freeze)
            case _:
                pass
    return most
