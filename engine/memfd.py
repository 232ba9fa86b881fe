"""A guest's memory, in a memfd or read out of its process."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from engine import linux
from engine.errors import NotAMemfdError, PunchRefusedError, TruncatedError
from engine.incarnation import PunchPermit
from engine.pages import PAGE, read_pages
from engine.ranges import Chunk, from_indexes, runs

_SIZE_SEALS = linux.SEAL_SHRINK | linux.SEAL_GROW


def seal_size(fd: int) -> None:
    """Seal a memfd against resizing, unless it is sealed so: VMMs add F_SEAL_SEAL too, and then none can be added.

    Raises OSError: EINVAL for what is no memfd, EPERM where it lacks a seal and takes none.
    """
    lacking = _SIZE_SEALS & ~linux.seals_of(fd)
    if lacking:
        linux.add_seals(fd, lacking)


class Memfd:
    """Owns the fd of a memfd whose size can no longer change. Sizes and offsets in bytes.

    Made by `adopt`. `page_size` is the unit the kernel frees (fstatvfs f_bsize: 4 KiB shmem, 2 MiB hugetlb).
    """

    def __init__(self, fd: int, size: int, page_size: int, seals: int, inode: int) -> None:
        self.fd = fd
        self.size = size
        self.page_size = page_size
        self.seals = seals
        self.inode = inode

    @classmethod
    def adopt(cls, fd: int, size: int) -> Memfd:
        """Take ownership of a received fd, trusting nothing: a memfd of `size` bytes, sealed against resizing here.

        Raises NotAMemfdError (the fd is closed). A memfd that lacks a seal and takes none is refused.
        """
        try:
            return cls._checked(fd, size)
        except (OSError, NotAMemfdError) as error:
            os.close(fd)
            if isinstance(error, OSError):
                raise NotAMemfdError(f"the guest's fd cannot be sealed as a memfd: {error.strerror}") from error
            raise

    @classmethod
    def _checked(cls, fd: int, size: int) -> Memfd:
        if not os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:"):
            raise NotAMemfdError("the guest's fd is not a memfd")
        seal_size(fd)  # before the size is read: it cannot change afterwards
        status = os.fstat(fd)
        page_size = os.fstatvfs(fd).f_bsize
        if status.st_size != size or size % page_size:
            raise NotAMemfdError(f"the guest's memfd has {status.st_size} bytes, expected {size} in whole pages")
        return cls(fd, size, page_size, linux.seals_of(fd), status.st_ino)

    def refresh_seals(self) -> int:
        """The seals as they are now: a guest may add more at any time."""
        self.seals = linux.seals_of(self.fd)
        return self.seals

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill the whole buffer from `offset`; raises TruncatedError at the file's end, else OSError."""
        done = 0
        while done < len(buffer):
            count = os.preadv(self.fd, [buffer[done:]], offset + done)
            if count == 0:
                raise TruncatedError(f"the memfd ended at byte {offset + done}")
            done += count

    def read_span(self, buffer: memoryview, offset: int, chunk: Chunk) -> None:
        """Fill the whole buffer: a hole costs nothing to read from the fd (pread does not allocate)."""
        self.read_into(buffer, offset)

    def read_pages(self, buffer: memoryview, pages: NDArray[np.int64]) -> None:
        """Fill the buffer with these pages of 4 KiB, ascending by number; TruncatedError at the file's end."""
        if not read_pages(self.fd, buffer, np.arange(len(pages)), pages):
            raise TruncatedError(f"the memfd ended before page {int(pages[-1])}")

    def write_from(self, buffer: memoryview, offset: int) -> None:
        """Write the whole buffer at `offset`; for filling a fresh shmem memfd (hugetlb refuses write(2): EINVAL)."""
        done = 0
        while done < len(buffer):
            done += os.pwrite(self.fd, buffer[done:], offset + done)

    def resident_bytes(self) -> int:
        """Memory that the kernel holds for this memfd (st_blocks)."""
        return os.fstat(self.fd).st_blocks * 512

    def punch(self, offset: int, length: int, permit: PunchPermit) -> None:
        """Free [offset, offset+length) for every mapping of this memfd; cannot be undone.

        Raises PunchRefusedError (nothing freed) without an open permit for this very memfd, outside the file, or
        unaligned to the page size (hugetlb would zero without freeing); OSError as the kernel says.
        """
        if type(permit) is not PunchPermit or permit.incarnation.memfd_inode != self.inode:
            raise PunchRefusedError("this memfd's incarnation is not condemned")
        if not permit.is_open:
            raise PunchRefusedError("this memfd's guest is not known to be dead")
        if offset < 0 or length <= 0 or offset + length > self.size:
            raise PunchRefusedError(f"[{offset}, {offset + length}) lies outside the file of {self.size} bytes")
        if offset % self.page_size or length % self.page_size:
            raise PunchRefusedError(f"[{offset}, {offset + length}) is not aligned to pages of {self.page_size} bytes")
        linux.punch_hole(self.fd, offset, length)

    def close(self) -> None:
        """Close the fd; harmless when already closed."""
        fd, self.fd = self.fd, -1  # also where close(2) reports an error: the fd is gone then
        if fd >= 0:
            os.close(fd)


_BATCH_BYTES = (2 << 30) - (4 << 10)  # process_vm_readv moves less than 2 GiB a call


class ProcessMemory:
    """`size` bytes at `address` of process `pid`; `page_size` is the kernel's for that mapping."""

    def __init__(self, pid: int, address: int, size: int, page_size: int) -> None:
        self.pid = pid
        self.size = size
        self.page_size = page_size
        self._address = address

    def read_span(self, buffer: memoryview, offset: int, chunk: Chunk) -> None:
        """Fill `buffer`, which begins at byte `offset` of memory, with the chunk's dirty blocks, each in its place.

        Only they are read: reading a hole through a mapping would allocate it (measured). Raises OSError as
        process_vm_readv(2) says, TruncatedError where it stops early.
        """
        block = chunk.length // len(chunk.blocks)
        left = [(first * block - offset, count * block) for first, count in runs(from_indexes(chunk.blocks))]
        while left:
            batch, left = _first_batch(left)
            got = self._some(linux.read_process(self.pid, buffer, self._address + offset, batch), batch)
            left = _after(batch, got) + left

    def read_pages(self, buffer: memoryview, pages: NDArray[np.int64]) -> None:
        """Fill the buffer with these pages of 4 KiB, ascending by number; raises as `read_span` does."""
        left = [(first * PAGE, count * PAGE) for first, count in runs(from_indexes(pages.astype(np.uint32)))]
        while left:
            batch, left = _first_batch(left)
            got = self._some(linux.read_process_packed(self.pid, buffer, self._address, batch), batch)
            buffer, left = buffer[got:], _after(batch, got) + left

    def _some(self, got: int, batch: list[tuple[int, int]]) -> int:
        if got == 0:
            raise TruncatedError(f"process {self.pid} gave nothing of {sum(length for _, length in batch)} bytes")
        return got

    def resident_bytes(self) -> int | None:
        """None: there is no fd to ask."""
        return None

    def refresh_seals(self) -> int:
        """0: there is no fd to seal."""
        return 0

    def close(self) -> None:
        """Nothing is owned."""


def _first_batch(left: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """As many runs as one call takes."""
    total, count = 0, 0
    while count < min(len(left), linux.IOV_MAX) and total + left[count][1] <= _BATCH_BYTES:
        total += left[count][1]
        count += 1
    return left[: max(count, 1)], left[max(count, 1) :]


def _after(batch: list[tuple[int, int]], got: int) -> list[tuple[int, int]]:
    """What of the batch a call that read `got` bytes has left."""
    for index, (offset, length) in enumerate(batch):
        if got < length:
            return [(offset + got, length - got), *batch[index + 1 :]]
        got -= length
    return []
