from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.pages import PAGE, read_pages, zeros_of

COUNT = 1500
CONTENT = random.Random(3).randbytes(COUNT * PAGE)


@contextmanager
def a_file(content: bytes = CONTENT) -> Iterator[int]:
    fd = os.memfd_create("pages")
    os.write(fd, content)
    try:
        yield fd
    finally:
        os.close(fd)


@settings(max_examples=60, deadline=None)
@given(
    wanted=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5)), min_size=1, max_size=60),
    seed=st.integers(0, 99),
)
def test_each_page_is_read_into_its_row_and_no_other_row_is_touched(wanted: list[tuple[int, int]], seed: int) -> None:
    pages, at = list[int](), 0
    for gap, count in wanted:
        pages += range(at + gap, at + gap + count)
        at = pages[-1]
    rows = sorted(random.Random(seed).sample(range(len(pages) + 5), len(pages)))
    buffer = bytearray([0xEE]) * ((len(pages) + 5) * PAGE)
    expected = bytearray(buffer)
    for row, page in zip(rows, pages, strict=True):
        expected[row * PAGE : (row + 1) * PAGE] = CONTENT[page * PAGE : (page + 1) * PAGE]
    with a_file() as fd:
        assert read_pages(fd, memoryview(buffer), np.array(rows), np.array(pages))
    assert buffer == expected


def test_more_pages_than_one_call_takes_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = list[int](), os.preadv

    def counted(fd: int, buffers: list[memoryview], offset: int) -> int:
        calls.append(len(buffers))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", counted)
    pages = np.arange(0, COUNT, 2)
    buffer = bytearray(len(pages) * PAGE)
    with a_file() as fd:
        assert read_pages(fd, memoryview(buffer), np.arange(len(pages)), pages)
    assert buffer == b"".join(CONTENT[page * PAGE : (page + 1) * PAGE] for page in pages.tolist())
    assert 1 < len(calls) < 10
    assert max(calls) <= os.sysconf("SC_IOV_MAX")


@pytest.mark.parametrize("pages", [[1], [0, 1], [0, 7], [0, 40]])
def test_a_file_that_ends_before_a_page_is_told(pages: list[int]) -> None:
    with a_file(bytes(PAGE + 9)) as fd:
        assert not read_pages(fd, memoryview(bytearray(len(pages) * PAGE)), np.arange(len(pages)), np.array(pages))


@pytest.mark.parametrize(
    ("data", "pages"),
    [(b"", []), (bytes(100), []), (bytes(PAGE), [0]), (b"\1" + bytes(2 * PAGE), [1]), (bytes(PAGE + 5), [0])],
)
def test_only_whole_pages_of_zeros_are_found(data: bytes, pages: list[int]) -> None:
    assert zeros_of(memoryview(data)).tolist() == pages
