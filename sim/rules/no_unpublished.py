"""The rule, for both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine import events as engine_events
from engine.errors import EngineError
from sim.record.ledger import Entry
from sim.rules.evidence import PUNCHES, Finding, Trace
from sim.rules.reality import Evidence, violation


class NoUnpublished:
    """At each chunk's publishing, what st_blocks says is gone must be clean pages or chunks published before.

    And no build has its final name before it is whole.
    """

    name = "no_unpublished"

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[dict[str, Any]] = []
        self._done: set[str] = set()
        self._whole: set[str] = set()

    def observe(self, evidence: Evidence) -> None:
        self._look_for_unfinished(evidence)
        for pause in evidence.view.pauses:
            if pause.settled_at is None or pause.id in self._done or not pause.published:
                continue
            self._done.add(pause.id)
            self.checked += 1
            reason = freed_too_early(evidence.of_pause(pause.id))
            if reason is not None:
                found = violation(pause.sandbox, reason, incarnation=pause.incarnation, pause=pause.id)
                self.violations.append(found)

    def _look_for_unfinished(self, evidence: Evidence) -> None:
        """A build that has its final name is there to be read: all of it. Each is looked at once."""
        new = evidence.named_builds() - self._whole
        for name in new - evidence.damaged() if new else ():
            try:
                evidence.open_build(name).close()
            except EngineError as error:
                # A recovering node deletes what nobody was told of.
                if (evidence.builds / name).exists() and name not in evidence.damaged_by_now():
                    reason = f"a reader finds an unfinished build: {error}"
                    self.violations.append(violation(name.rpartition(".")[0], reason, pause=name))
        self._whole |= new

    def conclude(self, evidence: Evidence) -> None:
        """Everything was judged when it settled."""


def judge(trace: Trace) -> Finding:
    """The order of publishing and punching of each pause, and what was resident at each chunk."""
    finding = Finding()
    for pause in trace.view.pauses:
        entries = [told.entry for told in trace.of_pause(pause.id)]
        punched = any(isinstance(each.event, PUNCHES) for each in entries)
        if not pause.published and not punched:
            continue
        finding.checked += 1
        if punched and not trace.of_kind(engine_events.ChunkPublished):
            finding.lacks(pause.sandbox, "it punched, and no chunk_published tells what was published", pause=pause.id)
            continue
        reason = punched_too_early(entries) or freed_too_early(entries)
        if reason is not None:
            finding.violated(pause.sandbox, reason, incarnation=trace.incarnation_of(pause), pause=pause.id)
    return finding


def punched_too_early(entries: Iterable[Entry]) -> str | None:
    """The first chunk of a pause that was punched before its publishing was told."""
    published: set[int] = set()
    for entry in entries:
        match entry.event:
            case engine_events.ChunkPublished(chunk=chunk):
                published.add(chunk)
            case engine_events.ChunkPunched(chunk=chunk) if chunk not in published:
                return f"chunk {chunk} was punched before it was published"
            case _:
                pass
    return None


def freed_too_early(entries: Iterable[Entry]) -> str | None:
    """Gone may be what was told to be gone, and the spans of chunks that are published and about to be punched."""
    at_freeze: int | None = None
    told, open_spans = 0, dict[int, int]()
    for entry in entries:
        match entry.event:
            case engine_events.Scanned(resident_bytes=resident):
                at_freeze = resident
            case engine_events.CleanPagesPunched(freed=freed):
                told = max(told, freed)
            case engine_events.ChunkPunched(chunk=chunk, freed=freed):
                told = max(told, freed)
                open_spans.pop(chunk, None)
            case engine_events.ChunkPublished() as published:
                resident = published.source_resident
                known = at_freeze is not None and resident is not None
                early = (at_freeze or 0) - (resident or 0) - told - sum(open_spans.values()) if known else 0
                if early > 0:
                    return (
                        f"{early} bytes were freed from the guest before they were published "
                        f"(seen at chunk {published.chunk})"
                    )
                open_spans[published.chunk] = published.span
            case _:
                pass
    return None
