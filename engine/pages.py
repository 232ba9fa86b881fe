"""Pages of 4 KiB: which hold nothing, and many of them read at once."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

PAGE = 4096
_WORDS = PAGE // 8
_GAP = 4  # pages that are read along and dropped sooner than another call is made
_VECTORS = 512  # buffers a call, at most: half of IOV_MAX


def zero_pages(pages: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which rows are all zero; few need a full look: most pages begin or end with something."""
    zero: NDArray[np.bool_] = (pages[:, 0] | pages[:, -1]) == 0
    for page in np.flatnonzero(zero):
        zero[page] = not pages[page].any()
    return zero


def zeros_of(data: memoryview) -> NDArray[np.int64]:
    """The whole pages of `data` that are all zero, ascending, by their number."""
    whole = len(data) // PAGE * PAGE
    if not whole:
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(zero_pages(np.frombuffer(data[:whole], dtype=np.uint64).reshape(-1, _WORDS)))


def runs_of(pages: NDArray[np.int64]) -> list[tuple[int, int]]:
    """[first, end) of each run of neighbours."""
    if not len(pages):
        return []
    cuts = np.flatnonzero(np.diff(pages) != 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(pages, cuts)]


def read_pages(fd: int, buffer: memoryview, rows: NDArray[np.int64], pages: NDArray[np.int64]) -> bool:
    """Read pages of a file, ascending by number, each into its row of the buffer; few calls, whatever lies between.

    False where the file gave fewer bytes than asked for; raises OSError.
    """
    dropped = memoryview(bytearray(_GAP * PAGE))
    cuts = np.flatnonzero((np.diff(pages) != 1) | (np.diff(rows) != 1)) + 1
    firsts = np.concatenate(([0], cuts))
    counts = np.diff(firsts, append=len(pages)).tolist()
    vectors: list[memoryview] = []
    begin = end = 0  # in pages: what the next call will read
    for row, page, count in zip(rows[firsts].tolist(), pages[firsts].tolist(), counts, strict=True):
        if vectors and (page - end > _GAP or len(vectors) >= _VECTORS):
            if os.preadv(fd, vectors, begin * PAGE) != (end - begin) * PAGE:
                return False
            vectors = []
        if not vectors:
            begin = page
        elif page > end:
            vectors.append(dropped[: (page - end) * PAGE])
        vectors.append(buffer[row * PAGE : (row + count) * PAGE])
        end = page + count
    return not vectors or os.preadv(fd, vectors, begin * PAGE) == (end - begin) * PAGE
