"""Every act of a pause or a resume that can fail or destroy, one method each: what they call and a fault wraps."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from engine import dedup
from engine import dirty as dirty_set
from engine.cache import Cache
from engine.chunk_records import ChunkRecords, Placed
from engine.dedup import PageComparison, ReadPages
from engine.dirty import DirtySet, Tracker
from engine.incarnation import CondemnedRecords, GuestProcess, PunchPermit
from engine.keeper import Keeper
from engine.memfd import Memfd, ProcessMemory
from engine.ranges import Blocks, Chunk
from engine.snapshot import Build, Header, write_header

Memory = Memfd | ProcessMemory
Before = Literal["scan", "condemn", "finish"]
"""What an untouched guest is a condition of."""
Boundary = Literal["condemn", "finish"]
"""What a pause is about to do: condemn its guest (or, where it never does, copy on past the first chunk); finish."""


class Effects:
    """The acts themselves, with nothing added. Each raises OSError or an EngineError."""

    def look(self, guest: GuestProcess, before: Before) -> None:
        """Has the guest run since its freeze? Raises GuestRanError; `before` says what it is looked at for."""
        guest.look()

    def boundary(self, before: Boundary) -> None:
        """Called as a pause reaches a boundary. Does nothing here; effects that slow or hold copies wait in it."""

    def scan(self, tracker: Tracker, guest: GuestProcess, memory: Memory, block_size: int) -> DirtySet:
        """Without re-arming, so that a failure forgets nothing."""
        return dirty_set.scan(tracker, guest, memory, block_size)

    def rearm(self, tracker: Tracker) -> None:
        """Begin a new dirty set; the guest is stopped, and what it wrote so far is in a finished build."""
        tracker.written(rearm=True)

    def compare(self, pages: Blocks, memory: ReadPages, parent: ReadPages) -> PageComparison:
        return dedup.compare(pages, memory, parent)

    def create_cache(self, cache: Cache) -> None:
        cache.create()

    def reserve(self, cache: Cache) -> None:
        cache.reserve()

    def copy_read(self, memory: Memory, buffer: memoryview, offset: int, chunk: Chunk) -> None:
        memory.read_span(buffer, offset, chunk)

    def copy_write(self, cache: Cache, data: memoryview, chunk: Chunk) -> None:
        cache.write(data, chunk.cache_offset)

    def spill(self, cache: Cache, data: memoryview, chunk: Chunk) -> None:
        """In place of `copy_write`, where the cache of a stranded build has no space."""
        cache.spill(data, chunk)

    def publish(self, cache: Cache, chunk: Chunk) -> None:
        cache.publish(chunk)

    def keep(self, keeper: Keeper, build: str, memory: Memory) -> None:
        """Have another process hold the memory too, before the guest is condemned; raises whatever the keeper does."""
        if isinstance(memory, Memfd):
            keeper.keep(build, memory.fd)

    def record(self, records: ChunkRecords, cache: Cache, chunk: Chunk) -> None:
        """Write down where a published chunk lies, before it is punched; raises OSError."""
        index = chunk.index
        records.write(index, Placed(index in cache.spilled, chunk.cache_offset, cache.digests[index]))

    def condemn(self, records: CondemnedRecords, guest: GuestProcess, build: str) -> PunchPermit:
        return records.condemn(guest.incarnation, build)

    def punch(self, memfd: Memfd, offset: int, length: int, permit: PunchPermit, chunk: Chunk | None) -> None:
        """`chunk` is None for pages that were clean at the freeze."""
        memfd.punch(offset, length, permit)

    def write_header(self, header: Header, folder: Path) -> None:
        write_header(header, folder)

    def finish(self, cache: Cache) -> None:
        cache.finish()

    def discard(self, cache: Cache, error: BaseException) -> None:
        """Fail the readers and delete the partial cache."""
        cache.fail(error)

    def close(self, memory: Memory | None, cache: Cache | None) -> None:
        """Close the cache's file, and give the memory back, where it is not the guest's any more.

        In this order: a reader of a stranded build may be in the memory, and the cache waits for it.
        """
        if cache is not None:
            cache.close()
        if memory is not None:
            memory.close()

    def kill(self, guest: GuestProcess) -> None:
        """The last look and SIGKILL; raises GuestRanError, once that is sent, where the guest had run."""
        guest.end()

    def await_death(self, guest: GuestProcess, permit: PunchPermit | None) -> None:
        """Wait until the killed guest is dead, which opens the permit; raises FreezeError where it does not die."""
        guest.await_death()
        if permit is not None:
            permit.open(guest)

    def retire(self, records: CondemnedRecords, guest: GuestProcess) -> None:
        records.retire(guest)

    def resume_read(self, source: Build | Cache, offset: int, length: int) -> bytes:
        """Bytes of a build, finished or still being copied, for a new incarnation's memory."""
        return source.read(offset, length)
