"""A finished build: header, cache and digests in one folder that got its name when both were whole."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import struct
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from engine import mapping as maps
from engine.cache import MEMFILE, PARTIAL
from engine.errors import CorruptBuildError, PinnedBuildError
from engine.mapping import Extents, Mapping, MappingError
from engine.packed import read_packed, read_packed_pages, spilled_ranges
from engine.pages import PAGE
from engine.spill import LINK, open_linked, remove_folder

HEADER = "header"
PARENTS = "parents"
_MAGIC = b"SNAPDRL1"
_PREFIX = struct.Struct("<8sQQ")  # magic, bytes of JSON, bytes of columns; XXH3-128 of all before it closes the file
_DIGEST = 16
_NO_SUCH_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""No file of that name is there, or something else is: no error that passes."""


@dataclass(frozen=True, slots=True)
class Header:
    """Which build holds which range, and the digests of this build's own chunks (XXH3-128 of packed bytes)."""

    build: str
    base_build: str
    generation: int
    mapping: Mapping
    chunk_lengths: tuple[int, ...]
    digests: tuple[bytes, ...]
    spilled: tuple[int, ...] = ()
    """Chunks, by index, that lie in the build's spill and not in its cache file, at the same offset."""

    @property
    def length(self) -> int:
        """Bytes that this build stores: pages that are zero are in its cache file as holes alone."""
        rows = self.mapping.extents
        own = rows.builds.index(self.build) if self.build in rows.builds else maps.NIL
        return int(rows.length[rows.build == own].sum()) if own != maps.NIL else 0

    @property
    def file_length(self) -> int:
        """Bytes of this build's cache file, from its first to its last chunk, holes included."""
        return sum(self.chunk_lengths)

    @property
    def content_hash(self) -> str:
        """Names what this build stores and where it goes; the same for the same memory, whatever thread copied it."""
        rows = self.mapping.extents
        columns = np.concatenate([rows.offset, rows.length, rows.storage, rows.build.astype(np.int64)])
        return xxhash.xxh3_128_hexdigest(columns.tobytes() + b"".join(self.digests))


def template(size: int, block_size: int) -> Header:
    """The parent of a first generation: nothing stored, every byte zero."""
    return Header("", "", 0, maps.zero(size, block_size), (), ())


def to_bytes(header: Header) -> bytes:
    """The header as written to disk: versioned by its magic, closed by a checksum."""
    rows = header.mapping.extents
    meta = {
        "build": header.build,
        "base_build": header.base_build,
        "generation": header.generation,
        "size": header.mapping.size,
        "block_size": header.mapping.block_size,
        "builds": rows.builds,
        "extents": len(rows),
        "chunk_lengths": header.chunk_lengths,
        "digests": [digest.hex() for digest in header.digests],
        **({"spilled": header.spilled} if header.spilled else {}),
    }
    text = json.dumps(meta).encode()
    columns = b"".join(c.tobytes() for c in (rows.offset, rows.length, rows.storage, rows.build))
    body = _PREFIX.pack(_MAGIC, len(text), len(columns)) + text + columns
    return body + xxhash.xxh3_128_digest(body)


def from_bytes(data: bytes, build: str) -> Header:
    """Read a header back; raises CorruptBuildError, of `build`, unless it is whole and says something valid."""
    text, columns = _whole(data, build)
    try:
        return _from_parts(json.loads(text), bytes(columns))
    except (MappingError, KeyError, TypeError, ValueError) as error:
        raise CorruptBuildError(build, f": {error}") from error


def _whole(data: bytes, build: str) -> tuple[bytes, memoryview]:
    """A header's JSON and its columns, once length and checksum say that they are as they were written."""
    if len(data) < _PREFIX.size + _DIGEST or data[: len(_MAGIC)] != _MAGIC:
        raise CorruptBuildError(build, ": not a header of this version")
    _, text_length, columns_length = _PREFIX.unpack_from(data)
    body = memoryview(data)[:-_DIGEST]
    if len(body) != _PREFIX.size + text_length + columns_length:
        raise CorruptBuildError(build, ": the header is cut short or has bytes after its end")
    if xxhash.xxh3_128_digest(body) != data[-_DIGEST:]:
        raise CorruptBuildError(build, ": the header's checksum does not match")
    return bytes(body[_PREFIX.size : _PREFIX.size + text_length]), body[_PREFIX.size + text_length :]


def _from_parts(meta: dict[str, Any], columns: bytes) -> Header:
    count = meta["extents"]
    wide = np.frombuffer(columns, dtype=np.int64, count=3 * count).reshape(3, count)
    build = np.frombuffer(columns, dtype=np.int32, count=count, offset=3 * count * 8)
    extents = Extents(wide[0], wide[1], wide[2], build, tuple(meta["builds"]))
    mapping = Mapping(meta["size"], meta["block_size"], extents)
    maps.validate(mapping)
    lengths = tuple(meta["chunk_lengths"])
    digests = tuple(bytes.fromhex(digest) for digest in meta["digests"])
    if len(lengths) != len(digests):
        raise ValueError(f"{len(lengths)} chunks have {len(digests)} digests")
    spilled = tuple(meta.get("spilled", ()))
    if not set(spilled) <= set(range(len(lengths))):
        raise ValueError(f"of {len(lengths)} chunks {list(spilled)} are in the spill")
    return Header(meta["build"], meta["base_build"], meta["generation"], mapping, lengths, digests, spilled)


def write_header(header: Header, folder: Path) -> None:
    """Write the header into a build's unfinished folder; raises OSError."""
    (folder / HEADER).write_bytes(to_bytes(header))


def write_attachments(attachments: Dictionary[str, bytes], folder: Path) -> None:
    """Files that belong to a build without being the engine's: kept and named with it; raises OSError."""
    for name, content in attachments.items():
        (folder / name).write_bytes(content)


def parents_of(header: Header) -> bytes:
    """The builds that a new build on top of `header` stands on: kept with it while it is written."""
    return json.dumps(maps.builds(header.mapping)).encode()


@contextlib.contextmanager
def pinning(builds: Path) -> Iterator[None]:
    """Held while a build says what it stands on, and while one is judged and deleted: never both at a time."""
    fd = os.open(builds, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def delete_build(builds: Path, build: str) -> None:
    """Delete a finished build.

    Raises CorruptBuildError where there is none of that name, PinnedBuildError while another one, finished or being
    written, stands on it, OSError where it cannot be learned what another one stands on.
    """
    if build in {"", ".", ".."} or "/" in build or build.endswith(PARTIAL) or not (builds / build).is_dir():
        raise CorruptBuildError(build, " is not finished or does not exist: nothing was deleted")
    doomed = builds / f"{build}{PARTIAL}"  # of no use from its new name on, also after a crash
    with pinning(builds):
        for other in builds.iterdir():
            if other.name != build and build in _stands_on(other):
                raise PinnedBuildError(f"build {build} is pinned: {other.name} stands on it; delete that first")
        os.rename(builds / build, doomed)
    remove_folder(doomed, ignore_errors=False)


def _stands_on(folder: Path) -> tuple[str, ...]:
    """What a build refers to; a damaged header pins nothing that could still be read through it."""
    try:
        if not folder.name.endswith(PARTIAL):
            return maps.builds(from_bytes((folder / HEADER).read_bytes(), folder.name).mapping)
        for place in (folder, folder.with_name(folder.name.removesuffix(PARTIAL))):  # it may get its name meanwhile
            with contextlib.suppress(FileNotFoundError):
                return tuple(json.loads((place / PARENTS).read_bytes()))
    except (FileNotFoundError, NotADirectoryError, ValueError, CorruptBuildError):
        return ()
    return ()


@contextlib.contextmanager
def _reading(build: str, missing: str) -> Iterator[None]:
    """A file that is missing damages its build; any other OSError is the host's and may pass: it stays an OSError."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SUCH_FILE:
            raise CorruptBuildError(build, f"{missing}: {error.strerror}") from error
        raise OSError(error.errno, f"build {build} cannot be read: {error.strerror}") from error
    except ValueError as error:  # no file can have that name
        raise CorruptBuildError(build, f"{missing}: {error}") from error


def check_build(builds: Path, build: str, length: int) -> None:
    """Ask of a finished build, cheaply, what a resume will: its header whole and its own, `length` bytes in its cache.

    Raises CorruptBuildError, and OSError where the host cannot read it now. Chunks are compared with their digests only
    where the cache was written to after its header (mtime). Not noticed, and refused by a resume alone: bytes that were
    wrong before the header was written, that changed within a tick of the clock after it (at most 10 ms), or that
    changed without a write (a failing disk).
    """
    folder = builds / build
    with _reading(build, " is not finished, or lacks a file"):
        text, _ = _whole((folder / HEADER).read_bytes(), build)
        meta = json.loads(text)
        header, cache = os.stat(folder / HEADER), os.stat(folder / MEMFILE)
        spill = os.stat(folder / LINK) if meta.get("spilled") else None
    if meta["build"] != build:
        raise CorruptBuildError(build, f": its header is that of build {meta['build']}")
    stored = sum(meta["chunk_lengths"])
    if min(stored, cache.st_size) < max(stored, length):
        raise CorruptBuildError(build, f": its cache has {cache.st_size} bytes of {max(stored, length)}")
    if spill is not None and spill.st_size < (end := _end_of_spill(meta["spilled"], meta["chunk_lengths"])):
        raise CorruptBuildError(build, f": its spill has {spill.st_size} bytes of {end}")
    if max(cache.st_mtime_ns, spill.st_mtime_ns if spill is not None else 0) > header.st_mtime_ns:
        with contextlib.closing(Build.open(builds, build)) as touched:
            touched.verify()


def _end_of_spill(spilled: Sequence[int], lengths: Sequence[int]) -> int:
    """Bytes that a spill must have: to the end of its last chunk."""
    return sum(lengths[: max(spilled) + 1]) if spilled else 0


class Build:
    """A finished build, opened for reading: its header, and its cache by system call."""

    def __init__(self, header: Header, folder: Path) -> None:
        self.header = header
        self.folder = folder
        self.fd = os.open(folder / MEMFILE, os.O_RDONLY | os.O_CLOEXEC)
        self.spill_fd, self._spilled = -1, spilled_ranges(header.spilled, list(self.chunks()))
        if header.spilled:
            try:
                self.spill_fd = open_linked(folder)
            except OSError:
                self.close()
                raise

    @classmethod
    def open(cls, builds: Path, build: str) -> Build:
        """Open a finished build; raises CorruptBuildError where it is missing, unfinished, cut short or damaged.

        Raises OSError where the host cannot read it now (EMFILE, EIO and others): that says nothing of the build.
        """
        folder = builds / build
        if build.endswith(PARTIAL):
            raise CorruptBuildError(build, " is not finished")
        with _reading(build, " is not finished, or lacks a file"):
            header = from_bytes((folder / HEADER).read_bytes(), build)
            if header.build != build:
                raise CorruptBuildError(build, f": its header is that of build {header.build}")
            opened = cls(header, folder)
            try:
                opened._check_lengths()
            except (CorruptBuildError, OSError):
                opened.close()
                raise
        return opened

    def _check_lengths(self) -> None:
        header = self.header
        size = os.fstat(self.fd).st_size
        if size < header.file_length:
            raise CorruptBuildError(header.build, f": its cache has {size} bytes of {header.file_length}")
        end = _end_of_spill(header.spilled, header.chunk_lengths)
        if end and (size := os.fstat(self.spill_fd).st_size) < end:
            raise CorruptBuildError(header.build, f": its spill has {size} bytes of {end}")

    def chunks(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of each chunk in the packed cache."""
        lengths = self.header.chunk_lengths
        return zip(accumulate(lengths, initial=0), lengths, strict=False)

    def digest(self, index: int) -> bytes:
        """Of one chunk, as the header says."""
        return self.header.digests[index]

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the packed cache; raises CorruptBuildError where it ends early, OSError."""
        data = read_packed(self.fd, self.spill_fd, self._spilled, offset, length)
        if len(data) != length:
            raise CorruptBuildError(self.header.build, f": its cache ended at byte {offset + len(data)}")
        return data

    def read_pages(self, buffer: memoryview, rows: NDArray[np.int64], pages: NDArray[np.int64]) -> None:
        """Read pages of the packed cache, ascending, each into its row of the buffer.

        Raises CorruptBuildError where the cache ends early.
        """
        if not read_packed_pages(self.fd, self.spill_fd, self._spilled, buffer, rows, pages):
            raise CorruptBuildError(self.header.build, f": its cache ended before byte {(int(pages[-1]) + 1) * PAGE}")

    def verify(self) -> None:
        """Compare every chunk with its digest; raises CorruptBuildError naming the first chunk that differs."""
        offset = 0
        for index, (length, digest) in enumerate(zip(self.header.chunk_lengths, self.header.digests, strict=True)):
            if xxhash.xxh3_128_digest(self.read(offset, length)) != digest:
                raise CorruptBuildError(self.header.build, f": chunk {index} does not match its digest")
            offset += length

    def attachment(self, name: str) -> bytes:
        """A file that was stored with the build; raises CorruptBuildError where it is missing, OSError as `open`."""
        with _reading(self.header.build, f": it lacks {name}"):
            return (self.folder / name).read_bytes()

    def close(self) -> None:
        """Close the cache and its spill; harmless when already closed."""
        fds, self.fd, self.spill_fd = (self.fd, self.spill_fd), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)
