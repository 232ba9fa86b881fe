"""Packed bytes in files: written without their zero pages, read from a cache and its spill as from one file."""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from engine import linux
from engine.pages import PAGE, read_pages, runs_of, zeros_of

Spilled = tuple[tuple[int, int], ...]
"""Ranges [start, end) of packed bytes that lie in the spill, at the same offsets; ascending, none touches the next."""


def write_packed(fd: int, data: memoryview, offset: int, *, is_hole: bool) -> NDArray[np.int64]:
    """Write `data` at `offset` of a file without its zero pages, which stay holes; gives their page numbers in it.

    `is_hole`: nothing was ever written or reserved there. Raises OSError as the kernel says.
    """
    zero, start = zeros_of(data), 0
    for first, end in runs_of(zero):
        _write(fd, data[start : first * PAGE], offset + start)
        _leave_out(fd, offset + first * PAGE, (end - first) * PAGE, is_hole=is_hole)
        start = end * PAGE
    _write(fd, data[start:], offset + start)
    return zero + offset // PAGE


def _write(fd: int, data: memoryview, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)


def _leave_out(fd: int, offset: int, length: int, *, is_hole: bool) -> None:
    """A hole of the file, which reaches to its end at least: readers and the finished build ask for its length.

    What was written there is gone, and reserved space is given back; where the file system cannot, zeros are written.
    """
    end = offset + length
    is_longer = os.fstat(fd).st_size >= end
    if not is_longer:
        os.pwrite(fd, b"\0", end - 1)  # never shortens it, whatever the other worker writes meanwhile
    if not is_longer or not is_hole:
        try:
            linux.punch_hole(fd, offset, length)
        except OSError:
            _write(fd, memoryview(bytes(length)), offset)


def spilled_ranges(spilled: Iterable[int], chunks: Sequence[tuple[int, int]]) -> Spilled:
    """The ranges of these chunks, by their index; `chunks` are (offset, length) of all."""
    found: list[tuple[int, int]] = []
    for index in sorted(spilled):
        start, length = chunks[index]
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], start + length)
        else:
            found.append((start, start + length))
    return tuple(found)


def read_packed(fd: int, spill_fd: int, spilled: Spilled, offset: int, length: int) -> bytes:
    """Bytes out of whichever file holds them; fewer than `length` where one ends early. Raises OSError."""
    if not spilled:
        return os.pread(fd, length, offset)
    pieces = []
    for in_spill, start, end in _pieces(spilled, offset, offset + length):
        pieces.append(os.pread(spill_fd if in_spill else fd, end - start, start))
    return b"".join(pieces)


def _pieces(spilled: Spilled, offset: int, end: int) -> Iterator[tuple[bool, int, int]]:
    """[offset, end) in order, cut where it changes files: whether it lies in the spill, and its [start, end)."""
    at = offset
    for start, stop in spilled[bisect.bisect_right(spilled, offset, key=lambda each: each[1]) :]:
        if start >= end:
            break
        if at < start:
            yield False, at, start
            at = start
        yield True, at, min(stop, end)
        at = min(stop, end)
    if at < end:
        yield False, at, end


def read_packed_pages(
    fd: int, spill_fd: int, spilled: Spilled, buffer: memoryview, rows: NDArray[np.int64], pages: NDArray[np.int64]
) -> bool:
    """Pages of 4 KiB, ascending, each into its row of the buffer; False where a file ended early."""
    if not spilled:
        return read_pages(fd, buffer, rows, pages)
    starts, ends = (np.array(column, dtype=np.int64) // PAGE for column in zip(*spilled, strict=True))
    at = np.searchsorted(starts, pages, side="right") - 1
    inside = (at >= 0) & (pages < ends[at])
    return all(
        read_pages(from_fd, buffer, rows[which], pages[which])
        for from_fd, which in ((fd, ~inside), (spill_fd, inside))
        if which.any()
    )
