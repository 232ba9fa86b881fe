"""What the guest wrote since the parent: asked of the kernel, never of the guest where that can be had."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pyroaring import BitMap

from engine import linux
from engine.incarnation import GuestProcess
from engine.memfd import Memfd, ProcessMemory
from engine.ranges import Blocks, from_ranges

RESIDENT = "resident-blocks"


@dataclass(frozen=True, slots=True)
class DirtySet:
    """Blocks written since the parent and blocks known to be zero; `tracker` names how they were learned."""

    dirty: Blocks
    empty: Blocks
    tracker: str
    scan_ms: float


class Tracker(Protocol):
    """A way to learn the written blocks of one guest; None says that it cannot answer."""

    name: str

    def written(self, *, rearm: bool) -> Blocks | None: ...

    def close(self) -> None: ...


class WriteProtectScan:
    """userfaultfd write-protection in the guest, PAGEMAP_SCAN from here (Linux 6.7)."""

    name = "write-protect-scan"

    def __init__(self, pid: int, address: int, memfd: Memfd, block_size: int) -> None:
        self._pid = pid
        self._address = address
        self._memfd = memfd
        self._block_size = block_size
        self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)

    def written(self, *, rearm: bool) -> Blocks | None:
        """Written blocks; None where the guest's one mapping of its memory is not as it was made."""
        if not self._mapping_is_whole():
            return None
        try:
            ranges = linux.scan_written(self._pagemap, self._address, self._memfd.size, rearm=rearm)
        except OSError:
            return None
        return from_ranges(ranges.starts, ranges.ends, self._block_size)

    def _mapping_is_whole(self) -> bool:
        """The memfd is mapped once, whole, at its address: a second mapping or a munmap would hide writes."""
        spans = []
        try:
            with open(f"/proc/{self._pid}/maps", "rb") as file:
                for line in file:
                    fields = line.split(maxsplit=5)
                    if int(fields[4]) == self._memfd.inode and b"memfd:" in line:
                        spans.append(tuple(int(x, 16) for x in fields[0].split(b"-")))
        except OSError:  # gone, or made itself unreadable (PR_SET_DUMPABLE 0)
            return False
        return spans == [(self._address, self._address + self._memfd.size)]

    def close(self) -> None:
        os.close(self._pagemap)


class SharedBitmap:
    """One byte a page in memory shared with the guest, set by the guest: where the kernel refuses write-protection."""

    name = "shared-bitmap"

    def __init__(self, fd: int, offset: int, pages: int, page_size: int, block_size: int) -> None:
        self._fd = fd
        self._offset = offset
        self._pages = pages
        self._page_size = page_size
        self._block_size = block_size

    def written(self, *, rearm: bool) -> Blocks | None:
        """Written blocks as the guest noted them; `rearm` clears them."""
        data = os.pread(self._fd, self._pages, self._offset)
        if len(data) != self._pages:
            return None
        pages = np.flatnonzero(np.frombuffer(data, dtype=np.uint8))
        if rearm:
            os.pwrite(self._fd, bytes(self._pages), self._offset)
        starts = pages.astype(np.uint64) * np.uint64(self._page_size)
        return from_ranges(starts, starts + np.uint64(self._page_size), self._block_size)

    def close(self) -> None:
        """The fd belongs to the caller."""


class Forgotten:
    """For a guest whose parent build cannot be read: no answer, so that everything resident is taken for dirty."""

    name = "forgotten"

    def written(self, *, rearm: bool) -> Blocks | None:
        """None."""
        return None

    def close(self) -> None:
        """Nothing is held."""


def resident_blocks(memfd: Memfd | ProcessMemory, block_size: int) -> Blocks:
    """Blocks that hold data (SEEK_DATA; on hugetlb the kernel always says all data); all, where there is no fd."""
    if isinstance(memfd, ProcessMemory):
        return BitMap(range(memfd.size // block_size))
    found: Blocks = BitMap()
    offset = 0
    while offset < memfd.size:
        try:
            start = os.lseek(memfd.fd, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: no data after offset
            break
        offset = os.lseek(memfd.fd, start, os.SEEK_HOLE)
        found.add_range(start // block_size, -(-offset // block_size))
    return found


def scan(
    tracker: Tracker, guest: GuestProcess, memfd: Memfd | ProcessMemory, block_size: int, *, rearm: bool = False
) -> DirtySet:
    """The dirty set of a stopped guest. A pause does not re-arm, so that a roll-back forgets nothing.

    Where the tracker cannot answer, and a dead guest's answer is an empty list, every resident block is dirty and every
    other one zero.
    """
    begin = time.perf_counter()
    written = tracker.written(rearm=rearm)
    if written is None or guest.is_dead():
        dirty = resident_blocks(memfd, block_size)
        empty = BitMap(range(memfd.size // block_size)) - dirty
        return DirtySet(dirty, empty, RESIDENT, (time.perf_counter() - begin) * 1e3)
    return DirtySet(written, BitMap(), tracker.name, (time.perf_counter() - begin) * 1e3)
