"""Every act of a pause that can fail or destroy, one method each: what a pause calls and a fault wraps."""

from __future__ import annotations

from pathlib import Path

from engine import dirty as dirty_set
from engine.cache import Cache
from engine.dirty import DirtySet, Tracker
from engine.incarnation import GuestProcess
from engine.memfd import Memfd
from engine.permit import CondemnedRecords, PunchPermit
from engine.ranges import Chunk
from engine.snapshot import Header, write_header


class Effects:
    """The acts themselves, with nothing added. Each raises OSError or an EngineError."""

    def confirm_stopped(self, guest: GuestProcess) -> None:
        guest.confirm_stopped()

    def scan(self, tracker: Tracker, guest: GuestProcess, memfd: Memfd, block_size: int) -> DirtySet:
        return dirty_set.scan(tracker, guest, memfd, block_size)

    def create_cache(self, cache: Cache) -> None:
        cache.create()

    def reserve(self, cache: Cache) -> None:
        cache.reserve()

    def copy_read(self, memfd: Memfd, buffer: memoryview, offset: int, chunk: Chunk) -> None:
        memfd.read_into(buffer, offset)

    def copy_write(self, cache: Cache, data: memoryview, chunk: Chunk) -> None:
        cache.write(data, chunk.cache_offset)

    def publish(self, cache: Cache, chunk: Chunk) -> None:
        cache.publish(chunk)

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

    def kill(self, guest: GuestProcess) -> None:
        guest.kill()

    def retire(self, records: CondemnedRecords, guest: GuestProcess) -> None:
        records.retire(guest)
