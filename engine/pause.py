"""One pause of one incarnation, start to finish.

A failure before the point of no return rolls back, one after it discards.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from engine import mapping as maps
from engine import plan as plans
from engine.cache import Cache
from engine.copy import ChunkCopier, ChunkError
from engine.dedup import PAGE, ParentReader
from engine.dirty import DirtySet, Tracker
from engine.effects import Effects, Memory
from engine.errors import CancelledPauseError, CorruptBuildError, EngineError, FreezeError
from engine.events import (
    BuildFinished,
    CacheDeleted,
    Compared,
    Condemned,
    CondemnFailed,
    CopyFailed,
    Emit,
    Event,
    Planned,
    Scanned,
    ignore,
)
from engine.incarnation import CondemnedRecords, GuestProcess, PunchPermit
from engine.memfd import Memfd, ProcessMemory
from engine.meter import PeakMeter
from engine.plan import MemoryFacts, PauseOptions, PausePlan
from engine.ranges import chunks, in_smaller_blocks
from engine.resume import open_chain
from engine.snapshot import PARENTS, Header, check_build, parents_of, pinning, write_attachments


class Outcome(StrEnum):
    """How a pause ended."""

    FINISHED = "finished"
    ROLLED_BACK = "rolled-back"
    DISCARDED = "discarded"


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
class PauseResult:
    """What a pause did, by the kernel's account; bytes, milliseconds. None where it does not apply.

    With `parent_damaged` a build that it was to stand on cannot be read: so will every pause that asks for that parent.
    """

    outcome: Outcome
    error: str | None
    failed_chunk: int | None
    condemned: bool
    condemn_error: str | None
    punch_error: str | None
    punched_bytes: int
    peak_over: int | None
    peak_ratio: float | None
    copy_ms: float | None
    header: Header | None
    parent_damaged: bool = False


class Pause:
    """`begin` runs to the pause's answer, `settle` waits for the copy's end. Thread-safe."""

    def __init__(self, request: PauseRequest, effects: Effects | None = None, emit: Emit = ignore) -> None:
        self._request = request
        self._effects = effects or Effects()
        self._emit = emit
        self._lock = threading.RLock()  # never held over an act: whoever cancels may be an event loop
        self._cancelled = False
        self._committed = False
        self._condemned = False
        self._condemning = False
        self._condemn_error: str | None = None
        self._settled = threading.Event()
        self._waiting: list[Callable[[], None]] = []
        self._result: PauseResult | None = None
        self._begun = time.perf_counter()
        self.plan: PausePlan | None = None
        self._cache: Cache | None = None
        self._meter: PeakMeter | None = None
        self._copier: ChunkCopier | None = None
        self._header: Header | None = None
        self._stored: tuple[DirtySet, int] | None = None  # the blocks that the header tells of, and their size

    def begin(self) -> bool:
        """Return once the pause has its answer: the copy done, or (background) condemned with the header known.

        True where the answer came before the copy's end: it may have ended meanwhile.
        """
        try:
            self._prepare()
            copier, plan = self._parts()
            copier.copy_first(self._stop_if_cancelled)
            self._effects.boundary("condemn")
            self._effects.confirm_stopped(self._request.guest)
            if plan.condemns_early:
                self._condemn()
        except Exception as error:  # noqa: BLE001 - whatever it is, the guest must not stay between the two fates
            self._fail(error)
            return False
        if plan.background and self._condemned:
            with contextlib.suppress(RuntimeError):  # no thread to be had: the answer waits for the copy
                threading.Thread(target=self._rest, name="copier-1", daemon=True).start()
                return True
        self._rest()
        return False

    def settle(self, deadline: float | None = None) -> PauseResult:
        """The result once the copy has ended; raises TimeoutError after `deadline` seconds."""
        if not self._settled.wait(deadline) or self._result is None:
            raise TimeoutError(f"the copy of build {self._request.build} did not end within {deadline} s")
        return self._result

    def when_settled(self, tell: Callable[[], None]) -> None:
        """Have `tell` called once nothing more will happen: by the thread that ended the pause, or at once."""
        with self._lock:
            if not self._settled.is_set():
                self._waiting.append(tell)
                return
        tell()

    def cancel(self) -> bool:
        """Ask for a roll-back; False where the guest is condemned, or all is copied: then the pause goes on."""
        with self._lock:
            if self._condemned or self._condemning or self._committed or self._settled.is_set():
                return False
            self._cancelled = True
            return True

    @property
    def header(self) -> Header | None:
        """The header as far as it is known: mapping at the answer, digests when finished.

        The mapping of a scattered guest takes milliseconds to merge: it is made for whoever asks first, not before the
        answer.
        """
        with self._lock:
            if self._header is None and self._stored is not None:
                self._header = self._unfinished_header(*self._stored)
            return self._header

    @property
    def cache(self) -> Cache | None:
        """The cache being written, for readers."""
        return self._cache

    # -- before the point of no return: everything that can be checked is checked here

    def _prepare(self) -> None:
        request = self._request
        if (size := request.parent.mapping.size) != request.memory.size:
            raise EngineError(f"the parent holds {size} bytes, the memfd has {request.memory.size}")
        self._effects.confirm_stopped(request.guest)
        dirty = self._effects.scan(request.tracker, request.guest, request.memory, request.block_size)
        facts = self._facts(request.block_size)
        self._tell_of_scan(dirty)
        if request.options.dedup.enabled and plans.path_of(request.options, facts) is plans.Path.DEDUP:
            dirty = self._without_equal_pages(dirty, facts)
            facts = self._facts(PAGE)
        plan = self.plan = plans.plan(request.options, facts, dirty.dirty)
        self._emit(
            Planned(
                plan.path.value,
                plan.punch,
                plan.punch_reason,
                len(plan.chunks),
                plan.dirty_bytes,
                list(plan.notes),
                plan.punch_code.value,
            )
        )
        self._stored = (dirty, facts.block_size)
        cache = self._cache = Cache(request.builds, request.build, plan.chunks)
        self._meter = PeakMeter(request.memory, cache)
        self._effects.create_cache(cache)
        self._effects.reserve(cache)
        # Before the guest is condemned: space may lack, and from here on the parents may not be deleted.
        with pinning(request.builds):
            write_attachments({**request.attachments, PARENTS: parents_of(request.parent)}, cache.folder)
            self._check_parents()
        self._copier = ChunkCopier(request.memory, plan, cache, self._meter, self._effects, self._emit)

    def _check_parents(self) -> None:
        """What is clean is about to be given up: each build that holds some of it must be there, finished and whole.

        `check_build` says what of that is not looked at here. Raises CorruptBuildError.
        """
        for build, length in maps.stored_lengths(self._request.parent.mapping).items():
            check_build(self._request.builds, build, length)

    def _facts(self, block_size: int) -> MemoryFacts:
        request = self._request
        return MemoryFacts(
            size=request.memory.size,
            page_size=request.memory.page_size,
            block_size=block_size,
            seals=request.memory.refresh_seals(),
            consumed=not request.checkpoint,
            parent_finished=True,  # or `_check_parents` ends the pause
            memfd=isinstance(request.memory, Memfd),
        )

    def _tell_of_scan(self, dirty: DirtySet) -> None:
        block = self._request.block_size
        resident = self._request.memory.resident_bytes()
        self._emit(Scanned(dirty.tracker, len(dirty.dirty) * block, len(dirty.empty) * block, resident, dirty.scan_ms))

    def _without_equal_pages(self, dirty: DirtySet, facts: MemoryFacts) -> DirtySet:
        """The dirty set in pages, without those that are zero or as in the parent; the guest may still run on."""
        request, begun = self._request, time.perf_counter()
        spans = chunks(dirty.dirty, facts.size, facts.block_size, facts.page_size)
        with open_chain(request.builds, request.parent) as chain:
            parent = ParentReader(request.parent.mapping, chain)
            memory = request.memory.read_span
            found = self._effects.compare(spans, facts.block_size, memory, parent.read_span)
        stored, zero, equal = (len(kind) * PAGE for kind in (found.stored, found.zero, found.equal))
        self._emit(Compared(stored, zero, equal, (time.perf_counter() - begun) * 1e3))
        empty = in_smaller_blocks(dirty.empty - dirty.dirty, facts.block_size // PAGE) | found.zero
        return DirtySet(found.stored, empty, dirty.tracker, dirty.scan_ms)

    def _unfinished_header(self, dirty: DirtySet, block_size: int) -> Header:
        request = self._request
        empty = dirty.empty - dirty.dirty  # dirty blocks are stored, all of them: the plan packs them so
        change = maps.diff(dirty.dirty, empty, request.build, block_size)
        mapping = maps.merge(request.parent.mapping, change)  # joined at the end: the caller is waiting
        base = request.parent.base_build or request.build
        return Header(request.build, base, request.parent.generation + 1, mapping, (), ())

    def _stop_if_cancelled(self) -> None:
        with self._lock:
            if self._cancelled and not self._condemned:
                raise CancelledPauseError("the caller cancelled the pause")

    def _condemn(self) -> None:
        """The point of no return. Where the record cannot be written nothing is ever punched."""
        copier, plan = self._parts()
        if self._request.checkpoint:
            raise EngineError("a checkpoint's guest goes on: it may not be condemned")
        with self._lock:  # a cancel comes before the record is begun, or is refused
            self._stop_if_cancelled()
            self._condemning = True
        permit = self._write_record()
        if permit is None:
            return
        self._emit(Condemned(self._request.build))
        if plan.punch:
            copier.permit = permit

    def _write_record(self) -> PunchPermit | None:
        request = self._request
        try:
            permit = self._effects.condemn(request.condemned, request.guest, request.build)
        except Exception as error:  # noqa: BLE001 - the teardown asks too, and its waiters must be told all the same
            self._condemning = False
            self._condemn_error = str(error)
            self._say(CondemnFailed(str(error)))
            return None
        self._condemned = True  # first: a cancel is refused throughout
        self._condemning = False
        return permit

    # -- the rest of the copy, in the background or not

    def _rest(self) -> None:
        copier, _ = self._parts()
        try:
            copier.punch_owed_to_nobody()
            copier.copy_rest(self._stop_if_cancelled)
            self._effects.boundary("finish")
            self._confirm_never_woken()
            self._commit()
            header = self._finish()
        except Exception as error:  # noqa: BLE001 - a thread that dies silently would leave its waiters hanging
            self._fail(error)
            return
        if self._request.checkpoint:
            self._begin_new_dirty_set()
            self._end(Outcome.FINISHED, None, header)
        else:
            self._tear_down(Outcome.FINISHED, None, header)

    def _begin_new_dirty_set(self) -> None:
        """Only now, with the header finished: until here a failure or a crash forgets nothing.

        Where it fails the next dirty set holds too much, which is never wrong.
        """
        with contextlib.suppress(Exception):
            self._effects.rearm(self._request.tracker)

    def _confirm_never_woken(self) -> None:
        """A guest that runs now may have written into the copy; one that was killed while stopped has not.

        Where memory was read by its pid, that may by now be another process's: only a living guest is believed.
        """
        try:
            self._effects.confirm_stopped(self._request.guest)
        except FreezeError:
            if not self._request.guest.is_dead() or isinstance(self._request.memory, ProcessMemory):
                raise

    def _commit(self) -> None:
        """From here on a cancel is refused: the build is about to get its name."""
        with self._lock:
            self._stop_if_cancelled()
            self._committed = True

    def _finish(self) -> Header:
        copier, plan = self._parts()
        unfinished, cache = self.header, self._cache
        if unfinished is None or cache is None:
            raise EngineError("a pause was finished before it was prepared")
        header = Header(
            unfinished.build,
            unfinished.base_build,
            unfinished.generation,
            maps.normalise(unfinished.mapping),
            tuple(chunk.length for chunk in plan.chunks),
            tuple(copier.digests),
        )
        self._effects.write_header(header, cache.folder)
        self._effects.finish(cache)
        self._header = header
        milliseconds = (time.perf_counter() - self._begun) * 1e3
        self._say(BuildFinished(header.build, cache.length, header.content_hash, milliseconds))
        return header

    def _fail(self, error: BaseException) -> None:
        """Uncondemned: the guest may run on, nothing was lost. Condemned: discard, always."""
        cause = error.cause if isinstance(error, ChunkError) else error
        call = error.call if isinstance(error, ChunkError) else type(cause).__name__
        chunk = error.chunk if isinstance(error, ChunkError) else None
        self._say(CopyFailed(chunk, call, str(cause), self._condemned))
        if self._cache is not None:
            self._delete(self._cache, error)
        if self._condemned:
            self._tear_down(Outcome.DISCARDED, error, None)
        else:
            self._end(Outcome.ROLLED_BACK, error, None)

    def _delete(self, cache: Cache, error: BaseException) -> None:
        try:
            self._effects.discard(cache, error)
        except Exception as failure:  # noqa: BLE001 - readers must wake and the guest must end all the same
            self._say(CopyFailed(None, "discard", str(failure), self._condemned))
            cache.fail(error)
        if not cache.folder.exists():
            self._say(CacheDeleted(self._request.build))

    def _say(self, event: Event) -> None:
        """Emit when the fate is settled already: a listener that fails may not keep the guest from it."""
        with contextlib.suppress(Exception):
            self._emit(event)

    def _tear_down(self, outcome: Outcome, error: BaseException | None, header: Header | None) -> None:
        """End the guest, then give its memory back, then forget the record: in this order."""
        request = self._request
        if not self._condemned and self._write_record():
            # Success is about to be answered: even a guest that will not die may never be thawed.
            self._say(Condemned(request.build))
        self._remember(outcome, error, header)
        try:
            self._effects.kill(request.guest)
            self._effects.retire(request.condemned, request.guest)
        except Exception as failure:  # noqa: BLE001 - waiters must be told all the same; the record stays
            self._say(CopyFailed(None, "teardown", str(failure), self._condemned))
        self._close(request.memory)

    def _end(self, outcome: Outcome, error: BaseException | None, header: Header | None) -> None:
        self._remember(outcome, error, header)
        self._close(None)

    def _close(self, memory: Memory | None) -> None:
        """The last act of all; nothing that fails here may keep the pause from settling."""
        try:
            self._effects.close(memory, self._cache)
        except Exception as failure:  # noqa: BLE001 - what it left open is closed here, and waiters must be told
            self._say(CopyFailed(None, "teardown", f"close: {failure}", self._condemned))
            for each in (memory, self._cache):
                with contextlib.suppress(OSError):
                    if each is not None:
                        each.close()
        with self._lock:
            self._settled.set()
        for tell in self._waiting:
            with contextlib.suppress(Exception):  # each of the others waits too
                tell()

    def _remember(self, outcome: Outcome, error: BaseException | None, header: Header | None) -> None:
        copier, meter = self._copier, self._meter
        self._result = PauseResult(
            outcome=outcome,
            error=str(error) if error else None,
            failed_chunk=error.chunk if isinstance(error, ChunkError) else None,
            condemned=self._condemned,
            condemn_error=self._condemn_error,
            punch_error=copier.punch_error if copier else None,
            punched_bytes=self._freed(),
            peak_over=meter.peak_over if meter else None,
            peak_ratio=meter.peak_ratio if meter else None,
            copy_ms=(time.perf_counter() - self._begun) * 1e3 if copier else None,
            header=header,
            parent_damaged=isinstance(error, CorruptBuildError),
        )

    def _freed(self) -> int:
        with contextlib.suppress(OSError):  # somebody closed the memfd: the guest must be ended all the same
            if self._meter and self._copier and self._copier.permit:
                return self._meter.freed()
        return 0

    def _parts(self) -> tuple[ChunkCopier, PausePlan]:
        if self._copier is None or self.plan is None:
            raise EngineError("a pause was used before it was prepared")
        return self._copier, self.plan
