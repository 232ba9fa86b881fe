"""Block bitmaps and what is cut from them: runs, chunks, whole pages. Pure.

A block is an int, its index in memory; a set of blocks is a roaring bitmap. A byte range is
[start, end) where two names say so, else (offset, length).
"""

from __future__ import annotations

import array
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from engine.errors import EngineError

Blocks = BitMap

SPAN = 2 << 20
MAX_BLOCKS = 1 << 32
_FEW = 64  # ranges up to which a loop is faster than building every index


class RangeError(EngineError, ValueError):
    """A size, an alignment or a range that cannot be cut into blocks or pages."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """The unit of copying: a span of the memfd and where its dirty blocks go in the cache.

    `index` is the 0-based position in the plan. `start` and `end` are bytes in the memfd, multiples of the
    page size except for an `end` at the file's own end. `blocks` are the dirty block indexes in the span,
    ascending, read-only. Packed, they are the `length` bytes at `cache_offset`.
    """

    index: int
    start: int
    end: int
    blocks: NDArray[np.uint32]
    cache_offset: int
    length: int


def indexes(blocks: Blocks) -> NDArray[np.uint32]:
    """Block indexes, ascending, as a read-only array."""
    found = np.frombuffer(blocks.to_array(), dtype=np.uint32)
    found.flags.writeable = False
    return found


def from_indexes(blocks: NDArray[np.uint32]) -> Blocks:
    """The set of these block indexes, in any order, repeated or not."""
    # pyroaring has a bulk constructor for array.array only; a numpy array is iterated, eight times slower.
    return BitMap(array.array("I", blocks.tobytes()))


def in_smaller_blocks(blocks: Blocks, per_block: int) -> Blocks:
    """The same bytes as a set of blocks that are `per_block` times smaller."""
    if per_block == 1:
        return blocks
    inner = np.arange(per_block, dtype=np.uint32)
    return from_indexes((indexes(blocks)[:, None] * np.uint32(per_block) + inner).reshape(-1))


def run_columns(blocks: Blocks) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First block and count of each run of neighbouring blocks, ascending, as two columns."""
    found = indexes(blocks).astype(np.int64)
    starts_run = np.diff(found, prepend=-2) != 1
    firsts = np.flatnonzero(starts_run)
    return found[firsts], np.diff(firsts, append=len(found))


def runs(blocks: Blocks) -> list[tuple[int, int]]:
    """(first block, count) of each run of neighbouring blocks, ascending."""
    firsts, counts = run_columns(blocks)
    return list(zip(firsts.tolist(), counts.tolist(), strict=True))


def from_ranges(starts: NDArray[np.integer[Any]], ends: NDArray[np.integer[Any]], block_size: int) -> Blocks:
    """Every block that a byte range [start, end) touches; an empty range touches none.

    The ranges may come in any order and overlap. Raises RangeError for one that is negative, ends before it
    starts, or lies past 2^32 blocks.
    """
    _require_size("block size", block_size)
    low, high = starts.astype(np.int64), ends.astype(np.int64)
    _require_ranges(low, high, block_size)
    if len(low) <= _FEW:
        found = BitMap()
        for start, end in zip(low.tolist(), high.tolist(), strict=True):
            if end > start:
                found.add_range(start // block_size, -(-end // block_size))
        return found
    firsts = low // block_size
    counts = np.where(high > low, -(-high // block_size) - firsts, 0)
    skipped = firsts - (np.cumsum(counts) - counts)
    return from_indexes((np.repeat(skipped, counts) + np.arange(counts.sum())).astype(np.uint32))


def chunks(dirty: Blocks, size: int, block_size: int, page_size: int, span: int = SPAN) -> list[Chunk]:
    """Cut a memfd of `size` bytes into aligned spans; each span that holds a dirty block is a chunk.

    A span is the largest of `span`, the page size and the block size, so that every page and every block
    lies in exactly one. The cache offsets count all dirty blocks in ascending order. Raises RangeError
    where the sizes do not divide so, or a block lies outside the file.
    """
    span = max(span, page_size, block_size)
    _require_layout(dirty, size, block_size, page_size)
    _require_multiple("span", span, "page size", page_size)
    _require_multiple("span", span, "block size", block_size)
    if not dirty:
        return []
    blocks = indexes(dirty)
    spans = blocks // (span // block_size)
    edges = [0, *(np.flatnonzero(np.diff(spans)) + 1).tolist(), len(blocks)]
    made = []
    for index, (low, high) in enumerate(pairwise(edges)):
        start = int(spans[low]) * span
        end = min(start + span, size)
        made.append(Chunk(index, start, end, blocks[low:high], low * block_size, (high - low) * block_size))
    return made


def whole_pages(start: int, end: int, page_size: int, size: int) -> tuple[int, int] | None:
    """(start, end) in bytes of the whole pages inside [start, end) and the file; None where there is none.

    An end, not a length: the answer is a smaller [start, end). A hole punch frees whole pages only: a part of a
    hugetlb page is zeroed and not freed (kernel: hugetlbfs_punch_hole).
    """
    _require_size("page size", page_size)
    if start < 0:
        raise RangeError(f"a range starts at {start}: give an offset of 0 or more")
    first = -(-start // page_size) * page_size
    last = min(end, size) // page_size * page_size
    return (first, last) if first < last else None


def _require_layout(dirty: Blocks, size: int, block_size: int, page_size: int) -> None:
    _require_size("block size", block_size)
    _require_size("page size", page_size)
    if size < 0:
        raise RangeError(f"file size {size} is negative")
    _require_multiple("file size", size, "block size", block_size)
    if dirty and dirty.max() >= size // block_size:
        raise RangeError(
            f"dirty block {dirty.max()} lies outside the file: {size} bytes hold {size // block_size} blocks"
        )


def _require_ranges(starts: NDArray[np.int64], ends: NDArray[np.int64], block_size: int) -> None:
    wrong = (starts < 0) | (ends < starts) | (ends > MAX_BLOCKS * block_size)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise RangeError(
            f"range {at} is [{starts[at]}, {ends[at]}): want 0 <= start <= end <= {MAX_BLOCKS * block_size}"
        )


def _require_size(name: str, value: int) -> None:
    if value <= 0:
        raise RangeError(f"{name} is {value}: give a positive number of bytes")


def _require_multiple(name: str, value: int, unit_name: str, unit: int) -> None:
    if value % unit:
        raise RangeError(f"{name} {value} is not a multiple of the {unit_name} {unit}")
