"""A header chain becomes a new memfd: every build verified first, zeros left as holes."""

from __future__ import annotations

import bisect
import contextlib
import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import xxhash

from engine import linux
from engine import mapping as maps
from engine.cache import Cache
from engine.effects import Effects
from engine.errors import CorruptBuildError, EngineError
from engine.memfd import Memfd
from engine.snapshot import Build, Header

_PAGE = 4096
_ZEROS = bytes(_PAGE)


@contextlib.contextmanager
def open_chain(
    builds: Path, header: Header, but: str | None = None, *, verified: bool = True
) -> Iterator[dict[str, Build]]:
    """Every build that the header refers to, opened and verified; raises CorruptBuildError before a byte is used.

    Raises OSError where the host cannot read one now. The build named `but` is left out: it is still being written.
    Not `verified`: digests are not looked at.
    """
    with contextlib.ExitStack() as stack:
        opened = {}
        for name in maps.builds(header.mapping):
            if name == but:
                continue
            opened[name] = Build.open(builds, name)
            stack.callback(opened[name].close)
            if verified:
                opened[name].verify()
        yield opened


def fill(
    memfd: Memfd, builds: Path, header: Header, unfinished: Cache | None = None, effects: Effects | None = None
) -> int:
    """Write the memory that `header` describes into a fresh memfd; returns the bytes written.

    What lies in `unfinished`, the newest build while it is copied, is waited for chunk by chunk. The guest must not be
    tracked yet: these writes are not its own. Raises CorruptBuildError, BuildFailedError where the copy fails, OSError,
    and EngineError where the sizes differ.
    """
    effects = effects or Effects()
    if header.mapping.size != memfd.size:
        raise EngineError(f"build {header.build} holds {header.mapping.size} bytes, the memfd has {memfd.size}")
    written = 0
    but = unfinished.build if unfinished is not None else None
    with open_chain(builds, header, but) as chain, _writer(memfd) as write:
        for name, build in chain.items():
            written += _copy(_Chunks(name, build, effects), maps.extents_of(header.mapping, name), write)
        if unfinished is not None:
            chunks = _Chunks(unfinished.build, unfinished, effects)
            written += _copy(chunks, maps.extents_of(header.mapping, unfinished.build), write)
    return written


class _Chunks:
    """One build's packed bytes, read a chunk at a time and compared with its digest: what is used is what was read."""

    def __init__(self, name: str, source: Build | Cache, effects: Effects) -> None:
        self._name = name
        self._source = source
        self._effects = effects
        self._spans = list(source.chunks())
        self._index = -1
        self._data = memoryview(b"")

    def from_offset(self, offset: int) -> memoryview:
        """What lies from `offset` to the end of its chunk; raises CorruptBuildError."""
        index = bisect.bisect_right(self._spans, (offset, 1 << 62)) - 1
        if index < 0 or offset >= sum(self._spans[index]):
            raise CorruptBuildError(self._name, f": its cache ends before byte {offset}")
        if index != self._index:
            self._data, self._index = self._read(index), index
        return self._data[offset - self._spans[index][0] :]

    def _read(self, index: int) -> memoryview:
        data = self._effects.resume_read(self._source, *self._spans[index])
        expected = self._source.digest(index)
        not_written = not expected and isinstance(self._source, Cache)  # of a stranded build, out of the memfd
        if not not_written and xxhash.xxh3_128_digest(data) != expected:
            raise CorruptBuildError(self._name, f": chunk {index} does not match its digest")
        return memoryview(data)


def _copy(chunks: _Chunks, extents: Iterable[tuple[int, int, int]], write: Memfd | _Mapped) -> int:
    """Extents of (offset, length, storage offset) in the order in which they are stored: each chunk is read once."""
    written = 0
    for offset, length, storage in extents:
        done = 0
        while done < length:
            data = chunks.from_offset(storage + done)[: length - done]
            written += _write_unless_zero(write, data, offset + done)
            done += len(data)
    return written


class _Mapped:
    """Writes to a hugetlb memfd, which refuses write(2); its size is sealed, so the mapping cannot fault."""

    def __init__(self, memfd: Memfd) -> None:
        self._mapping = mmap.mmap(memfd.fd, memfd.size)

    def write_from(self, buffer: memoryview, offset: int) -> None:
        self._mapping[offset : offset + len(buffer)] = buffer.tobytes()

    def close(self) -> None:
        self._mapping.close()


@contextlib.contextmanager
def _writer(memfd: Memfd) -> Iterator[Memfd | _Mapped]:
    if linux.filesystem_magic(memfd.fd) != linux.HUGETLBFS_MAGIC:
        yield memfd
        return
    mapped = _Mapped(memfd)
    try:
        yield mapped
    finally:
        mapped.close()


def _write_unless_zero(write: Memfd | _Mapped, data: memoryview, offset: int) -> int:
    """Write the runs of pages that are not all zero."""
    if len(data) == _PAGE:  # as most scattered blocks are: finding runs would cost more than the write
        if data.tobytes() == _ZEROS:
            return 0
        write.write_from(data, offset)
        return _PAGE
    pages = np.frombuffer(data, dtype=np.uint8).reshape(-1, _PAGE)
    full = np.flatnonzero(pages.max(axis=1))
    if len(full) == len(pages):
        write.write_from(data, offset)
        return len(data)
    for run in np.split(full, np.flatnonzero(np.diff(full) != 1) + 1):
        if len(run):
            first, end = int(run[0]) * _PAGE, (int(run[-1]) + 1) * _PAGE
            write.write_from(data[first:end], offset + first)
    return len(full) * _PAGE
