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
    at_freeze, allowed = 0, 0
    for entry in evidence.of_pause(pause.id):
        match entry.event:
            case engine_events.Scanned(resident_bytes=resident):
                at_freeze = resident
            case engine_events.CleanPagesPunched(freed=freed):
                allowed += freed
            case engine_events.ChunkPublished() as published:
                freed = at_freeze - published.source_resident
                if freed > allowed:
                    return (
                        f"{freed - allowed} bytes were freed from the guest before they were published "
                        f"(seen at chunk {published.chunk})"
                    )
                allowed += published.page_bytes
            case _:
                pass
    return None
