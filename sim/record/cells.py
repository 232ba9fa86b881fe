"""Memory as at most 1,024 cells of the same size, each dirty, partly dirty, clean or zero. Pure."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.mapping import NIL, Mapping
from engine.ranges import Blocks, indexes

if TYPE_CHECKING:  # a recording is also read on machines that lack Linux's own calls
    from engine.dirty import DirtySet

MOST_CELLS = 1024


def cells_of(found: DirtySet, block_size: int, parent: Mapping) -> str:
    """The runs of MemoryMapped: `12d 4c 100z 3m`. Zero is memory known to be zero, and memory that the parent holds as
    zeros."""
    blocks = parent.size // block_size
    per_cell = cell_size(parent.size, block_size) // block_size
    count = -(-blocks // per_cell)
    sizes = np.minimum(per_cell, blocks - np.arange(count) * per_cell)
    dirty = _counts(found.dirty, per_cell, count)
    empty = _counts(found.empty - found.dirty, per_cell, count)
    stored = _stored(parent, per_cell * block_size, count)
    letters = np.select([dirty == sizes, dirty > 0, (empty == sizes) | ~stored], ["d", "m", "z"], "c")
    return " ".join(f"{len(list(run))}{letter}" for letter, run in groupby(letters.tolist()))


def cell_size(memory: int, block_size: int) -> int:
    """Bytes of memory that one cell stands for."""
    blocks = -(-memory // block_size)
    return max(1, -(-blocks // MOST_CELLS)) * block_size


def _counts(blocks: Blocks, per_cell: int, count: int) -> NDArray[np.int64]:
    return np.bincount(indexes(blocks) // per_cell, minlength=count)[:count]


def _stored(parent: Mapping, cell: int, count: int) -> NDArray[np.bool_]:
    """Which cells the parent holds anything in except zeros."""
    rows = parent.extents
    kept = (rows.build != NIL) & (rows.length > 0)
    edges = np.zeros(count + 1, dtype=np.int64)
    np.add.at(edges, rows.offset[kept] // cell, 1)
    np.add.at(edges, -(-(rows.offset[kept] + rows.length[kept]) // cell), -1)
    return np.cumsum(edges)[:count] > 0


def read_cells(runs: str) -> str:
    """One letter a cell."""
    return "".join(int(run[:-1]) * run[-1] for run in runs.split())
