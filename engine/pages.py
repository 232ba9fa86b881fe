"""Pages of 4 KiB that hold nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PAGE = 4096
_WORDS = PAGE // 8


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
