"""The rule, for both."""

from __future__ import annotations

from typing import Any

from engine import events as engine_events
from sim.record.view import PauseView
from sim.rules.evidence import Finding, Trace
from sim.rules.reality import Evidence, violation


class PeakBounded:
    """Judges what the kernel said during each pause (st_blocks and cachestat, sampled by the copier)."""

    name = "peak_bounded"

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[dict[str, Any]] = []
        self._done: set[str] = set()

    def observe(self, evidence: Evidence) -> None:
        for pause in evidence.view.pauses:
            if pause.settled_at is None or pause.id in self._done or pause.peak_over is None:
                continue
            self._done.add(pause.id)
            self.checked += 1
            reason = exceeded(pause, pause.peak_over)
            if reason is not None:
                found = violation(pause.sandbox, reason, incarnation=pause.incarnation, pause=pause.id)
                self.violations.append(found)

    def conclude(self, evidence: Evidence) -> None:
        """Everything was judged when it settled."""


MARGIN = 8 << 20


def bound(pause: PauseView) -> int:
    """Bytes. Where punching could not go on, the bytes are safe and the peak is that of not punching."""
    punching = pause.punch and pause.punch_error is None and pause.condemn_error is None
    return MARGIN if punching else (pause.dirty_bytes or 0) + MARGIN


def exceeded(pause: PauseView, peak_over: int) -> str | None:
    """What does not hold, in words; None where the peak is within the bound."""
    if peak_over <= (most := bound(pause)):
        return None
    return f"the pause took {peak_over} bytes beyond its guest, more than {most}"


def judge(trace: Trace) -> Finding:
    """By the pause's own peak; where none is told, by what was resident at each chunk, which may be less."""
    finding = Finding()
    for pause in trace.view.pauses:
        seen = _seen(trace, pause) if pause.peak_over is None else pause.peak_over
        if seen is None:
            if _is_owed(trace, pause):
                finding.lacks(pause.sandbox, f"no peak is told of {pause.id}", pause=pause.id)
            continue
        finding.checked += 1
        reason = exceeded(pause, seen)
        if reason is not None:
            finding.violated(pause.sandbox, reason, incarnation=trace.incarnation_of(pause), pause=pause.id)
        elif pause.peak_over is None and _is_owed(trace, pause):
            finding.lacks(pause.sandbox, f"the peak of {pause.id} is told by its chunks only", pause=pause.id)
    return finding


def _is_owed(trace: Trace, pause: PauseView) -> bool:
    """A pause that copied a memfd has a peak; one that was refused, failed before its plan or was cut off by the
    node's death has none."""
    if trace.crashed_within(pause.id):
        return False
    planned = any(isinstance(told.entry.event, engine_events.Planned) for told in trace.of_pause(pause.id))
    return pause.path not in {None, "process"} and (pause.settled_at is None or planned or pause.outcome == "finished")


def _seen(trace: Trace, pause: PauseView) -> int | None:
    """The largest sum at a chunk's publishing, beyond what was resident at the freeze; None where that is not told."""
    at_freeze: int | None = None
    most: int | None = None
    for told in trace.of_pause(pause.id):
        match told.entry.event:
            case engine_events.Scanned(resident_bytes=resident):
                at_freeze = resident
            case engine_events.ChunkPublished(source_resident=int(source), cache_resident=cache) if at_freeze:
                most = max(most or 0, source + cache - at_freeze)
            case _:
                pass
    return most
