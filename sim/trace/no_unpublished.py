"""`no_unpublished`: no chunk is told to be freed before it is told to be published."""

from __future__ import annotations

from collections.abc import Iterable

from engine import events as engine_events
from sim.ledger import Entry
from sim.trace.evidence import PUNCHES, Finding, Trace


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
