"""A header chain becomes a new memfd: every build verified first, zeros left as holes."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from engine import linux
from engine import mapping as maps
from engine.cache import Cache
from engine.errors import EngineError
from engine.memfd import Memfd
from engine.snapshot import Build, Header

_PIECE = 2 << 20
_PAGE = 4096


@contextlib.contextmanager
def open_chain(builds: Path, header: Header, but: str | None = None) -> Iterator[dict[str, Build]]:
    """Every build that the header refers to, opened and verified; raises CorruptBuildError before a byte is used.

    The build named `but` is left out: it is still being written.
    """
    with contextlib.ExitStack() as stack:
        opened = {}
        for name in maps.builds(header.mapping):
            if name == but:
                continue
            opened[name] = Build.open(builds, name)
            stack.callback(opened[name].close)
            opened[name].verify()
        yield opened


def fill(memfd: Memfd, builds: Path, header: Header, unfinished: Cache | None = None) -> int:
    """Write the memory that `header` describes into a fresh memfd; returns the bytes written.

    What lies in `unfinished`, the newest build while it is copied, is waited for chunk by chunk. The guest must not be
    tracked yet: these writes are not its own. Raises CorruptBuildError, BuildFailedError where the copy fails, OSError,
    and EngineError where the sizes differ.
    """
    if header.mapping.size != memfd.size:
        raise EngineError(f"build {header.build} holds {header.mapping.size} bytes, the memfd has {memfd.size}")
    written = 0
    but = unfinished.build if unfinished is not None else None
    with open_chain(builds, header, but) as chain, _writer(memfd) as write:
        sources: dict[str, Build | Cache] = {**chain}
        if unfinished is not None:
            sources[unfinished.build] = unfinished
        for extent in header.mapping.extents:
            if extent.build is None:
                continue
            for at in range(0, extent.length, _PIECE):
                length = min(_PIECE, extent.length - at)
                data = sources[extent.build].read(extent.storage_offset + at, length)
                written += _write_unless_zero(write, data, extent.offset + at)
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


def _write_unless_zero(write: Memfd | _Mapped, data: bytes, offset: int) -> int:
    """Write the runs of pages that are not all zero."""
    pages = np.frombuffer(data, dtype=np.uint8).reshape(-1, _PAGE)
    full = np.flatnonzero(pages.max(axis=1))
    if len(full) == len(pages):
        write.write_from(memoryview(data), offset)
        return len(data)
    view = memoryview(data)
    for run in np.split(full, np.flatnonzero(np.diff(full) != 1) + 1):
        if len(run):
            first, end = int(run[0]) * _PAGE, (int(run[-1]) + 1) * _PAGE
            write.write_from(view[first:end], offset + first)
    return len(full) * _PAGE
