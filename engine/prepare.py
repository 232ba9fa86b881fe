"""What a pause is asked for, and what is worked out of it before anything is copied."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from engine import mapping as maps
from engine import plan as plans
from engine.dedup import ParentReader
from engine.dirty import RESIDENT, DirtySet, Tracker, freed_unseen, in_pages, resident, stored_pages
from engine.effects import Effects, Memory
from engine.errors import EngineError
from engine.events import CleanVerified, Compared, Emit, Planned, Scanned
from engine.incarnation import CondemnedRecords, GuestProcess
from engine.keeper import Keeper
from engine.memfd import Memfd
from engine.pages import PAGE
from engine.plan import MemoryFacts, PauseOptions
from engine.ranges import Blocks, from_indexes, in_smaller_blocks
from engine.resume import open_chain
from engine.snapshot import Header, check_build
from engine.work import Work


@dataclass(frozen=True, slots=True)
class PauseRequest:
    """A frozen guest and where its memory goes.

    A pause owns the memory unless it rolls back. Where the memory is `borrowed` the same guest goes on.
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
    borrowed: bool = False
    spill: Path | None = None  # the folder for what a stranded build's cache does not take
    keeper: Keeper | None = None  # without one, a stranded build ends with this process
    witness: Callable[[DirtySet], None] | None = None
    """Given what the scan found, before anything is made of it: to be compared with another account of the writes."""

    def record_stands(self) -> bool:
        """Whether a record condemns the guest: asked where an interrupt may have come just after it was written.

        What cannot be read condemns.
        """
        if self.borrowed:
            return False
        try:
            return self.condemned.holds(self.guest.incarnation)
        except OSError:
            return True


def work_out(request: PauseRequest, effects: Effects, emit: Emit) -> Work:
    """Look at the guest, scan, compare where that is asked for, and plan; nothing is changed by it."""
    if (size := request.parent.mapping.size) != request.memory.size:
        raise EngineError(f"the parent holds {size} bytes, the memfd has {request.memory.size}")
    effects.look(request.guest, "scan")
    found = effects.scan(request.tracker, request.guest, request.memory, request.block_size)
    if request.witness is not None:
        request.witness(found)
    dirty, block = _with_what_was_freed(request, found)
    resident = request.memory.resident_bytes()
    told = (len(dirty.dirty) * block, len(dirty.empty) * block, resident, dirty.scan_ms, dirty.why)
    emit(Scanned(dirty.tracker, *told))
    if request.options.verify:
        dirty, block = _with_what_differs(request, effects, dirty, block, emit), PAGE
    facts = _facts(request, block)
    if request.options.dedup.enabled and plans.path_of(request.options, facts) is plans.Path.DEDUP:
        dirty, block = _without_equal_pages(request, effects, dirty, facts, emit), PAGE
        facts = _facts(request, block)
    plan = plans.plan(request.options, facts, dirty.dirty)
    work = len(plan.chunks), plan.dirty_bytes, list(plan.notes)
    emit(Planned(plan.path.value, plan.punch, plan.punch_reason, *work, plan.punch_code.value))
    return Work(plan, dirty, block)


def _with_what_was_freed(request: PauseRequest, found: DirtySet) -> tuple[DirtySet, int]:
    """The dirty set, and the size of its blocks: of pages, where the memory has holes."""
    memory, parent, block = request.memory, request.parent.mapping, request.block_size
    if not isinstance(memory, Memfd):
        return found, block
    begun = time.perf_counter()
    refined = in_pages(found, memory, parent, block)
    milliseconds = found.scan_ms + (time.perf_counter() - begun) * 1e3
    if refined is not None:
        return replace(refined, scan_ms=milliseconds), PAGE
    if freed_unseen(found, memory, parent, block):
        everything = Blocks(range(memory.size // block))
        return DirtySet(everything, Blocks(), RESIDENT, milliseconds, "the guest has freed huge pages"), block
    return replace(found, scan_ms=milliseconds), block


def _with_what_differs(request: PauseRequest, effects: Effects, found: DirtySet, block: int, emit: Emit) -> DirtySet:
    """In pages: what no tracker named is compared with the parent, and stored where it is not the same."""
    begun, memory, mapping = time.perf_counter(), request.memory, request.parent.mapping
    dirty, empty = (in_smaller_blocks(kind, block // PAGE) for kind in (found.dirty, found.empty - found.dirty))
    clean = Blocks(range(memory.size // PAGE)) - dirty - empty
    stored = from_indexes(np.flatnonzero(stored_pages(mapping)).astype(np.uint32))
    if isinstance(memory, Memfd) and (held := resident(memory)) is not None:
        clean &= stored | from_indexes(np.flatnonzero(held).astype(np.uint32))  # a hole is zero, as the parent is
    with open_chain(request.builds, request.parent) as chain:
        differs = effects.compare(clean, memory.read_pages, ParentReader(mapping, chain).read_pages)
    zeroed = differs.zero & stored
    changed = (len(differs.stored) + len(zeroed)) * PAGE
    emit(CleanVerified(len(clean) * PAGE, changed, (time.perf_counter() - begun) * 1e3))
    return replace(found, dirty=dirty | differs.stored, empty=empty | zeroed)


def _facts(request: PauseRequest, block_size: int) -> MemoryFacts:
    return MemoryFacts(
        size=request.memory.size,
        page_size=request.memory.page_size,
        block_size=block_size,
        seals=request.memory.refresh_seals(),
        consumed=not request.borrowed,
        parent_finished=True,  # or `check_parents` ends the pause
        memfd=isinstance(request.memory, Memfd),
    )


def _without_equal_pages(
    request: PauseRequest, effects: Effects, dirty: DirtySet, facts: MemoryFacts, emit: Emit
) -> DirtySet:
    """The dirty set in pages, without those that are zero or as in the parent; the guest may still run on."""
    begun = time.perf_counter()
    pages = in_smaller_blocks(dirty.dirty, facts.block_size // PAGE)
    with open_chain(request.builds, request.parent, verified=False) as chain:  # what is equal is proven by that
        parent = ParentReader(request.parent.mapping, chain)
        found = effects.compare(pages, request.memory.read_pages, parent.read_pages)
    stored, zero, equal = (len(kind) * PAGE for kind in (found.stored, found.zero, found.equal))
    emit(Compared(stored, zero, equal, (time.perf_counter() - begun) * 1e3))
    empty = in_smaller_blocks(dirty.empty - dirty.dirty, facts.block_size // PAGE) | found.zero
    return replace(dirty, dirty=found.stored, empty=empty)


def check_parents(request: PauseRequest) -> None:
    """What is clean is about to be given up: each build that holds some of it must be there, finished and whole.

    `check_build` says what of that is not looked at here. Raises CorruptBuildError.
    """
    for build, length in maps.stored_lengths(request.parent.mapping).items():
        check_build(request.builds, build, length)
