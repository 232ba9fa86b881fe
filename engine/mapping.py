"""Header mapping: which build holds which range of memory; create, merge, normalise, validate. Pure.

Offsets, lengths and storage offsets are bytes, all multiples of 4096. A build of None means zeros, stored
nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError
from engine.ranges import Blocks, run_columns

UNIT = 4096
# Compact headers hold u32 counts of 4 KiB and u16 build indexes with 0xFFFF for zeros.
MAX_SIZE = UNIT << 32
MAX_BUILDS = 65535
NIL = -1

Positions = NDArray[np.int64]


class MappingError(EngineError, ValueError):
    """A mapping, or a look-up in one, that cannot be right."""


@dataclass(frozen=True, slots=True)
class Extent:
    """`length` bytes of memory at `offset`: in `build` at `storage_offset`, or zeros where build is None."""

    offset: int
    length: int
    build: str | None
    storage_offset: int


@dataclass(frozen=True, slots=True, eq=False)
class Extents:
    """Extents as columns, in ascending order of offset. `build` indexes `builds`; -1 is zeros."""

    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    storage: NDArray[np.int64]
    build: NDArray[np.int32]
    builds: tuple[str, ...]

    @classmethod
    def of(cls, rows: Iterable[Extent]) -> Extents:
        """The columns of these extents, in the order given."""
        rows = tuple(rows)
        builds = tuple(dict.fromkeys(row.build for row in rows if row.build is not None))
        position: dict[str | None, int] = {name: index for index, name in enumerate(builds)} | {None: NIL}
        return cls(
            np.array([row.offset for row in rows], dtype=np.int64),
            np.array([row.length for row in rows], dtype=np.int64),
            np.array([row.storage_offset for row in rows], dtype=np.int64),
            np.array([position[row.build] for row in rows], dtype=np.int32),
            builds,
        )

    def __len__(self) -> int:
        return len(self.offset)

    def __iter__(self) -> Iterator[Extent]:
        columns = (self.offset.tolist(), self.length.tolist(), self._names().tolist(), self.storage.tolist())
        return (Extent(*row) for row in zip(*columns, strict=True))

    def __eq__(self, other: object) -> bool:
        """Same rows; builds count by name, not by index."""
        if not isinstance(other, Extents):
            return NotImplemented
        return (
            np.array_equal(self.offset, other.offset)
            and np.array_equal(self.length, other.length)
            and np.array_equal(self.storage, other.storage)
            and np.array_equal(self._names(), other._names())
        )

    __hash__ = None  # type: ignore[assignment]

    def _names(self) -> NDArray[np.object_]:
        """The build of each extent; index -1 is the last of the table, None."""
        return np.array((*self.builds, None), dtype=np.object_)[self.build]


@dataclass(frozen=True, slots=True)
class Mapping:
    """Extents that cover `size` bytes of memory without gap or overlap; a dirty block is `block_size`."""

    size: int
    block_size: int
    extents: Extents


def zero(size: int, block_size: int) -> Mapping:
    """The all-zero template: the parent of a first generation."""
    made = Mapping(size, block_size, Extents.of([Extent(0, size, None, 0)]))
    validate(made)
    return made


def create(dirty: Blocks, build: str, size: int, block_size: int) -> Mapping:
    """A mapping with the dirty blocks packed in `build`, ascending, and zeros elsewhere."""
    return merge(zero(size, block_size), diff(dirty, Blocks(), build, block_size))


def diff(dirty: Blocks, empty: Blocks, build: str, block_size: int) -> Extents:
    """What a build says about memory, and nothing about clean blocks.

    Empty wins over dirty. The blocks of `dirty - empty` are packed in ascending order: a block's storage
    offset is its rank among them, in bytes. `block_size` may be smaller than the mapping's (dedup stores
    pages).
    """
    stored, stored_counts = run_columns(dirty - empty)
    nil, nil_counts = run_columns(empty)
    order = np.argsort(np.concatenate((stored, nil)), kind="stable")
    storage = np.concatenate((np.cumsum(stored_counts) - stored_counts, np.zeros_like(nil)))
    names = np.concatenate((np.zeros_like(stored), np.full_like(nil, NIL)))
    return Extents(
        np.concatenate((stored, nil))[order] * block_size,
        np.concatenate((stored_counts, nil_counts))[order] * block_size,
        storage[order] * block_size,
        names[order].astype(np.int32),
        (build,),
    )


def merge(base: Mapping, change: Extents) -> Mapping:
    """`base` with `change` laid over it; the change wins.

    What is left before the change keeps its storage offset, what is left behind it has the shift added. The
    result is valid where the base is; neighbours are not joined (normalise). Raises MappingError for a
    change that is unordered, overlaps or leaves the base.
    """
    _require_change(base, change)
    if not len(change):
        return base
    if len(base.extents) == 1 and base.extents.build[0] == NIL:
        return Mapping(base.size, base.block_size, _drop_unreferenced(_over_zeros(change, base.size)))
    cuts, at_base, at_change, changed = _cut(base, change)
    builds, renamed = _join_builds(base.extents.builds, change)
    index = np.where(changed, renamed[at_change], base.extents.build[at_base])
    stored_base, stored_change = _storage_at(base.extents, at_base, cuts), _storage_at(change, at_change, cuts)
    storage = np.where(index == NIL, 0, np.where(changed, stored_change, stored_base))
    merged = Extents(cuts, np.diff(cuts, append=base.size), storage, index.astype(np.int32), builds)
    return Mapping(base.size, base.block_size, _drop_unreferenced(merged))


def normalise(mapping: Mapping) -> Mapping:
    """Neighbours joined: zeros always, others where build and storage go on; every byte stays where it was.

    Extents of no length are dropped.
    """
    rows = _take(mapping.extents, np.flatnonzero(mapping.extents.length > 0))
    if not len(rows):
        return Mapping(mapping.size, mapping.block_size, rows)
    same_build = rows.build[1:] == rows.build[:-1]
    goes_on = (rows.build[1:] == NIL) | (rows.storage[1:] == rows.storage[:-1] + rows.length[:-1])
    starts = np.flatnonzero(np.concatenate(([True], ~(same_build & goes_on))))
    joined = Extents(
        rows.offset[starts],
        np.add.reduceat(rows.length, starts),
        np.where(rows.build[starts] == NIL, 0, rows.storage[starts]),
        rows.build[starts],
        rows.builds,
    )
    return Mapping(mapping.size, mapping.block_size, _drop_unreferenced(joined))


def validate(mapping: Mapping) -> None:
    """Raise MappingError unless the extents cover [0, size) once, in order, in multiples of 4096."""
    _require_sizes(mapping)
    _require_rows(mapping.extents, mapping.size)
    rows = mapping.extents
    ends = np.concatenate(([0], rows.offset + rows.length))
    starts = np.concatenate((rows.offset, [mapping.size]))
    _require_none(ends < starts, starts, "a gap before it")
    _require_none(ends > starts, starts, "an overlap with the extent before it")


def stored_lengths(mapping: Mapping) -> dict[str, int]:
    """How many bytes each build that the mapping refers to must hold at least."""
    rows = mapping.extents
    ends = np.zeros(len(rows.builds), dtype=np.int64)
    stored = rows.build != NIL
    np.maximum.at(ends, rows.build[stored], (rows.storage + rows.length)[stored])
    return {name: int(end) for name, end in zip(rows.builds, ends.tolist(), strict=True) if end}


def extents_of(mapping: Mapping, build: str) -> list[tuple[int, int, int]]:
    """(offset, length, storage offset) of what lies in one build, in the order in which it is stored there."""
    rows = mapping.extents
    if build not in rows.builds:
        return []
    mine = np.flatnonzero(rows.build == rows.builds.index(build))
    mine = mine[np.argsort(rows.storage[mine], kind="stable")]
    columns = (rows.offset[mine].tolist(), rows.length[mine].tolist(), rows.storage[mine].tolist())
    return list(zip(*columns, strict=True))


def builds(mapping: Mapping) -> tuple[str, ...]:
    """The builds that the mapping refers to, each once, oldest first for a mapping made by merging."""
    return _drop_unreferenced(mapping.extents).builds


def _over_zeros(change: Extents, size: int) -> Extents:
    """The change and the zeros around it: a first generation's mapping, without a sort."""
    count = len(change)
    columns = np.zeros((3, 2 * count + 1), dtype=np.int64)  # offset, length, storage: zeros and changes by turns
    build = np.full(2 * count + 1, NIL, dtype=np.int32)
    ends = change.offset + change.length
    columns[0, 1::2], columns[1, 1::2], columns[2, 1::2] = change.offset, change.length, change.storage
    columns[0, 2::2] = ends
    columns[1, 0::2] = np.append(change.offset, size) - columns[0, 0::2]
    build[1::2] = change.build
    rows = Extents(columns[0], columns[1], columns[2], build, change.builds)
    return _take(rows, np.flatnonzero(columns[1]))


def _cut(base: Mapping, change: Extents) -> tuple[Positions, Positions, Positions, NDArray[np.bool_]]:
    """Where merged extents start; for each, its row in the base and in the change, and whether the change holds.

    One stable sort of three sorted columns, then running counts: np.unique and searches take far longer.
    """
    ends = change.offset + change.length
    offsets = np.concatenate((base.extents.offset, change.offset, ends[ends < base.size]))
    order = np.argsort(offsets, kind="stable")
    cuts = offsets[order]
    at_base = np.cumsum(order < len(base.extents)) - 1
    at_change = np.cumsum((order >= len(base.extents)) & (order < len(base.extents) + len(change))) - 1
    changed = (at_change >= 0) & (cuts < ends[at_change])
    last_here = np.diff(cuts, append=base.size) > 0
    wanted = np.flatnonzero(last_here & (~changed | (cuts == change.offset[at_change])))
    return cuts[wanted], at_base[wanted], at_change[wanted], changed[wanted]


def _storage_at(rows: Extents, at: Positions, offsets: Positions) -> Positions:
    return rows.storage[at] + offsets - rows.offset[at]


def _join_builds(names: tuple[str, ...], change: Extents) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """One table of both, and the build column of `change` in it."""
    joined = tuple(dict.fromkeys((*names, *change.builds)))
    renamed = np.array([*(joined.index(name) for name in change.builds), NIL], dtype=np.int64)
    return joined, renamed[change.build]


def _drop_unreferenced(rows: Extents) -> Extents:
    used = np.flatnonzero(np.bincount(rows.build[rows.build != NIL]))
    if len(used) == len(rows.builds):
        return rows
    build = np.where(rows.build == NIL, NIL, np.searchsorted(used, rows.build)).astype(np.int32)
    return Extents(rows.offset, rows.length, rows.storage, build, tuple(rows.builds[index] for index in used))


def _take(rows: Extents, wanted: NDArray[np.intp]) -> Extents:
    return Extents(rows.offset[wanted], rows.length[wanted], rows.storage[wanted], rows.build[wanted], rows.builds)


def _require_sizes(mapping: Mapping) -> None:
    if mapping.block_size <= 0 or mapping.block_size % UNIT:
        raise MappingError(f"block size {mapping.block_size} is not a positive multiple of {UNIT}")
    if not 0 < mapping.size <= MAX_SIZE or mapping.size % mapping.block_size:
        raise MappingError(
            f"size {mapping.size} is not a multiple of the block size {mapping.block_size} in 1..{MAX_SIZE}"
        )


def _require_rows(rows: Extents, size: int) -> None:
    """What must hold for each row alone; the bounds come first, so that later sums cannot overflow."""
    if not len(rows.offset) == len(rows.length) == len(rows.storage) == len(rows.build):
        raise MappingError("the columns of the mapping differ in length")
    if len(set(rows.builds)) != len(rows.builds) or len(rows.builds) > MAX_BUILDS:
        raise MappingError(f"the {len(rows.builds)} builds of the mapping repeat or are more than {MAX_BUILDS}")
    _require_none((rows.build < NIL) | (rows.build >= len(rows.builds)), rows.offset, "an unknown build")
    _require_none((rows.offset < 0) | (rows.offset >= size), rows.offset, f"an offset outside {size} bytes")
    _require_none((rows.length <= 0) | (rows.length > size), rows.offset, f"a length outside 1..{size}")
    _require_none((rows.storage < 0) | (rows.storage >= MAX_SIZE), rows.offset, "a storage offset out of range")
    misaligned = ((rows.offset | rows.length | rows.storage) & (UNIT - 1)) != 0
    _require_none(misaligned, rows.offset, f"an offset or length that is not a multiple of {UNIT}")


def _require_change(base: Mapping, change: Extents) -> None:
    _require_rows(change, base.size)
    ends = change.offset + change.length
    _require_none(ends > base.size, change.offset, f"an end past {base.size} bytes")
    _require_none(
        np.concatenate(([False], change.offset[1:] < ends[:-1])),
        change.offset,
        "an overlap with the extent before it",
    )


def _require_none(wrong: NDArray[np.bool_], offset: NDArray[np.int64], what: str) -> None:
    if wrong.any():
        at = int(np.argmax(wrong))
        raise MappingError(f"extent {at} at offset {offset[at]} has {what}")
