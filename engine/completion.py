"""A build completed by a process that did not begin it: out of its records, its files, and the kept memory."""

from __future__ import annotations

import errno
import os
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import xxhash

from engine import chunk_records
from engine.cache import PARTIAL, Cache
from engine.chunk_records import ChunkRecords, NoRecordsError, Placed, Recorded
from engine.dirty import resident
from engine.errors import CorruptBuildError, EngineError, NotAMemfdError
from engine.memfd import Memfd
from engine.pages import PAGE
from engine.plan import SalvageCode
from engine.ranges import Chunk
from engine.snapshot import Build, Header, check_build, template, write_header
from engine.spill import NO_SPACE
from engine.strand import RETRY_SECONDS, UnsalvageableError, packed_from
from engine.work import finished_header, unfinished_header, written_with_room


@dataclass(frozen=True, slots=True)
class Left:
    """What a crash left of a build: `memory` is an fd that the caller owns, its guest is dead and was not torn."""

    builds: Path
    build: str
    memory: int
    spill: Path | None = None


def complete(left: Left) -> Header:
    """Finish the build; nothing is punched on the way. May be done again after a crash of its own.

    Raises UnsalvageableError: its records or a punched chunk are not what was written, its parent is damaged, or there
    is no space for the rest, neither in its cache nor in its spill.
    """
    waits = iter(RETRY_SECONDS)
    while True:
        try:
            return _completed(left, _recorded(left))  # read anew: a try that failed may have moved a chunk
        except UnsalvageableError:
            raise
        except (OSError, EngineError) as error:
            if (seconds := next(waits, None)) is None:
                why = f"the rest of it could not be written: {error}"
                raise UnsalvageableError(SalvageCode.NOT_COMPLETED, why) from error
        time.sleep(seconds)


def _recorded(left: Left) -> Recorded:
    try:
        return chunk_records.read(left.builds / f"{left.build}{PARTIAL}")
    except NoRecordsError as error:
        raise UnsalvageableError(SalvageCode.NO_RECORDS, str(error)) from error


def _completed(left: Left, recorded: Recorded) -> Header:
    work, parent = recorded.work, _parent(left, recorded)
    cache = Cache(left.builds, left.build, work.plan.chunks, left.spill)
    cache.reopen()
    with (
        closing(cache),
        closing(_memory(left.memory, work.plan.facts.size)) as memfd,
        closing(ChunkRecords.reopen(cache.folder, recorded)) as records,
    ):
        filling = _Filling(cache, records, memfd, recorded)
        for chunk in work.plan.chunks:
            filling.take(chunk)
        unfinished = unfinished_header(parent, left.build, work)

        def write() -> Header:
            cache.give_zeros_back()
            header = finished_header(unfinished, work, cache)
            write_header(header, cache.folder)
            return header

        header = written_with_room(write, cache, work.plan.chunks, filling.record)
        cache.finish()
    chunk_records.remove(cache.final)
    return header


def _parent(left: Left, recorded: Recorded) -> Header:
    if not recorded.parent:
        return template(recorded.work.plan.facts.size, recorded.parent_block)
    try:
        check_build(left.builds, recorded.parent, 0)
        with closing(Build.open(left.builds, recorded.parent)) as parent:
            return parent.header
    except CorruptBuildError as error:  # what the host cannot read just now is an OSError, and tried again
        raise UnsalvageableError(SalvageCode.CORRUPT, f"the build that it stands on is damaged: {error}") from error


def _memory(fd: int, size: int) -> Memfd:
    try:
        return Memfd.adopt(os.dup(fd), size)
    except NotAMemfdError as error:
        raise UnsalvageableError(SalvageCode.LOST, f"what was kept is not its memory: {error}") from error


@dataclass
class _Filling:
    """Takes each chunk from where it is."""

    cache: Cache
    records: ChunkRecords
    memfd: Memfd
    recorded: Recorded
    spills: bool = False

    def take(self, chunk: Chunk) -> None:
        placed = self.recorded.placed.get(chunk.index)
        if placed is not None and self._is_there(chunk, placed):
            return
        if chunk.index in self.recorded.damaged and self._may_be_punched(chunk):
            why = f"the record of chunk {chunk.index} is damaged, and its memory may be punched"
            raise UnsalvageableError(SalvageCode.CORRUPT, why)
        data = packed_from(self.memfd, chunk, self.recorded.work.plan.facts.block_size)
        digest = xxhash.xxh3_128_digest(data)
        if placed is not None and digest != placed.digest:
            why = f"chunk {chunk.index} in the cache is not what was written, and its memory may be punched"
            raise UnsalvageableError(SalvageCode.CORRUPT, why)
        self._write(chunk, memoryview(data))
        if not self.cache.published_already(chunk, digest, in_spill=chunk.index in self.cache.spilled):
            raise OSError(errno.EIO, f"what was read back of chunk {chunk.index} is not what was written")
        self.record(chunk)

    def _may_be_punched(self, chunk: Chunk) -> bool:
        """A punch leaves nothing of a chunk's whole pages; on hugetlb the kernel does not say what is there."""
        pages = resident(self.memfd)
        return pages is None or not pages[chunk.start // PAGE : chunk.end // PAGE].any()

    def _is_there(self, chunk: Chunk, placed: Placed) -> bool:
        return placed.offset == chunk.cache_offset and self.cache.published_already(
            chunk, placed.digest, in_spill=placed.in_spill
        )

    def _write(self, chunk: Chunk, data: memoryview) -> None:
        if not self.spills:
            try:
                self.cache.lies_in_spill(chunk.index, spilled=False)
                self.cache.write(data, chunk.cache_offset)
            except OSError as error:
                if not self.cache.can_spill or error.errno not in NO_SPACE:
                    raise
                self.spills = True
            else:
                return
        self.cache.spill(data, chunk)

    def record(self, chunk: Chunk) -> None:
        index = chunk.index
        placed = Placed(index in self.cache.spilled, chunk.cache_offset, self.cache.digests[index])
        self.records.write(index, placed)
