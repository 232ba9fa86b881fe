"""What a pause is asked for, and what is worked out of it before anything is copied."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine import mapping as maps
from engine import plan as plans
from engine.dedup import PAGE, ParentReader
from engine.dirty import DirtySet, Tracker
from engine.effects import Effects, Memory
from engine.errors import EngineError
from engine.events import Compared, Emit, Planned, Scanned
from engine.incarnation import CondemnedRecords, GuestProcess
from engine.memfd import Memfd
from engine.plan import MemoryFacts, PauseOptions, PausePlan
from engine.ranges import chunks, in_smaller_blocks
from engine.resume import open_chain
from engine.snapshot import Header, check_build


@dataclass(frozen=True, slots=True)
class PauseRequest:
    """A frozen guest and where its memory goes.

    A pause owns the memory unless it rolls back; a checkpoint borrows it, and the same guest goes on.
    """

    guest: GuestProcess
    memory: Memory
    tracker: Tracker
    block_size: int
    parent: Header
    build: str
    builds: Path
    condemned: CondemnedRecords
    options: PauseOptions
    attachments: Mapping[str, bytes] = field(default_factory=dict)
    checkpoint: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """What one pause has to do: `stored` are the blocks that its header will tell of, `block_size` their size."""

    plan: PausePlan
    stored: DirtySet
    block_size: int


def work_out(request: PauseRequest, effects: Effects, emit: Emit) -> Work:
    """Look at the guest, scan, compare where that is asked for, and plan; nothing is changed by it."""
    if (size := request.parent.mapping.size) != request.memory.size:
        raise EngineError(f"the parent holds {size} bytes, the memfd has {request.memory.size}")
    effects.look(request.guest, "scan")
    dirty = effects.scan(request.tracker, request.guest, request.memory, request.block_size)
    facts = _facts(request, request.block_size)
    _tell_of_scan(request, dirty, emit)
    if request.options.dedup.enabled and plans.path_of(request.options, facts) is plans.Path.DEDUP:
        dirty = _without_equal_pages(request, effects, dirty, facts, emit)
        facts = _facts(request, PAGE)
    plan = plans.plan(request.options, facts, dirty.dirty)
    work = len(plan.chunks), plan.dirty_bytes, list(plan.notes)
    emit(Planned(plan.path.value, plan.punch, plan.punch_reason, *work, plan.punch_code.value))
    return Work(plan, dirty, facts.block_size)


def _facts(request: PauseRequest, block_size: int) -> MemoryFacts:
    return MemoryFacts(
        size=request.memory.size,
        page_size=request.memory.page_size,
        block_size=block_size,
        seals=request.memory.refresh_seals(),
        consumed=not request.checkpoint,
        parent_finished=True,  # or `check_parents` ends the pause
        memfd=isinstance(request.memory, Memfd),
    )


def _tell_of_scan(request: PauseRequest, dirty: DirtySet, emit: Emit) -> None:
    block = request.block_size
    resident = request.memory.resident_bytes()
    emit(Scanned(dirty.tracker, len(dirty.dirty) * block, len(dirty.empty) * block, resident, dirty.scan_ms))


def _without_equal_pages(
    request: PauseRequest, effects: Effects, dirty: DirtySet, facts: MemoryFacts, emit: Emit
) -> DirtySet:
    """The dirty set in pages, without those that are zero or as in the parent; the guest may still run on."""
    begun = time.perf_counter()
    spans = chunks(dirty.dirty, facts.size, facts.block_size, facts.page_size)
    with open_chain(request.builds, request.parent) as chain:
        parent = ParentReader(request.parent.mapping, chain)
        found = effects.compare(spans, facts.block_size, request.memory.read_span, parent.read_span)
    stored, zero, equal = (len(kind) * PAGE for kind in (found.stored, found.zero, found.equal))
    emit(Compared(stored, zero, equal, (time.perf_counter() - begun) * 1e3))
    empty = in_smaller_blocks(dirty.empty - dirty.dirty, facts.block_size // PAGE) | found.zero
    return DirtySet(found.stored, empty, dirty.tracker, dirty.scan_ms)


def check_parents(request: PauseRequest) -> None:
    """What is clean is about to be given up: each build that holds some of it must be there, finished and whole.

    `check_build` says what of that is not looked at here. Raises CorruptBuildError.
    """
    for build, length in maps.stored_lengths(request.parent.mapping).items():
        check_build(request.builds, build, length)


def unfinished_header(request: PauseRequest, work: Work) -> Header:
    """The header that this work will have, without digests; its neighbours are joined at the end."""
    empty = work.stored.empty - work.stored.dirty  # dirty blocks are stored, all of them: the plan packs them so
    change = maps.diff(work.stored.dirty, empty, request.build, work.block_size)
    mapping = maps.merge(request.parent.mapping, change)
    base = request.parent.base_build or request.build
    return Header(request.build, base, request.parent.generation + 1, mapping, (), ())
