"""What the guest wrote since the parent, as the kernel reports it; the guest's own list only if the kernel has none."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from engine import linux
from engine.holders import Holders
from engine.incarnation import GuestProcess
from engine.mapping import NIL, Mapping
from engine.memfd import Memfd, ProcessMemory
from engine.pages import PAGE
from engine.ranges import Blocks, from_indexes, from_ranges, in_smaller_blocks, indexes

RESIDENT = "resident-blocks"


@dataclass(frozen=True, slots=True)
class DirtySet:
    """Blocks written since the parent and blocks known to be zero; `tracker` names how they were learned."""

    dirty: Blocks
    empty: Blocks
    tracker: str
    scan_ms: float
    why: str | None = None
    """Why the guest's own tracker was not believed."""


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
        try:
            shared = linux.shared_mappings(self._pid)
        except OSError:  # gone, or made itself unreadable (PR_SET_DUMPABLE 0)
            return False
        inode = self._memfd.inode
        spans = [(each.start, each.end) for each in shared if each.inode == inode and each.name.startswith(b"/memfd:")]
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
    """For a guest whose parent build cannot be read, or whose writes may be unknown: everything resident is dirty."""

    name = "forgotten"

    def written(self, *, rearm: bool) -> Blocks | None:
        """None."""
        return None

    def close(self) -> None:
        """Nothing is held."""


def resident_blocks(memfd: Memfd | ProcessMemory, block_size: int) -> Blocks:
    """Blocks that hold data (on hugetlb the kernel does not say: all of them); all, where there is no fd."""
    if isinstance(memfd, ProcessMemory) or (pages := resident(memfd)) is None:
        return BitMap(range(memfd.size // block_size))
    blocks = pages.reshape(-1, block_size // PAGE).any(axis=1)
    return from_indexes(np.flatnonzero(blocks).astype(np.uint32))


def resident(memfd: Memfd) -> NDArray[np.bool_] | None:
    """Which pages of 4 KiB the kernel holds data for; None on hugetlb, where it has no such report.

    A full memfd needs no look; else mincore, and where that reports fewer pages than the memfd holds (swapped pages),
    a walk from hole to hole.
    """
    if memfd.page_size > PAGE:
        return None
    count, held = memfd.size // PAGE, memfd.resident_bytes() // PAGE
    if held >= count:
        return np.ones(count, dtype=bool)
    try:
        pages = linux.resident_pages(memfd.fd, memfd.size)
    except OSError:
        return _walked(memfd)
    return pages if np.count_nonzero(pages) == held else _walked(memfd)


def _walked(memfd: Memfd) -> NDArray[np.bool_]:
    """By SEEK_DATA, on an open file description of our own: the guest's own file offset is not ours to move."""
    pages = np.zeros(memfd.size // PAGE, dtype=bool)
    fd = os.open(f"/proc/self/fd/{memfd.fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        offset = 0
        while offset < memfd.size:
            start = os.lseek(fd, offset, os.SEEK_DATA)
            offset = os.lseek(fd, start, os.SEEK_HOLE)
            pages[start // PAGE : -(-offset // PAGE)] = True
    except OSError as error:
        if error.errno != errno.ENXIO:  # no data after offset
            raise
    finally:
        os.close(fd)
    return pages


def in_pages(found: DirtySet, memfd: Memfd, parent: Mapping, block_size: int) -> DirtySet | None:
    """The dirty set in pages of 4 KiB, with what the guest freed: a hole where the parent's page holds data is empty.

    A hole in a dirty block is empty too, so that of a sparse large block only what is there is stored. None where there
    is no hole and nothing to refine, or where the kernel reports no holes (hugetlb: see `freed_unseen`).
    """
    stored = stored_pages(parent)
    if not stored.any() and block_size == PAGE and found.tracker != RESIDENT:
        return None  # what is a hole is zero in the parent as well
    held = resident(memfd)
    if held is None or held.all():
        return None
    dirty = np.zeros(len(held), dtype=bool)
    dirty[indexes(in_smaller_blocks(found.dirty, block_size // PAGE))] = True
    gone = np.zeros(len(held), dtype=bool)
    gone[indexes(in_smaller_blocks(found.empty, block_size // PAGE))] = True
    empty = ~held & (dirty | stored | gone)
    kept = from_indexes(np.flatnonzero(dirty & held).astype(np.uint32))
    return replace(found, dirty=kept, empty=from_indexes(np.flatnonzero(empty).astype(np.uint32)))


def freed_unseen(found: DirtySet, memfd: Memfd, parent: Mapping, block_size: int) -> bool:
    """On hugetlb: True where fewer pages are there than must be, so that the guest has freed some, and none says which.

    One that was freed and touched again is not seen: what is assumed of a guest is in docs/safety.md.
    """
    if memfd.page_size == PAGE:
        return False
    per_page = memfd.page_size // PAGE
    must = stored_pages(parent)
    must[indexes(in_smaller_blocks(found.dirty, block_size // PAGE))] = True
    return bool(memfd.resident_bytes() < np.count_nonzero(must.reshape(-1, per_page).any(axis=1)) * memfd.page_size)


def stored_pages(parent: Mapping) -> NDArray[np.bool_]:
    """Which pages of 4 KiB the parent holds anything of but zeros."""
    rows = parent.extents
    kept = rows.build != NIL
    edges = np.zeros(parent.size // PAGE + 1, dtype=np.int32)
    np.add.at(edges, rows.offset[kept] // PAGE, 1)
    np.add.at(edges, (rows.offset[kept] + rows.length[kept]) // PAGE, -1)
    return np.cumsum(edges)[:-1] > 0


def scan(
    tracker: Tracker, guest: GuestProcess, memfd: Memfd | ProcessMemory, block_size: int, *, rearm: bool = False
) -> DirtySet:
    """The dirty set of a stopped guest. A pause does not re-arm, so that a roll-back forgets nothing.

    Where the tracker cannot answer, where a dead guest's answer is an empty list, and where another process may have
    written, every resident block is dirty and every other one zero.
    """
    begin = time.perf_counter()
    why = _other_writers(guest, memfd)
    written = tracker.written(rearm=rearm)
    if written is None or guest.is_dead():
        why = why or f"{tracker.name} cannot answer"
    if why is None and written is not None:
        return DirtySet(written, BitMap(), tracker.name, (time.perf_counter() - begin) * 1e3)
    dirty = resident_blocks(memfd, block_size)
    empty = BitMap(range(memfd.size // block_size)) - dirty
    return DirtySet(dirty, empty, RESIDENT, (time.perf_counter() - begin) * 1e3, why)


_HOLDERS = Holders()


def _other_writers(guest: GuestProcess, memfd: Memfd | ProcessMemory) -> str | None:
    """Which other process may have written, as far as the host lets us see; None if none is seen."""
    if children := guest.children():
        return f"the guest has forked: process {children[0]} shares its memory"
    if isinstance(memfd, ProcessMemory) or os.geteuid() != 0:
        return None
    others = _HOLDERS.of(memfd.inode, {guest.incarnation.pid, os.getpid()})
    return f"process {min(others)} holds the memory, too" if others else None
