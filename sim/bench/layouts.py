"""Which blocks of a guest's memory are dirty, by name. Pure, and light enough for a guest to import."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import pairwise

FULL = "full"
HALF_IN_ONE_RUN = "half-in-one-run"
EVERY_SECOND = "every-second-block"
SCATTERED_10 = "scattered-10%"
SCATTERED_50 = "scattered-50%"
CLEAN_90 = "clean-90%"
"""All memory is resident, a tenth of it dirty, the rest clean: as a finished parent build holds it."""

COPIED = (FULL, HALF_IN_ONE_RUN, EVERY_SECOND, SCATTERED_10, CLEAN_90)

Runs = list[tuple[int, int]]


def has_parent(layout: str) -> bool:
    """True where clean blocks are resident, so that a parent build must hold them."""
    return layout == CLEAN_90


def dirty_runs(layout: str, blocks: int) -> Runs:
    """(first block, count) of each run of dirty blocks, ascending; the same at every call. KeyError: no such layout."""
    shares = {SCATTERED_10: 0.1, CLEAN_90: 0.1, SCATTERED_50: 0.5}
    if layout == FULL:
        return [(0, blocks)]
    if layout == HALF_IN_ONE_RUN:
        return [(0, max(1, blocks // 2))]
    if layout == EVERY_SECOND:
        return [(block, 1) for block in range(0, blocks, 2)]
    count = max(1, round(blocks * shares[layout]))
    return joined(sorted(random.Random(layout).sample(range(blocks), count)))


def joined(blocks: Iterable[int]) -> Runs:
    """Ascending blocks as runs of neighbours."""
    chosen = list(blocks)
    if not chosen:
        return []
    edges = [0, *(at for at, (one, other) in enumerate(pairwise(chosen), 1) if other != one + 1), len(chosen)]
    return [(chosen[low], high - low) for low, high in pairwise(edges)]
