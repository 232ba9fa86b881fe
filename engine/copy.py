"""The chunk pipeline: read, write, publish, punch; one worker until the point of no return, then two."""

from __future__ import annotations

import contextlib
import errno
import mmap
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypedDict

import numpy as np
import xxhash

from engine.cache import Cache
from engine.chunk_records import ChunkRecords
from engine.effects import Effects, Memory
from engine.errors import EngineError, words_of
from engine.events import BuildSpilled, ChunkPublished, ChunkPunched, CleanPagesPunched, Emit, PunchFailed, Retried
from engine.incarnation import PunchPermit
from engine.memfd import Memfd
from engine.meter import PeakMeter
from engine.plan import PausePlan
from engine.ranges import Chunk, whole_pages
from engine.spill import NO_SPACE

_TRANSIENT = frozenset({errno.EINTR, errno.EAGAIN, errno.ENOMEM})
_ATTEMPTS = 5
_MADV_POPULATE_WRITE = 23  # Linux 5.14; Python has no name for it


class ChunkError(EngineError):
    """A chunk could not be copied: which, by which call, and why."""

    def __init__(self, chunk: int, call: str, cause: BaseException) -> None:
        super().__init__(f"{call} of chunk {chunk} failed: {cause}")
        self.chunk = chunk
        self.call = call
        self.cause = cause


class Copied(TypedDict):
    """The figures of a copy, as far as it got; bytes."""

    punch_error: str | None
    punched_bytes: int
    peak_over: int | None
    peak_ratio: float | None
    copier_bytes: int | None


class ChunkCopier:
    """Copies the chunks of one plan. `permit` opens punching; without it nothing is ever freed."""

    def __init__(
        self,
        memory: Memory,
        plan: PausePlan,
        cache: Cache,
        meter: PeakMeter,
        effects: Effects,
        emit: Emit,
        records: ChunkRecords | None = None,
    ) -> None:
        self._memory = memory
        self._plan = plan
        self._cache = cache
        self._meter = meter
        self._effects = effects
        self._emit = emit
        self._records = records
        self._queue = deque(plan.chunks)
        self._first: Chunk | None = None
        self._ahead: Chunk | None = None  # being copied before lower ones, into huge pages: one at a time
        self._buffers: list[_Buffers] = []  # one a worker, until it has taken it
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._may_spill = self._spills = False
        self.permit: PunchPermit | None = None
        self.punch_error: str | None = None
        self.digests = cache.digests
        self.buffer_bytes = 0
        """Memory of the copiers' own, at most."""
        self.cpu_seconds = 0.0
        """Of the second worker, once it has ended; the first is a thread of the pause."""

    def copy_first(self, stop: Callable[[], None]) -> None:
        """Copy and publish chunk 0 alone, where there is one; `stop` raises if the pause was cancelled.

        Memory for both workers is taken here: where there is none, the pause can still roll back.
        """
        stop()
        if self._queue:  # the lowest, whatever a reader waits for: only its failure may roll back
            self._first = self._queue.popleft()
            workers = 2 if len(self._queue) > 1 else 1
            self._buffers = [_Buffers(self._plan) for _ in range(workers)]
            self.buffer_bytes = sum(each.size for each in self._buffers)
            self._copy(self._first, self._buffers[0])

    def punch_nothing(self, why: str) -> None:
        """No permit will come: say so, and copy on."""
        self.punch_error = why
        self._emit(PunchFailed(None, why))

    def punch_unowed(self) -> None:
        """Free, where there is a permit, pages that hold no dirty block, then chunk 0, which is published already."""
        if self.permit is None:
            return
        self._punch_clean_pages()
        if self._first is not None:
            self._free(self._first)

    def _punch_clean_pages(self) -> None:
        punched = 0
        for offset, length in self._plan.clean_pages():
            if not self._punch(offset, length, None):
                break
            punched += length
        if punched:
            self._emit(CleanPagesPunched(punched, self._meter.freed()))

    def copy_rest(self, stop: Callable[[], None]) -> None:
        """Copy what is left with two workers; raises the first failure once both have ended."""
        second = threading.Thread(target=self._work_beside, args=(stop,), name="copier-2", daemon=True)
        try:
            with contextlib.suppress(RuntimeError):  # no thread to be had: one worker copies it all
                second.start()
            self._work(stop)
        finally:  # an interrupt too: nothing is closed while a worker copies
            self._join(second)
        if self._failure is not None:
            raise self._failure

    def copy_left(self, *, spill: bool) -> None:
        """Copy what is not published, after a failure: one chunk after the other; raises the first new failure.

        With `spill`: from the first chunk on that the cache has no space for, into the spill, where there is one.
        """
        self._may_spill, self._spills = spill and self._cache.can_spill, False
        left = deque(chunk for chunk in self._plan.chunks if not self._cache.is_published(chunk.index))
        with self._lock:
            self._queue, self._failure, self._ahead = left, None, None
            self._buffers = [_Buffers(self._plan)] if left else []
        self._work(_never_stop)
        if self._failure is not None:
            raise self._failure

    def _join(self, worker: threading.Thread) -> None:
        while worker.ident is not None and worker.is_alive():
            try:
                worker.join()
            except BaseException as error:  # noqa: BLE001 - the thread that asked for the copy raises it, once that is over
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failure = self._failure or error

    def _work_beside(self, stop: Callable[[], None]) -> None:
        began = time.thread_time()
        self._work(stop)
        self.cpu_seconds = time.thread_time() - began

    def _work(self, stop: Callable[[], None]) -> None:
        try:
            buffers: _Buffers | None = None  # none for a worker that finds nothing to do
            while self._failure is None and (chunk := self._next()) is not None:
                stop()
                buffers = buffers or self._buffers.pop()
                self._copy(chunk, buffers)
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
            self._fail(error)

    def _next(self) -> Chunk | None:
        """The chunk a reader waits for, else the lowest that is left."""
        with self._lock:
            wanted = self._cache.take_wanted() if self._ahead is None else None
            if wanted is not None and (chunk := self._plan.chunks[wanted]) in self._queue:
                if self._cache.has_huge_pages and chunk is not self._queue[0]:
                    self._ahead = chunk
                self._queue.remove(chunk)
                return chunk
            return self._queue.popleft() if self._queue else None

    def _copy(self, chunk: Chunk, buffers: _Buffers) -> None:
        data = self._read(chunk, buffers)
        self._write(chunk, data)
        self.digests[chunk.index] = xxhash.xxh3_128_digest(data)
        self._act(chunk, "publish", lambda: self._effects.publish(self._cache, chunk))
        self._record(chunk)
        if chunk is self._ahead:
            self._give_back_beside(chunk)
        now = self._meter.sample()
        span = chunk.end - chunk.start
        self._emit(ChunkPublished(chunk.index, chunk.length, span, now.source, now.cache, chunk.start))
        self._free(chunk)

    def _give_back_beside(self, chunk: Chunk) -> None:
        """Copied ahead of others, it took whole huge pages: what they hold beyond it is freed until its turn comes.

        Else the memory grows by what readers skip (76 MiB for 100 MiB in 512 chunks that were wanted at random).
        """
        with self._lock:  # no chunk is begun meanwhile
            self._cache.give_back_beside(chunk, self._queue)
            self._ahead = None

    def _write(self, chunk: Chunk, data: memoryview) -> None:
        if not self._spills:
            try:
                self._act(chunk, "copy.write", lambda: self._effects.copy_write(self._cache, data, chunk))
            except ChunkError as error:
                if not self._may_spill or getattr(error.cause, "errno", None) not in NO_SPACE:
                    raise
                self._spills = True
                self._emit(BuildSpilled(self._cache.build, chunk.index))
            else:
                self._cache.lies_in_spill(chunk.index, spilled=False)
                return
        self._act(chunk, "spill.write", lambda: self._effects.spill(self._cache, data, chunk))

    def _record(self, chunk: Chunk) -> None:
        """What is not recorded would be lost with this process once it is punched: then nothing more is."""
        records = self._records
        if records is None:
            return
        try:
            self._retry("record", lambda: self._effects.record(records, self._cache, chunk))
        except OSError as error:
            self._stop_punching(chunk, f"its place could not be recorded: {error}")

    def _stop_punching(self, chunk: Chunk | None, why: str) -> None:
        with self._lock:
            self.punch_error = why
        self._emit(PunchFailed(chunk.index if chunk else None, why))

    def _free(self, chunk: Chunk) -> None:
        """Punch the whole pages of a published chunk's span."""
        pages = whole_pages(chunk.start, chunk.end, self._memory.page_size, self._memory.size)
        if pages and self._punch(pages[0], pages[1] - pages[0], chunk):
            self._emit(ChunkPunched(chunk.index, self._meter.freed(), pages[0], pages[1] - pages[0]))

    def _read(self, chunk: Chunk, buffers: _Buffers) -> memoryview:
        """The dirty blocks of the chunk, packed, in this worker's own buffer."""
        block = self._plan.facts.block_size
        first, last = int(chunk.blocks[0]), int(chunk.blocks[-1])
        span = buffers.span[: (last - first + 1) * block]
        self._act(chunk, "copy.read", lambda: self._effects.copy_read(self._memory, span, first * block, chunk))
        return span if len(span) == chunk.length else buffers.pack(span, chunk, block)

    def _punch(self, offset: int, length: int, chunk: Chunk | None) -> bool:
        """Punch where that is open; the first failure ends all punching, and is not fatal: the bytes are safe."""
        permit, memfd = self.permit, self._memory
        if permit is None or self.punch_error is not None or not isinstance(memfd, Memfd):
            return False
        try:
            self._retry("punch", lambda: self._effects.punch(memfd, offset, length, permit, chunk))
        except (OSError, EngineError) as error:
            self._stop_punching(chunk, words_of(error))
            return False
        return True

    def _act(self, chunk: Chunk, call: str, act: Callable[[], None]) -> None:
        try:
            self._retry(call, act)
        except (OSError, EngineError) as error:
            raise ChunkError(chunk.index, call, error) from error

    def _retry(self, call: str, act: Callable[[], None]) -> None:
        """Transient errors are tried again a bounded number of times: the bytes are still in the memfd."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                act()
            except OSError as error:
                if error.errno not in _TRANSIENT or attempt == _ATTEMPTS:
                    raise
                self._emit(Retried(call, str(error), attempt))
                time.sleep(0.0005 * 2**attempt)
            else:
                return


def copied(copier: ChunkCopier | None, meter: PeakMeter | None) -> Copied:
    """The figures of a copy; None where it never began."""
    return Copied(
        punch_error=copier.punch_error if copier else None,
        punched_bytes=meter.freed() if meter and copier and copier.permit else 0,
        peak_over=meter.peak_over if meter else None,
        peak_ratio=meter.peak_ratio if meter else None,
        copier_bytes=copier.buffer_bytes if copier else None,
    )


def _never_stop() -> None:
    """No cancel is honoured any more."""


def _memory_at_once(size: int) -> mmap.mmap:
    """Private memory that is there already, in huge pages where the kernel has them.

    A fault a page would cost more than the copy of a small guest. Raises OSError where there is no memory.
    """
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        with contextlib.suppress(OSError):  # a kernel without transparent huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
        memory.madvise(_MADV_POPULATE_WRITE)
    except OSError as error:
        if error.errno != errno.EINVAL:  # before Linux 5.14
            raise
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    return memory


class _Buffers:
    """One worker's memory: a span as read, and its dirty blocks packed."""

    def __init__(self, plan: PausePlan) -> None:
        size = max((chunk.end - chunk.start for chunk in plan.chunks), default=mmap.PAGESIZE)
        self.span = memoryview(_memory_at_once(size))
        scattered = any(
            chunk.length < (int(chunk.blocks[-1]) - int(chunk.blocks[0]) + 1) * plan.facts.block_size
            for chunk in plan.chunks
        )
        self._packed = np.empty(size if scattered else 0, dtype=np.uint8)
        self.size = len(self.span) + len(self._packed)

    def pack(self, span: memoryview, chunk: Chunk, block: int) -> memoryview:
        rows = np.frombuffer(span, dtype=np.uint8).reshape(-1, block)
        packed = self._packed[: chunk.length].reshape(-1, block)
        np.take(rows, chunk.blocks - chunk.blocks[0], axis=0, out=packed, mode="clip")
        return packed.reshape(-1).data
