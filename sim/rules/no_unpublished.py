"""No reader ever sees an unpublished byte.

What st_blocks says is gone at a chunk's publishing is clean, or was published before; and no build has its final name
before it is whole.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine import events as engine_events
from engine.errors import EngineError
from engine.events import Event
from sim.record.names import sandbox_of
from sim.rules.evidence import PUNCHES, Evidence, damaged_builds
from sim.rules.finding import Finding, Reason
from sim.rules.reality import Reality

NAME = "no_unpublished"


def observe(evidence: Evidence, reality: Reality) -> None:
    """A build that has its final name is there to be read: all of it. Each is looked at once."""
    seen = reality.seen[NAME]
    new = set() if reality.torn_down else reality.named_builds() - seen.done
    for name in new - evidence.damaged:
        try:
            reality.open_build(name).close()
        except (EngineError, OSError) as error:
            if seen.refused_by_host(sandbox_of(name), error, pause=name):
                continue
            # A recovering node deletes what the ledger never said to be finished.
            if (reality.builds / name).exists() and name not in damaged_builds(reality.entries_by_now()):
                why = Reason("unfinished-build", f"a reader finds an unfinished build: {error}")
                seen.finding.violated(sandbox_of(name), why, pause=name)
    seen.done |= new


def judge(evidence: Evidence) -> Finding:
    """The order of publishing and punching of each pause, and what was resident at each chunk."""
    finding = evidence.seen(NAME)
    for pause in evidence.view.pauses:
        happened = evidence.events_of(pause.id)
        punched = any(isinstance(each, PUNCHES) for each in happened)
        if not pause.published and not punched:
            continue
        finding.checked += 1
        if punched and _copies(happened) and not evidence.of_kind(engine_events.ChunkPublished):
            reason = "missing evidence: it punched, and no `chunk_published` event says what was published"
            finding.lacks(pause.sandbox, reason, pause=pause.id)
            continue
        too_early = punched_too_early(happened) or freed_too_early(happened)
        if too_early is not None:
            finding.violated(pause.sandbox, too_early, incarnation=evidence.incarnation_of(pause), pause=pause.id)
    return finding


def _copies(happened: Iterable[Event]) -> bool:
    """False where the plan has no chunk: clean pages are all that such a pause may punch."""
    planned = [each for each in happened if isinstance(each, engine_events.Planned)]
    return not planned or any(each.chunks for each in planned)


def punched_too_early(happened: Iterable[Event]) -> Reason | None:
    """The first chunk of a pause that was punched before it was published."""
    published: set[int] = set()
    for event in happened:
        match event:
            case engine_events.ChunkPublished(chunk=chunk):
                published.add(chunk)
            case engine_events.ChunkPunched(chunk=chunk) if chunk not in published:
                return Reason("punched-early", f"chunk {chunk} was punched before it was published")
            case _:
                pass
    return None


def freed_too_early(happened: Iterable[Event]) -> Reason | None:
    """Gone may be what punches have freed, and the spans of chunks that are published and about to be punched."""
    at_freeze: int | None = None
    freed_so_far, open_spans = 0, dict[int, int]()
    for event in happened:
        match event:
            case engine_events.Scanned(resident_bytes=resident):
                at_freeze = resident
            case engine_events.CleanPagesPunched(freed=freed):
                freed_so_far = max(freed_so_far, freed)
            case engine_events.ChunkPunched(chunk=chunk, freed=freed):
                freed_so_far = max(freed_so_far, freed)
                open_spans.pop(chunk, None)
            case engine_events.ChunkPublished() as published:
                resident = published.source_resident
                known = at_freeze is not None and resident is not None
                gone = (at_freeze or 0) - (resident or 0) if known else 0
                early = gone - freed_so_far - sum(open_spans.values())
                if early > 0:
                    return Reason(
                        "freed-early",
                        f"{early} bytes were freed from the guest before they were published "
                        f"(seen at chunk {published.chunk})",
                    )
                open_spans[published.chunk] = published.span
            case _:
                pass
    return None
