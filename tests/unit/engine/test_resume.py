"""How packed bytes become memory: each chunk is read once and compared, zeros are left out, wherever they lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import cast

import pytest
import xxhash

from engine.cache import Cache
from engine.effects import Effects
from engine.errors import CorruptBuildError
from engine.memfd import Memfd
from engine.resume import _Chunks, _copy, _Mapped, _write_unless_zero, _writer
from engine.snapshot import Build

PAGE = 4096
SIZE = 16 * PAGE


def page(number: int) -> bytes:
    return bytes([number]) * PAGE


@pytest.fixture
def memfd() -> Iterator[Memfd]:
    fd = os.memfd_create("fresh", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, SIZE)
    made = Memfd.adopt(fd, SIZE)
    yield made
    made.close()


class Source:
    """A build of three chunks, of 2, 1 and 3 pages."""

    def __init__(self, data: bytes, digests: list[bytes] | None = None) -> None:
        self.data = data
        self.digests = digests or [xxhash.xxh3_128_digest(data[start : start + n]) for start, n in self.chunks()]
        self.reads: list[tuple[int, int]] = []

    def chunks(self) -> Iterator[tuple[int, int]]:
        return iter([(0, 2 * PAGE), (2 * PAGE, PAGE), (3 * PAGE, 3 * PAGE)])

    def digest(self, index: int) -> bytes:
        return self.digests[index]

    def read(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return self.data[offset : offset + length]


DATA = b"".join(map(page, (1, 2, 0, 4, 0, 6)))


def chunks_of(source: Source) -> _Chunks:
    return _Chunks("b1", cast("Build", source), Effects())


def test_extents_are_written_where_they_belong_and_every_chunk_is_read_once(memfd: Memfd) -> None:
    source = Source(DATA)
    extents = [(0, PAGE, 0), (9 * PAGE, 3 * PAGE, PAGE), (4 * PAGE, 2 * PAGE, 4 * PAGE)]
    assert _copy(chunks_of(source), extents, memfd) == 4 * PAGE
    assert source.reads == list(source.chunks())
    memory = b"".join(map(page, (1, 0, 0, 0, 0, 6, 0, 0, 0, 2, 0, 4, 0, 0, 0, 0)))
    assert os.pread(memfd.fd, SIZE, 0) == memory
    assert memfd.resident_bytes() == 4 * PAGE


@pytest.mark.parametrize(("offset", "length"), [(0, 8192), (1, 8191), (8191, 1), (8192, 4096), (24575, 1)])
def test_what_is_left_of_a_chunk_is_had_from_an_offset(offset: int, length: int) -> None:
    assert bytes(chunks_of(Source(DATA)).from_offset(offset)) == DATA[offset : offset + length]


@pytest.mark.parametrize("offset", [-1, 6 * PAGE, 7 * PAGE])
def test_an_offset_that_no_chunk_has_is_a_damaged_build(offset: int) -> None:
    with pytest.raises(CorruptBuildError) as refused:
        chunks_of(Source(DATA)).from_offset(offset)
    assert refused.value.build == "b1"


def test_a_chunk_that_is_not_what_its_digest_says_is_a_damaged_build_and_others_are_read() -> None:
    source = Source(DATA)
    source.digests[1] = source.digests[0]
    chunks = chunks_of(source)
    assert bytes(chunks.from_offset(0)) == DATA[: 2 * PAGE]
    with pytest.raises(CorruptBuildError) as refused:
        chunks.from_offset(2 * PAGE)
    assert refused.value.build == "b1"


def test_a_chunk_without_a_digest_is_taken_from_a_stranded_build_alone() -> None:
    source = Source(DATA, [b"", b"", b""])
    with pytest.raises(CorruptBuildError):
        chunks_of(source).from_offset(0)

    class Stranded(Cache):
        def __init__(self) -> None:
            """Its chunks are those of the source."""

        chunks = source.chunks
        digest = source.digest
        read = source.read  # type: ignore[assignment]

    assert bytes(_Chunks("b1", Stranded(), Effects()).from_offset(2 * PAGE)) == page(0)


@pytest.mark.parametrize(
    "numbers",
    [(1,), (0,), (1, 2), (0, 0), (0, 1), (1, 0), (1, 0, 0, 2, 3, 0, 4), (0, 0, 5, 0)],
)
def test_runs_of_pages_that_hold_something_are_written_and_no_other(numbers: tuple[int, ...], memfd: Memfd) -> None:
    data = b"".join(map(page, numbers))
    full = sum(1 for number in numbers if number)
    assert _write_unless_zero(memfd, memoryview(data), 3 * PAGE) == full * PAGE
    assert os.pread(memfd.fd, SIZE, 0) == bytes(3 * PAGE) + data + bytes(SIZE - 3 * PAGE - len(data))
    assert memfd.resident_bytes() == full * PAGE


def test_memory_that_refuses_a_write_is_written_through_a_mapping(memfd: Memfd) -> None:
    mapped = _Mapped(memfd)
    mapped.write_from(memoryview(page(7) + page(8)), 14 * PAGE)
    mapped.close()
    assert os.pread(memfd.fd, SIZE, 0) == bytes(14 * PAGE) + page(7) + page(8)


def test_which_memory_refuses_a_write_is_known_by_its_file_system(
    memfd: Memfd, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _writer(memfd) as write:
        assert write is memfd
    monkeypatch.setattr("engine.linux.filesystem_magic", lambda _: 0x958458F6)
    with _writer(memfd) as write:
        assert isinstance(write, _Mapped)
        write.write_from(memoryview(page(9)), 0)
    assert os.pread(memfd.fd, PAGE, 0) == page(9)
    with pytest.raises(ValueError, match="closed"):
        write.write_from(memoryview(page(9)), 0)
