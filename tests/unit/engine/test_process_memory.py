from __future__ import annotations

import errno
import mmap
import os
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import linux, memfd
from engine import memfd as process_memory
from engine.errors import TruncatedError
from engine.memfd import ProcessMemory
from engine.ranges import Blocks, Chunk, chunks

PAGE = 4096
MIB = 1 << 20
SIZE = 16 * MIB
POISON = 0xEE
Read = Callable[[int, memoryview, int, Sequence[tuple[int, int]]], int]


class Own:
    """Memory of this very process, which it may always read by its pid."""

    def __init__(self) -> None:
        self.mapping = mmap.mmap(-1, SIZE)
        self.content = random.Random(5).randbytes(SIZE)
        self.mapping[:] = self.content
        self.memory = ProcessMemory(os.getpid(), linux.address_of(self.mapping), SIZE, PAGE)

    def read(self, chunk: Chunk) -> tuple[int, bytes]:
        """The offset of a chunk's buffer, and the buffer as filled."""
        block = chunk.length // len(chunk.blocks)
        first, last = int(chunk.blocks[0]) * block, (int(chunk.blocks[-1]) + 1) * block
        buffer = bytearray([POISON]) * (last - first)
        self.memory.read_span(memoryview(buffer), first, chunk)
        return first, bytes(buffer)

    def assert_exact(self, dirty: Blocks, block: int = PAGE, span: int = 2 * MIB) -> None:
        """Every dirty block is there, and no other byte of the buffer was touched."""
        for chunk in chunks(dirty, SIZE, block, PAGE, span):
            first, got = self.read(chunk)
            expected = bytearray([POISON]) * len(got)
            for each in chunk.blocks.tolist():
                expected[each * block - first : (each + 1) * block - first] = self.content[
                    each * block : (each + 1) * block
                ]
            assert got == expected


@pytest.fixture(scope="module")
def own() -> Iterator[Own]:
    made = Own()
    yield made
    made.mapping.close()


class Calls:
    """Stands for process_vm_readv: notes each call, and may give less than was asked for."""

    def __init__(self, real: Read, shorten: Callable[[int], int] = lambda wanted: wanted) -> None:
        self.real = real
        self.shorten = shorten
        self.runs: list[int] = []
        self.bytes: list[int] = []

    def __call__(self, pid: int, buffer: memoryview, address: int, runs: Sequence[tuple[int, int]]) -> int:
        wanted = sum(length for _, length in runs)
        self.runs.append(len(runs))
        self.bytes.append(wanted)
        left = given_bytes = min(wanted, self.shorten(wanted))
        some = []
        for offset, length in runs:
            if left > 0:
                some.append((offset, min(length, left)))
                left -= length
        if some:
            assert self.real(pid, buffer, address, some) == given_bytes
        return given_bytes


REAL = linux.read_process


@settings(max_examples=60, deadline=None)
@given(
    dirty=st.one_of(
        st.sets(st.integers(0, SIZE // PAGE - 1), min_size=1, max_size=300),
        st.tuples(st.integers(0, 4000), st.integers(1, 96), st.integers(1, 3)).map(
            lambda t: set(range(t[0], min(t[0] + t[1] * t[2], SIZE // PAGE), t[2]))
        ),
    )
)
def test_only_dirty_blocks_are_read_each_to_its_place(own: Own, dirty: set[int]) -> None:
    own.assert_exact(Blocks(dirty))


def test_blocks_of_two_mebibytes_are_read_whole(own: Own) -> None:
    own.assert_exact(Blocks([0, 3, 4, 7]), block=2 * MIB)


def test_more_runs_than_one_call_takes_are_read_by_several(own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(REAL)
    monkeypatch.setattr(linux, "read_process", calls)
    own.assert_exact(Blocks(range(0, SIZE // PAGE, 2)), span=SIZE)
    assert calls.runs == [linux.IOV_MAX, SIZE // PAGE // 2 - linux.IOV_MAX]


def test_the_kernel_refuses_the_number_of_runs_that_is_never_given_to_it(own: Own) -> None:
    pages = [(2 * PAGE * n, PAGE) for n in range(linux.IOV_MAX + 1)]
    buffer = memoryview(bytearray(SIZE))
    with pytest.raises(OSError, match="Invalid argument"):
        linux.read_process(os.getpid(), buffer, linux.address_of(own.mapping), pages)


@pytest.mark.parametrize("most", [PAGE, 3 * PAGE, 100 * PAGE])
def test_no_call_moves_more_bytes_than_a_call_may_unless_one_run_alone_is_more(
    own: Own, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    calls = Calls(REAL)
    monkeypatch.setattr(linux, "read_process", calls)
    monkeypatch.setattr(process_memory, "_BATCH_BYTES", most)
    own.assert_exact(Blocks([*range(0, 60, 2), *range(100, 150)]))
    for runs, wanted in zip(calls.runs, calls.bytes, strict=True):
        assert wanted <= most or runs == 1


def test_a_batch_is_below_two_gibibytes() -> None:
    half = 1 << 30
    batch, left = memfd._first_batch([(0, half), (half, half), (2 * half, PAGE)])
    assert batch == [(0, half)]
    assert left == [(half, half), (2 * half, PAGE)]
    assert memfd._BATCH_BYTES < 1 << 31


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30), dirty=st.sets(st.integers(0, 600), min_size=1, max_size=80))
def test_counts_that_fall_short_anywhere_are_made_up_for(own: Own, seed: int, dirty: set[int]) -> None:
    stream = random.Random(seed)
    calls = Calls(REAL, lambda wanted: stream.randint(1, wanted) if stream.random() < 0.9 else 1)
    linux.read_process = calls
    try:
        own.assert_exact(Blocks(dirty))
    finally:
        linux.read_process = REAL
    assert len(calls.runs) >= 1


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    share=st.floats(0, 1, allow_nan=False),
)
def test_what_a_short_call_leaves_is_exactly_what_it_did_not_read(lengths: list[int], share: float) -> None:
    batch = [(sum(lengths[:n]) + 5 * n, length) for n, length in enumerate(lengths)]
    every = [at for offset, length in batch for at in range(offset, offset + length)]
    got = int(len(every) * share)
    left = [at for offset, length in memfd._after(batch, got) for at in range(offset, offset + length)]
    assert every[:got] + left == every


def test_a_process_that_gives_nothing_is_told_of(own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "read_process", lambda *_: 0)
    with pytest.raises(TruncatedError, match="gave nothing of 8192 bytes"):
        own.assert_exact(Blocks([0, 1]))


def test_what_is_not_dirty_may_be_unreadable_and_what_is_dirty_may_not() -> None:
    fd = os.memfd_create("short")
    os.ftruncate(fd, 4 * PAGE)
    mapping = mmap.mmap(fd, 4 * PAGE)
    mapping[:] = b"\7" * (4 * PAGE)
    memory = ProcessMemory(os.getpid(), linux.address_of(mapping), 4 * PAGE, PAGE)
    os.ftruncate(fd, 2 * PAGE)  # pages 2 and 3 are mapped still, and fault
    buffer = bytearray(4 * PAGE)
    memory.read_span(memoryview(buffer), 0, chunks(Blocks([1]), 4 * PAGE, PAGE, PAGE)[0])
    assert buffer[PAGE : 2 * PAGE] == b"\7" * PAGE
    with pytest.raises(OSError, match="Bad address") as caught:
        memory.read_span(memoryview(buffer), 0, chunks(Blocks([1, 3]), 4 * PAGE, PAGE, PAGE)[0])
    assert caught.value.errno == errno.EFAULT
    mapping.close()
    os.close(fd)


def test_a_hole_beside_a_dirty_block_is_not_allocated_by_reading_it() -> None:
    fd = os.memfd_create("holes")
    os.ftruncate(fd, 2 * MIB)
    mapping = mmap.mmap(fd, 2 * MIB)
    for page in (0, 99, 511):
        mapping[page * PAGE] = 1
    memory = ProcessMemory(os.getpid(), linux.address_of(mapping), 2 * MIB, PAGE)
    before = os.fstat(fd).st_blocks
    memory.read_span(memoryview(bytearray(2 * MIB)), 0, chunks(Blocks([0, 99, 511]), 2 * MIB, PAGE, PAGE)[0])
    assert os.fstat(fd).st_blocks == before == 3 * PAGE // 512
    mapping.close()
    os.close(fd)


def test_a_process_that_is_gone_is_said_to_be() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    memory = ProcessMemory(pid, 0x10000, PAGE, PAGE)
    with pytest.raises(ProcessLookupError):
        memory.read_span(memoryview(bytearray(PAGE)), 0, chunks(Blocks([0]), PAGE, PAGE, PAGE)[0])


def test_there_is_no_fd_to_ask_for_residency_or_seals_nor_to_close(own: Own) -> None:
    assert own.memory.resident_bytes() is None
    assert own.memory.refresh_seals() == 0
    assert own.memory.size == own.memory.page_size * (own.memory.size // own.memory.page_size) > 0
    own.memory.close()
    own.memory.close()
    own.assert_exact(Blocks([7]))


def test_a_guest_may_say_who_reads_it_whether_or_not_the_kernel_asks() -> None:
    pid = os.fork()  # in a child, since it cannot be taken back by the one who said it
    if pid == 0:
        os._exit(0 if linux.allow_tracer(os.getppid()) == os.path.exists("/proc/sys/kernel/yama") else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_the_buffer_may_be_a_numpy_array(own: Own) -> None:
    buffer = np.zeros(PAGE, np.uint8)
    own.memory.read_span(buffer.data, 5 * PAGE, chunks(Blocks([5]), SIZE, PAGE, PAGE)[0])
    assert bytes(buffer) == own.content[5 * PAGE : 6 * PAGE]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30), wanted=st.sets(st.integers(0, 600), min_size=1, max_size=80))
def test_pages_are_read_packed_whatever_a_call_gives_of_them(own: Own, seed: int, wanted: set[int]) -> None:
    stream, real = random.Random(seed), linux.read_process_packed

    def short(pid: int, buffer: memoryview, address: int, runs: Sequence[tuple[int, int]]) -> int:
        first, length = runs[0]
        return real(pid, buffer, address, [(first, stream.randint(1, length))] if stream.random() < 0.5 else runs)

    pages = np.array(sorted(wanted))
    buffer = np.zeros(len(pages) * PAGE, np.uint8)
    linux.read_process_packed = short
    try:
        own.memory.read_pages(buffer.data, pages)
    finally:
        linux.read_process_packed = real
    assert bytes(buffer) == b"".join(own.content[page * PAGE : (page + 1) * PAGE] for page in sorted(wanted))


@pytest.mark.parametrize(
    ("lengths", "first"),
    [([40, 60], 2), ([40, 61], 1), ([100], 1), ([101, 1], 1), ([10] * 11, 10), ([1] * 9, 5), ([], 0)],
)
def test_a_call_takes_as_many_runs_and_bytes_as_the_kernel_does_and_one_in_any_case(
    lengths: list[int], first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memfd, "_BATCH_BYTES", 100)
    monkeypatch.setattr(linux, "IOV_MAX", 5 if lengths == [1] * 9 else 1024)
    left = [(1000 * number, length) for number, length in enumerate(lengths)]
    assert memfd._first_batch(left) == (left[:first], left[first:])


@pytest.mark.parametrize(
    ("got", "left"),
    [(0, [(0, 10), (50, 20)]), (9, [(9, 1), (50, 20)]), (10, [(50, 20)]), (29, [(69, 1)]), (30, [])],
)
def test_what_a_call_did_not_read_is_left(got: int, left: list[tuple[int, int]]) -> None:
    assert memfd._after([(0, 10), (50, 20)], got) == left
