"""The packed file that receives a build's dirty blocks, readable chunk by chunk as they are published."""

from __future__ import annotations

import bisect
import contextlib
import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from engine import linux
from engine.errors import BuildFailedError, TruncatedError
from engine.packed import Spilled, read_packed, spilled_ranges, write_packed
from engine.pages import PAGE, runs_of, zeros_of
from engine.ranges import Chunk
from engine.spill import Spill, is_linked, open_linked, remove_folder

PARTIAL = ".partial"
MEMFILE = "memfile"
HUGE_PAGE = 2 << 20


class Cache:
    """One build being written in `<builds>/<build>.partial/`; the folder gets its final name when it is finished.

    Thread-safe: copiers write and publish, readers wait for the chunk they need only.
    """

    def __init__(self, builds: Path, build: str, chunks: Sequence[Chunk], spill: Path | None = None) -> None:
        self.build = build
        self.folder = builds / f"{build}{PARTIAL}"
        self.final = builds / build
        self.length = sum(chunk.length for chunk in chunks)
        self._offsets = [chunk.cache_offset for chunk in chunks]
        self._lengths = [chunk.length for chunk in chunks]
        self._published = [False] * len(chunks)
        self.digests = [b""] * len(chunks)
        """XXH3-128 of each chunk's packed bytes, once it is written; empty before that."""
        self._zero: list[NDArray[np.int64]] = []
        self._wanted: deque[int] = deque()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._made = False  # the folder is this build's own: only then may a failure delete it
        self._left: Callable[[int], bytes] | None = None  # a chunk's packed bytes out of the memfd, once stranded
        self._readers = 0
        self._cached = 0  # bytes that the page cache was seen to hold, on disk
        self._spill = Spill(spill, build) if spill is not None else None
        self._spilled: Spilled = ()
        self.spilled: frozenset[int] = frozenset()
        """Chunks, by index, whose bytes lie in the spill."""
        self.on_tmpfs = False
        self._is_rewritten = False  # the file may hold anything, also where its chunk has zeros
        self.has_huge_pages = False
        """On a tmpfs that gives the file a page of 2 MiB wherever something of it is written."""
        self.fd = -1

    def create(self) -> None:
        """Make the folder and the empty file; raises OSError, FileExistsError where the build's name is taken."""
        if self.final.exists():  # found at the end, it would cost a condemned guest
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.final))
        self.folder.mkdir(parents=True)
        self._made = True
        self.fd = os.open(self.folder / MEMFILE, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.on_tmpfs = linux.filesystem_magic(self.fd) == linux.TMPFS_MAGIC
        self.has_huge_pages = self.on_tmpfs and self.length >= HUGE_PAGE and _takes_huge_pages(self.fd)
        if self.has_huge_pages:  # its length first: a huge page is given only where all of it lies within the file
            os.ftruncate(self.fd, self.length)
        if self._spill is not None:
            self._spill.link(self.folder)

    def reopen(self) -> None:
        """Open what a crashed process left of this build, and its spill where it has one; raises OSError."""
        self.fd = os.open(self.folder / MEMFILE, os.O_RDWR | os.O_CLOEXEC)
        self._made = self._is_rewritten = True
        self.on_tmpfs = linux.filesystem_magic(self.fd) == linux.TMPFS_MAGIC
        self.has_huge_pages = self.on_tmpfs and os.fstat(self.fd).st_blksize >= HUGE_PAGE
        if self._spill is not None and is_linked(self.folder):
            self._spill.open(self.folder)

    def published_already(self, chunk: Chunk, digest: bytes, *, in_spill: bool) -> bool:
        """Take a chunk that was recorded as published, if what is in the file is that; raises OSError."""
        self.lies_in_spill(chunk.index, spilled=in_spill)
        data = read_packed(self.fd, self._spill_fd, self._spilled, chunk.cache_offset, chunk.length)
        if len(data) != chunk.length or xxhash.xxh3_128_digest(data) != digest:
            return False
        self._note_zeros(zeros_of(memoryview(data)) + chunk.cache_offset // PAGE)
        self.digests[chunk.index] = digest
        self.publish(chunk)
        return True

    @property
    def _spill_fd(self) -> int:
        return self._spill.fd if self._spill is not None else -1

    def reserve(self) -> None:
        """Make sure of the space before anything is destroyed; raises OSError(ENOSPC).

        A disk reserves by fallocate; on tmpfs that would take the memory at once, so free space is asked instead.
        """
        if self.length == 0:
            return
        if self.on_tmpfs:
            status = os.fstatvfs(self.fd)
            if status.f_blocks and status.f_bavail * status.f_frsize < self.length:  # no blocks: no limit
                raise OSError(errno.ENOSPC, f"{self.length} bytes do not fit: {os.strerror(errno.ENOSPC)}")
        else:
            os.posix_fallocate(self.fd, 0, self.length)

    def write(self, data: memoryview, offset: int) -> None:
        """Write `data` at `offset` of the packed file, without its zero pages; raises OSError as the kernel says.

        They stay holes of the file, which read as zeros, and are remembered.
        """
        is_hole = self.on_tmpfs and not self._is_rewritten
        self._note_zeros(write_packed(self.fd, data, offset, is_hole=is_hole))

    def _note_zeros(self, zero: NDArray[np.int64]) -> None:
        if len(zero):
            with self._changed:
                self._zero.append(zero)

    @property
    def can_spill(self) -> bool:
        """Whether there is another place for what this file does not take."""
        return self._spill is not None

    def spill(self, data: memoryview, chunk: Chunk) -> None:
        """Write a chunk's packed bytes into the spill; raises OSError as the kernel says."""
        spill = self._spill
        if spill is None:
            raise OSError(errno.ENOSPC, "there is no spill")
        spill.open(self.folder)
        if os.fstat(self.fd).st_size < self.length:
            os.ftruncate(self.fd, self.length)  # a hole: readers ask for the whole length
        with contextlib.suppress(OSError):  # what was written of it here is of no use
            linux.punch_hole(self.fd, chunk.cache_offset, chunk.length)
        self._note_zeros(write_packed(spill.fd, data, chunk.cache_offset, is_hole=False))
        self.lies_in_spill(chunk.index)

    def move_to_spill(self, chunk: Chunk, record: Callable[[], None]) -> None:
        """Give the file system of the cache the space back that a published chunk takes.

        `record` is called once it was read back from the spill, before it is freed here. Raises OSError, also where
        the chunk ends early, or what was read is not what its digest says.
        """
        if self._spill is None:
            raise OSError(errno.ENOSPC, "there is no spill")
        data = memoryview(os.pread(self.fd, chunk.length, chunk.cache_offset))
        if len(data) != chunk.length:
            raise OSError(errno.EIO, f"the cache ends within chunk {chunk.index}")
        self._spill.open(self.folder)
        write_packed(self._spill.fd, data, chunk.cache_offset, is_hole=False)
        written = os.pread(self._spill.fd, chunk.length, chunk.cache_offset)
        if xxhash.xxh3_128_digest(written) != self.digests[chunk.index]:
            raise OSError(errno.EIO, f"chunk {chunk.index} in the spill is not what was written")
        self.lies_in_spill(chunk.index)
        record()
        with self._changed:  # who reads now may still read it here
            self._changed.wait_for(lambda: self._readers == 0)
        linux.punch_hole(self.fd, chunk.cache_offset, chunk.length)

    def lies_in_spill(self, index: int, *, spilled: bool = True) -> None:
        """Which of the two files holds the chunk, before it is published."""
        if (index in self.spilled) != spilled:
            with self._changed:
                self.spilled = self.spilled | {index} if spilled else self.spilled - {index}
                self._spilled = spilled_ranges(self.spilled, list(self.chunks()))

    def zeros(self) -> NDArray[np.int64]:
        """Pages of the packed file that hold nothing, ascending, by their number."""
        with self._changed:
            return np.unique(np.concatenate(self._zero)) if self._zero else np.empty(0, dtype=np.int64)

    def publish(self, chunk: Chunk) -> None:
        """The chunk's bytes are in the file: its readers may have them."""
        with self._changed:
            self._published[chunk.index] = True
            spill = self._spill if chunk.index in self.spilled else None
            if spill is not None and not spill.on_tmpfs:
                spill.cached += self._cached_bytes(spill.fd, chunk)
            elif spill is None and not self.on_tmpfs:
                self._cached += self._cached_bytes(self.fd, chunk)
            self._changed.notify_all()

    def _cached_bytes(self, fd: int, chunk: Chunk) -> int:
        try:
            return linux.cached_bytes(fd, chunk.cache_offset, chunk.length)
        except OSError:  # before Linux 6.5: what was written counts as cached
            return chunk.length

    def give_back_beside(self, written: Chunk, left: Iterable[Chunk]) -> None:
        """Free what the huge pages of a written chunk hold of chunks that are not begun, `left`, ascending.

        It is the caller's to see that none of them is begun meanwhile. Where it fails the memory is only held longer.
        """
        first = written.cache_offset // HUGE_PAGE * HUGE_PAGE
        last = -(-(written.cache_offset + written.length) // HUGE_PAGE) * HUGE_PAGE
        for start, end in _joined((each.cache_offset, each.cache_offset + each.length) for each in left):
            low, high = max(start, first), min(end, last)
            if low < high:
                with contextlib.suppress(OSError):
                    linux.punch_hole(self.fd, low, high - low)

    def take_wanted(self) -> int | None:
        """The index of a chunk that a reader waits for, for the copier to take next."""
        with self._changed:
            while self._wanted:
                index = self._wanted.popleft()
                if not self._published[index]:
                    return index
        return None

    def resident_bytes(self) -> int:
        """Memory the file takes: st_blocks on tmpfs; on disk what cachestat(2) said of each chunk when published.

        With that of its spill.
        """
        own = os.fstat(self.fd).st_blocks * 512 if self.on_tmpfs else self._cached
        return own + (self._spill.resident_bytes() if self._spill is not None else 0)

    def read(self, offset: int, length: int, deadline: float | None = None) -> bytes:
        """Bytes of the packed file, once the chunks that hold them are published; of a stranded build at once.

        Raises BuildFailedError when the build fails, also while waiting; TimeoutError after `deadline` seconds.
        """
        end = None if deadline is None else time.monotonic() + deadline
        first = bisect.bisect_right(self._offsets, offset) - 1
        last = bisect.bisect_right(self._offsets, offset + length - 1) - 1
        if offset < 0 or length <= 0 or offset + length > self.length:
            raise TruncatedError(
                f"build {self.build} has {self.length} bytes: [{offset}, {offset + length}) is not there"
            )
        for index in range(first, last + 1):
            self._wait_for(index, end)
        with self._reading() as read:  # held over the memfd too: it is closed after these files
            data = self._stranded_bytes(read, offset, length) if self._left else read(offset, length)
        if len(data) != length:
            raise TruncatedError(f"the cache of build {self.build} ended at byte {offset + len(data)}")
        return data

    def _stranded_bytes(self, read: Callable[[int, int], bytes], offset: int, length: int) -> bytes:
        """The memfd first, then a look at whether the chunk was published: it may be punched from then on."""
        pieces, end = [], offset + length
        for index, (start, size) in enumerate(self.chunks()):
            low, high = max(offset, start), min(end, start + size)
            if low >= high:
                continue
            piece = self._left(index) if self._left is not None and not self._published[index] else None
            if piece is None or self._is_published_by_now(index):
                pieces.append(read(low, high - low))
            else:
                pieces.append(piece[low - start : high - start])
        return b"".join(pieces)

    def _is_published_by_now(self, index: int) -> bool:
        return self._published[index]

    def is_published(self, index: int) -> bool:
        """Whether readers have the chunk from the file."""
        with self._changed:
            return self._published[index]

    def withdraw(self, index: int) -> None:
        """What the file holds of the chunk is not what was written to it: it is to be copied again."""
        with self._changed:
            self._published[index] = False
            self._is_rewritten = True

    def strand(self, left: Callable[[int], bytes]) -> None:
        """The copy stopped and may go on later: readers get from `left` what is not published, and wait no more."""
        with self._changed:
            self._left = left
            self._changed.notify_all()

    def chunks(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of each chunk in the packed file."""
        return zip(self._offsets, self._lengths, strict=True)

    def digest(self, index: int) -> bytes:
        """Of a published chunk; empty where a stranded build's was never written."""
        return self.digests[index]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Callable[[int, int], bytes]]:
        """How bytes are read, by offset and length: `close` waits for it; then a finished build is opened by name."""
        with self._changed:
            self._raise_failure()  # it may have failed, and be deleted, since the chunk was published
            fd = self.fd
            self._readers += fd >= 0
        if fd < 0:
            with contextlib.ExitStack() as opened:
                file = opened.enter_context(open(self.final / MEMFILE, "rb", buffering=0))
                spill_fd = open_linked(self.final) if self.spilled else -1
                if spill_fd >= 0:
                    opened.callback(os.close, spill_fd)
                yield partial(read_packed, file.fileno(), spill_fd, self._spilled)
            return
        try:
            yield partial(self._read_open, fd)
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    def _read_open(self, fd: int, offset: int, length: int) -> bytes:
        """The spill is opened before anything lies in it, which may be while this is read: so it is asked for last."""
        spilled = self._spilled
        return read_packed(fd, self._spill_fd, spilled, offset, length)

    def _wait_for(self, index: int, end: float | None) -> None:
        timeout = None if end is None else max(0.0, end - time.monotonic())
        with self._changed:
            if not self._published[index] and self._error is None:
                self._wanted.append(index)
            if not self._changed.wait_for(lambda: self._is_readable(index), timeout):
                raise TimeoutError(f"chunk {index} of build {self.build} was not published in time")
            self._raise_failure()

    def _is_readable(self, index: int) -> bool:
        return self._published[index] or self._left is not None or self._error is not None

    def _raise_failure(self) -> None:
        if self._error is not None:
            raise BuildFailedError(f"build {self.build} failed: {self._error}") from self._error

    def finish(self) -> None:
        """Give the folder its final name, all at once; raises OSError."""
        os.rename(self.folder, self.final)
        if self._spill is not None and not self.spilled:
            self._spill.remove(self.final)

    def give_zeros_back(self) -> None:
        """Pages that hold nothing were left out, but lie in huge pages that hold something.

        Before the header is written: of a file that is changed after it, all chunks would be compared at each pause.
        """
        if not self.has_huge_pages:
            return
        with contextlib.suppress(OSError):
            for first, end in runs_of(self.zeros()):
                linux.punch_hole(self.fd, first * PAGE, (end - first) * PAGE)

    def has_its_name(self) -> bool:
        """True where the folder is known to have its final name, whatever `finish` reported."""
        if not self._made or not self.is_gone():
            return False
        try:
            os.stat(self.final)
        except OSError:
            return False
        return True

    def is_gone(self) -> bool:
        """True where the unfinished folder is known not to be there: a disk that cannot be asked says nothing."""
        try:
            os.stat(self.folder)
        except OSError as error:
            return isinstance(error, FileNotFoundError | NotADirectoryError)
        return False

    def fail(self, error: BaseException) -> None:
        """The build will never be: wake every reader with the error and delete what was written."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()
        if self._made:
            remove_folder(self.folder)

    def close(self) -> None:
        """Close the file once no reader is in the middle of it; harmless when already closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._readers == 0)
            fd, self.fd = self.fd, -1
        if self._spill is not None:
            self._spill.close()
        if fd >= 0:
            os.close(fd)


def _takes_huge_pages(fd: int) -> bool:
    """Whether the tmpfs of an empty file gives it any: st_blksize says so of a file that is long enough."""
    with contextlib.suppress(OSError):  # a limit of the file's size
        os.ftruncate(fd, HUGE_PAGE)
        takes = os.fstat(fd).st_blksize >= HUGE_PAGE
        os.ftruncate(fd, 0)
        return takes
    return False


def _joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """[start, end) of neighbours as one."""
    whole: tuple[int, int] | None = None
    for start, end in ranges:
        if whole is not None and start != whole[1]:
            yield whole
            whole = None
        whole = (whole[0] if whole else start), end
    if whole is not None:
        yield whole
