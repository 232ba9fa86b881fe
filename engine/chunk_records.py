"""What it takes to complete a build without the process that wrote it, in a file of its unfinished folder.

First what was to be copied: dirty set, empties, sizes, parent. Then a place for each chunk, written by one pwrite once
its bytes are in a file, before its punch. No place crosses a page, so neither a signal nor a full disk cuts it in two.
Nothing is flushed: what a killed process wrote is there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from engine.dirty import DirtySet
from engine.errors import EngineError
from engine.plan import MemoryFacts, PausePlan, PunchCode
from engine.plan import Path as CopyPath
from engine.ranges import Blocks, chunks
from engine.snapshot import Header
from engine.work import Work

NAME = "chunks"
_MAGIC = b"SNAPCHK2"
_HEAD = struct.Struct("<8sQQQ")  # magic, then bytes of JSON, of the dirty set, of the empties; XXH3-128 closes them
_DIGEST = 16
_PLACE = struct.Struct("<QQQ16s")  # chunk, file, offset, digest; XXH3-64 of these closes them
_ROOM = 64  # of these 48, aligned: a place in two pages could be written by half
_RECORD = _PLACE.size + 8
IN_CACHE, IN_SPILL = 1, 2  # `file`


class NoRecordsError(EngineError):
    """There are no records of a build's chunks, or they are not what was written."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a chunk's packed bytes lie, and their digest (XXH3-128)."""

    in_spill: bool
    offset: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the records of a build say: its parent's name, its work, and where each chunk lies that was recorded."""

    build: str
    parent: str
    parent_block: int
    work: Work
    placed: dict[int, Placed]
    damaged: frozenset[int] = frozenset()
    """Chunks, by index, whose place holds something that is no record."""


class ChunkRecords:
    """The file of one build, open for writing. Thread-safe: each chunk has a place of its own."""

    def __init__(self, fd: int, start: int) -> None:
        self._fd = fd
        self._start = start

    @classmethod
    def create(cls, folder: Path, build: str, parent: Header, work: Work) -> ChunkRecords:
        """Write what is known before anything is destroyed, with room for all chunks; raises OSError."""
        head = _head(build, parent.build, parent.mapping.block_size, work)
        fd = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        content, done = head + bytes(_first_place(len(head)) - len(head) + _ROOM * len(work.plan.chunks)), 0
        try:
            while done < len(content):  # all of it: a place may not lack the space that it needs later
                done += os.write(fd, content[done:])
        except OSError:
            os.close(fd)
            raise
        return cls(fd, _first_place(len(head)))

    @classmethod
    def reopen(cls, folder: Path, recorded: Recorded) -> ChunkRecords:
        """To record the chunks that are copied after a crash; raises OSError."""
        fd = os.open(folder / NAME, os.O_RDWR | os.O_CLOEXEC)
        head = _head(recorded.build, recorded.parent, recorded.parent_block, recorded.work)
        return cls(fd, _first_place(len(head)))

    def write(self, index: int, placed: Placed) -> None:
        """One pwrite; raises OSError, also where the kernel took a part."""
        place = _PLACE.pack(index, IN_SPILL if placed.in_spill else IN_CACHE, placed.offset, placed.digest)
        data = place + xxhash.xxh3_64_digest(place)
        if os.pwrite(self._fd, data, self._start + index * _ROOM) != len(data):
            raise OSError(errno.EIO, f"the record of chunk {index} was not written to its end")

    def close(self) -> None:
        """Harmless when done."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def remove(folder: Path) -> None:
    """The build is finished: nothing needs its records any more."""
    with contextlib.suppress(OSError):
        (folder / NAME).unlink()


def read(folder: Path) -> Recorded:
    """The records of an unfinished build; raises NoRecordsError where there are none that can be trusted.

    A place that was not written counts as not recorded: its chunk was not punched. Raises OSError where the host cannot
    read them now.
    """
    try:
        content = (folder / NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoRecordsError(f"its chunks are not recorded: {error.strerror}") from error
    try:
        meta, work, start = _parsed(content)
    except (ValueError, KeyError, TypeError, struct.error, EngineError) as error:
        raise NoRecordsError(f"what is recorded of its chunks is damaged: {error}") from error
    placed, damaged = {}, set[int]()
    for index in range(len(work.plan.chunks)):
        at = start + index * _ROOM
        place = content[at : at + _RECORD]
        if (found := _placed(place, index)) is not None:
            placed[index] = found
        elif place != bytes(_RECORD):
            damaged.add(index)
    return Recorded(meta["build"], meta["parent"], meta["parent_block"], work, placed, frozenset(damaged))


def _placed(place: bytes, index: int) -> Placed | None:
    if len(place) != _RECORD or xxhash.xxh3_64_digest(place[:-8]) != place[-8:]:
        return None
    chunk, file, offset, digest = _PLACE.unpack(place[:-8])
    return Placed(file == IN_SPILL, offset, digest) if chunk == index and file in {IN_CACHE, IN_SPILL} else None


def _first_place(head: int) -> int:
    """Where the places begin, after a head of so many bytes."""
    return -(-head // _ROOM) * _ROOM


def _head(build: str, parent: str, parent_block: int, work: Work) -> bytes:
    facts = work.plan.facts
    meta = {
        "build": build,
        "parent": parent,
        "parent_block": parent_block,
        "path": work.plan.path.value,
        "punch_code": work.plan.punch_code.value,
        "size": facts.size,
        "page_size": facts.page_size,
        "block_size": facts.block_size,
        "seals": facts.seals,
        "chunks": [(chunk.start, chunk.cache_offset, chunk.length) for chunk in work.plan.chunks],
    }
    parts = [json.dumps(meta).encode(), work.stored.dirty.serialize(), work.stored.empty.serialize()]
    body = _HEAD.pack(_MAGIC, *map(len, parts)) + b"".join(parts)
    return body + xxhash.xxh3_128_digest(body)


def _parsed(content: bytes) -> tuple[dict[str, Any], Work, int]:
    magic, *lengths = _HEAD.unpack_from(content)
    start = _HEAD.size + sum(lengths) + _DIGEST
    if magic != _MAGIC or len(content) < start:
        raise ValueError("not records of this version")
    body = content[: start - _DIGEST]
    if xxhash.xxh3_128_digest(body) != content[start - _DIGEST : start]:
        raise ValueError("the checksum does not match")
    first, second = _HEAD.size + lengths[0], _HEAD.size + lengths[0] + lengths[1]
    meta: dict[str, Any] = json.loads(body[_HEAD.size : first])
    dirty, empty = Blocks.deserialize(body[first:second]), Blocks.deserialize(body[second:])
    return meta, _work(meta, dirty, empty), _first_place(start)


def _work(meta: dict[str, Any], dirty: Blocks, empty: Blocks) -> Work:
    facts = MemoryFacts(
        size=meta["size"],
        page_size=meta["page_size"],
        block_size=meta["block_size"],
        seals=meta["seals"],
        consumed=True,
        parent_finished=True,
    )
    cut = chunks(dirty, facts.size, facts.block_size, facts.page_size)
    if [[chunk.start, chunk.cache_offset, chunk.length] for chunk in cut] != meta["chunks"]:
        raise ValueError("the dirty set does not give the chunks that were planned")
    plan = PausePlan(CopyPath(meta["path"]), PunchCode(meta["punch_code"]), facts, tuple(cut), dirty)
    return Work(plan, DirtySet(dirty, empty, "recorded", 0.0), facts.block_size)
