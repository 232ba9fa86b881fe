"""`no_unpublished`: nothing is freed from a memfd before the cache's readers may have it."""

from __future__ import annotations

from typing import Any

from engine import events as engine_events
from sim.checkers.evidence import Evidence, violation
from sim.view import PauseView


class NoUnpublished:
    """At each chunk's publishing, what st_blocks says is gone must be clean pages or chunks published before."""

    name = "no_unpublished"

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[dict[str, Any]] = []
        self._done: set[str] = set()

    def observe(self, evidence: Evidence) -> None:
        for pause in evidence.view.pauses:
            if pause.settled_at is None or pause.id in self._done or not pause.published:
                continue
            self._done.add(pause.id)
            self.checked += 1
            reason = _freed_too_early(evidence, pause)
            if reason is not None:
                found = violation(pause.sandbox, reason, incarnation=pause.incarnation, pause=pause.id)
                self.violations.append(found)

    def conclude(self, evidence: Evidence) -> None:
        """Everything was judged when it settled."""


def _freed_too_early(evidence: Evidence, pause: PauseView) -> str | None:
    """Gone may be what was told to be gone, and the spans of chunks that are published and about to be punched."""
    at_freeze, told, open_spans = 0, 0, dict[int, int]()
    for entry in evidence.of_pause(pause.id):
        match entry.event:
            case engine_events.Scanned(resident_bytes=resident):
                at_freeze = resident or 0
            case engine_events.CleanPagesPunched(freed=freed):
                told = max(told, freed)
            case engine_events.ChunkPunched(chunk=chunk, freed=freed):
                told = max(told, freed)
                open_spans.pop(chunk, None)
            case engine_events.ChunkPublished() as published:
                resident = published.source_resident
                early = 0 if resident is None else at_freeze - resident - told - sum(open_spans.values())
                if early > 0:
                    return (
                        f"{early} bytes were freed from the guest before they were published "
                        f"(seen at chunk {published.chunk})"
                    )
                open_spans[published.chunk] = published.span
            case _:
                pass
    return None
