"""What one pause has to do, and the header that it makes of that. Pure, except that it asks a cache what is in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from engine import mapping as maps
from engine.cache import Cache
from engine.dirty import DirtySet
from engine.mapping import Mapping as MemoryMapping
from engine.pages import PAGE
from engine.plan import PausePlan
from engine.ranges import Blocks, Chunk, from_indexes, in_smaller_blocks, indexes
from engine.snapshot import Header
from engine.spill import NO_SPACE


@dataclass(frozen=True, slots=True)
class Work:
    """What one pause has to do: `stored` are the blocks that its header will list, `block_size` their size."""

    plan: PausePlan
    stored: DirtySet
    block_size: int


def unfinished_header(parent: Header, build: str, work: Work) -> Header:
    """The header that this work will have, without digests; its neighbours are joined at the end."""
    empty = work.stored.empty - work.stored.dirty  # dirty blocks are stored, all of them: the plan packs them so
    change = maps.diff(work.stored.dirty, empty, build, work.block_size)
    mapping = maps.merge(parent.mapping, change)
    base = parent.base_build or build
    return Header(build, base, parent.generation + 1, mapping, (), ())


def finished_header(unfinished: Header, work: Work, cache: Cache) -> Header:
    """The header of a whole cache: with digests, and without the pages that turned out to hold nothing."""
    return replace(
        unfinished,
        mapping=maps.normalise(without_zeros(unfinished.mapping, work, cache.zeros(), unfinished.build)),
        chunk_lengths=tuple(length for _, length in cache.chunks()),
        digests=tuple(cache.digests),
        spilled=tuple(sorted(cache.spilled)),
    )


def without_zeros(mapping: MemoryMapping, work: Work, zeros: NDArray[np.int64], build: str) -> MemoryMapping:
    """The mapping, once it is known which of the packed pages hold nothing: there it says zero."""
    if not len(zeros):
        return mapping
    stored = indexes(in_smaller_blocks(work.stored.dirty, work.block_size // PAGE))
    return maps.merge(mapping, maps.diff(Blocks(), from_indexes(stored[zeros]), build, PAGE))


def written_with_room(
    write: Callable[[], Header], cache: Cache, chunks: Sequence[Chunk], record: Callable[[Chunk], None]
) -> Header:
    """What `write` gives; as long as there is no space for it, a chunk is moved to the spill, to make room.

    One may not do: others write to that file system too. Raises OSError where that does not help, or there is no spill.
    """
    while True:
        try:
            return write()
        except OSError as error:
            own = [chunk for chunk in chunks if chunk.index not in cache.spilled]
            if not (own and cache.can_spill and error.errno in NO_SPACE):
                raise
        cache.move_to_spill(own[-1], partial(record, own[-1]))
