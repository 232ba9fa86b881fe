"""Packed bytes: written without their zero pages, read from a cache and its spill as from one file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine import linux, packed
from engine.packed import Spilled, read_packed, read_packed_pages, spilled_ranges, write_packed

PAGE = 4096
CHUNKS = [(0, 2 * PAGE), (2 * PAGE, PAGE), (3 * PAGE, 3 * PAGE), (6 * PAGE, PAGE), (7 * PAGE, 2 * PAGE)]
PAGES = 9


def page(number: int) -> bytes:
    return bytes([number]) * PAGE


WHOLE = b"".join(map(page, range(1, PAGES + 1)))


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[int, int]]:
    fds = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("cache", "spill")]
    yield fds[0], fds[1]
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize(
    ("spilled", "ranges"),
    [((), ()), ((1,), ((2, 3),)), ((2, 1), ((2, 6),)), ((4, 0), ((0, 2), (7, 9))), (range(5), ((0, 9),))],
)
def test_chunks_beside_each_other_are_one_range(spilled: tuple[int, ...], ranges: Spilled) -> None:
    assert spilled_ranges(spilled, CHUNKS) == tuple((start * PAGE, end * PAGE) for start, end in ranges)


@pytest.mark.parametrize("spilled", [(), (0,), (1,), (4,), (0, 2), (1, 3), (0, 1, 2), (0, 1, 2, 3, 4)])
def test_any_bytes_and_any_pages_are_read_out_of_the_file_that_holds_them(
    files: tuple[int, int], spilled: tuple[int, ...]
) -> None:
    cache, spill = files
    for index, (start, length) in enumerate(CHUNKS):
        os.pwrite(spill if index in spilled else cache, WHOLE[start : start + length], start)
    for fd in files:
        os.ftruncate(fd, len(WHOLE))
    ranges = spilled_ranges(spilled, CHUNKS)
    edges = sorted({0, 1, 5, *(at for start, length in CHUNKS for at in (start - 1, start, start + 1)), len(WHOLE)})
    for start in (each for each in edges if each >= 0):
        for end in (each for each in edges if each > start):
            pieces = list(packed._pieces(ranges, start, end))
            assert [start, *(high for _, _, high in pieces)] == [*(low for _, low, _ in pieces), end]
            assert all(low < high for _, low, high in pieces)
            assert read_packed(cache, spill, ranges, start, end - start) == WHOLE[start:end]
    for wanted in ([0], [8], [1, 2, 3], [0, 2, 4, 6, 8], list(range(PAGES))):
        buffer, rows = bytearray(len(wanted) * PAGE), np.arange(len(wanted))
        assert read_packed_pages(cache, spill, ranges, memoryview(buffer), rows, np.array(wanted, dtype=np.int64))
        assert buffer == b"".join(page(number + 1) for number in wanted)


def test_a_file_that_ends_early_gives_less(files: tuple[int, int]) -> None:
    cache, spill = files
    ranges = spilled_ranges((1,), CHUNKS)
    os.pwrite(cache, WHOLE, 0)
    os.pwrite(spill, WHOLE[: 3 * PAGE - 1], 0)
    assert len(read_packed(cache, spill, ranges, PAGE, 3 * PAGE)) == 3 * PAGE - 1
    buffer, pages = memoryview(bytearray(2 * PAGE)), np.array([2, 3], dtype=np.int64)
    assert not read_packed_pages(cache, spill, ranges, buffer, np.arange(2), pages)
    os.pwrite(spill, WHOLE[: 3 * PAGE], 0)
    assert read_packed_pages(cache, spill, ranges, buffer, np.arange(2), pages)
    os.ftruncate(cache, 3 * PAGE)
    assert not read_packed_pages(cache, spill, ranges, buffer, np.arange(2), pages)
    assert len(read_packed(cache, -1, (), 2 * PAGE, 2 * PAGE)) == PAGE


@pytest.mark.parametrize(
    ("numbers", "zeros"),
    [((1, 2), ()), ((0, 1), (0,)), ((1, 0), (1,)), ((0, 0, 0), (0, 1, 2)), ((1, 0, 0, 2, 0, 3), (1, 2, 4))],
)
@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize("before", ["nothing", "hole", "rubbish", "rubbish that cannot be punched"])
def test_pages_of_zeros_are_left_out_and_read_as_zeros_whatever_was_there(
    files: tuple[int, int],
    numbers: tuple[int, ...],
    zeros: tuple[int, ...],
    at: int,
    before: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fd, data = files[0], b"".join(map(page, numbers))
    if before == "hole":
        os.ftruncate(fd, 16 * PAGE)
    elif before != "nothing":
        os.pwrite(fd, b"?" * 16 * PAGE, 0)
    if "cannot" in before:

        def refuse(*_: object) -> None:
            raise OSError(errno.EOPNOTSUPP, "no")

        monkeypatch.setattr(linux, "punch_hole", refuse)
    is_hole = before in {"nothing", "hole"}
    found = write_packed(fd, memoryview(data), at * PAGE, is_hole=is_hole)
    assert found.tolist() == [at + number for number in zeros]
    assert os.pread(fd, len(data), at * PAGE) == data
    beyond = os.pread(fd, 16 * PAGE, at * PAGE + len(data))
    assert beyond == (
        b"" if before == "nothing" else (b"\0" if is_hole else b"?") * (16 * PAGE - at * PAGE - len(data))
    )
    assert os.pread(fd, at * PAGE, 0) == (b"\0" if is_hole else b"?") * (at * PAGE)
    if is_hole:
        assert os.fstat(fd).st_blocks * 512 == (len(numbers) - len(zeros)) * PAGE


def test_a_write_that_the_kernel_takes_in_parts_goes_on(
    files: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, parts = os.pwrite, []

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        parts.append((len(data), offset))
        return real(fd, data[:1500], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    packed._write(files[0], memoryview(WHOLE)[:PAGE], 7)
    assert parts == [(4096, 7), (2596, 1507), (1096, 3007)]
    assert os.pread(files[0], PAGE, 7) == WHOLE[:PAGE]
