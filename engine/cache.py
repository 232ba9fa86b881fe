"""The packed file that receives a build's dirty blocks, readable chunk by chunk as they are published."""

from __future__ import annotations

import bisect
import contextlib
import errno
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine import linux
from engine.errors import BuildFailedError, TruncatedError
from engine.pages import PAGE, runs_of, zeros_of
from engine.ranges import Chunk

PARTIAL = ".partial"
MEMFILE = "memfile"
HUGE_PAGE = 2 << 20


class Cache:
    """One build being written in `<builds>/<build>.partial/`; the folder gets its final name when it is finished.

    Thread-safe: copiers write and publish, readers wait for the chunk they need only.
    """

    def __init__(self, builds: Path, build: str, chunks: Sequence[Chunk]) -> None:
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
        self.on_tmpfs = False
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
        zero, start = zeros_of(data), 0
        for first, end in runs_of(zero):
            self._write(data[start : first * PAGE], offset + start)
            self._leave_out(offset + first * PAGE, (end - first) * PAGE)
            start = end * PAGE
        self._write(data[start:], offset + start)
        if len(zero):
            with self._changed:
                self._zero.append(zero + offset // PAGE)

    def _write(self, data: memoryview, offset: int) -> None:
        done = 0
        while done < len(data):
            done += os.pwrite(self.fd, data[done:], offset + done)

    def _leave_out(self, offset: int, length: int) -> None:
        """A hole of the file, which reaches to its end at least: readers and the finished build ask for its length.

        Reserved space is given back; where the file system cannot, the range still reads as zeros.
        """
        end = offset + length
        is_longer = os.fstat(self.fd).st_size >= end
        if not is_longer:
            os.pwrite(self.fd, b"\0", end - 1)  # never shortens it, whatever the other worker writes meanwhile
        if not is_longer or not self.on_tmpfs:
            with contextlib.suppress(OSError):
                linux.punch_hole(self.fd, offset, length)

    def zeros(self) -> NDArray[np.int64]:
        """Pages of the packed file that hold nothing, ascending, by their number."""
        with self._changed:
            return np.unique(np.concatenate(self._zero)) if self._zero else np.empty(0, dtype=np.int64)

    def publish(self, chunk: Chunk) -> None:
        """The chunk's bytes are in the file: its readers may have them."""
        with self._changed:
            self._published[chunk.index] = True
            if not self.on_tmpfs:
                self._cached += self._cached_bytes(chunk)
            self._changed.notify_all()

    def _cached_bytes(self, chunk: Chunk) -> int:
        try:
            return linux.cached_bytes(self.fd, chunk.cache_offset, chunk.length)
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
        """Memory the file takes: st_blocks on tmpfs; on disk what cachestat(2) said of each chunk when published."""
        return os.fstat(self.fd).st_blocks * 512 if self.on_tmpfs else self._cached

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
        with self._reading() as fd:  # held over the memfd too: it is closed after this file
            data = self._stranded_bytes(fd, offset, length) if self._left else os.pread(fd, length, offset)
        if len(data) != length:
            raise TruncatedError(f"the cache of build {self.build} ended at byte {offset + len(data)}")
        return data

    def _stranded_bytes(self, fd: int, offset: int, length: int) -> bytes:
        """The memfd first, then a look at whether the chunk was published: it may be punched from then on."""
        pieces, end = [], offset + length
        for index, (start, size) in enumerate(self.chunks()):
            low, high = max(offset, start), min(end, start + size)
            if low >= high:
                continue
            piece = self._left(index) if self._left is not None and not self._published[index] else None
            if piece is None or self._is_published_by_now(index):
                pieces.append(os.pread(fd, high - low, low))
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
    def _reading(self) -> Iterator[int]:
        """The file for one read: `close` waits for it; after that a finished build is opened by its name."""
        with self._changed:
            self._raise_failure()  # it may have failed, and be deleted, since the chunk was published
            fd = self.fd
            self._readers += fd >= 0
        if fd < 0:
            with open(self.final / MEMFILE, "rb", buffering=0) as file:
                yield file.fileno()
            return
        try:
            yield fd
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

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
        if self.has_huge_pages:
            self._give_zeros_back()
        os.rename(self.folder, self.final)

    def _give_zeros_back(self) -> None:
        """Pages that hold nothing were left out, but lie in huge pages that hold something."""
        with contextlib.suppress(OSError):
            for first, end in runs_of(self.zeros()):
                linux.punch_hole(self.fd, first * PAGE, (end - first) * PAGE)

    def has_its_name(self) -> bool:
        """True where the folder got its final name, whatever `finish` reported."""
        return self._made and self.final.exists() and not self.folder.exists()

    def fail(self, error: BaseException) -> None:
        """The build will never be: wake every reader with the error and delete what was written."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()
        if self._made:
            shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Close the file once no reader is in the middle of it; harmless when already closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._readers == 0)
            fd, self.fd = self.fd, -1
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
