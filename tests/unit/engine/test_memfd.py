from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import linux
from engine.errors import NotAMemfdError, PunchRefusedError, TruncatedError
from engine.incarnation import CondemnedRecords, Incarnation, PunchPermit
from engine.memfd import Memfd

MIB = 1 << 20
PAGE = 4096
SIZE = 4 * MIB


def filled(flags: int = os.MFD_ALLOW_SEALING) -> int:
    fd = os.memfd_create("memory", flags)
    os.pwrite(fd, b"\7" * SIZE, 0)
    return fd


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.fixture
def memfd() -> Iterator[Memfd]:
    made = Memfd.adopt(filled(), SIZE)
    yield made
    made.close()


@pytest.fixture
def permit(memfd: Memfd, tmp_path: Path) -> PunchPermit:
    permit = CondemnedRecords(tmp_path).condemn(Incarnation("web-0", os.getpid(), 0, memfd.inode), "b1")
    permit.is_open = True
    return permit


def test_an_adopted_memfd_can_no_longer_change_its_size(memfd: Memfd) -> None:
    for size in (0, SIZE // 2, SIZE * 2):
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(memfd.fd, size)
    assert (memfd.size, memfd.page_size, memfd.resident_bytes()) == (SIZE, PAGE, SIZE)


def test_what_is_no_memfd_is_refused_and_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(SIZE))
    for fd in (os.open(tmp_path / "file", os.O_RDWR), os.open("/dev/zero", os.O_RDWR), os.pipe()[1]):
        with pytest.raises(NotAMemfdError, match="not a memfd"):
            Memfd.adopt(fd, SIZE)
        assert not is_open(fd)


def test_a_memfd_that_cannot_be_sealed_is_refused_and_closed() -> None:
    fd = filled(0)
    with pytest.raises(NotAMemfdError, match="cannot be sealed"):
        Memfd.adopt(fd, SIZE)
    assert not is_open(fd)


def test_a_memfd_opened_for_reading_only_is_refused_and_closed() -> None:
    writable = filled()
    fd = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY)
    with pytest.raises(NotAMemfdError, match="cannot be sealed"):
        Memfd.adopt(fd, SIZE)
    assert not is_open(fd)
    os.close(writable)


@pytest.mark.parametrize("expected", [0, SIZE - PAGE, SIZE + PAGE])
def test_a_memfd_of_another_size_is_refused_and_closed(expected: int) -> None:
    fd = filled()
    with pytest.raises(NotAMemfdError, match=f"has {SIZE} bytes"):
        Memfd.adopt(fd, expected)
    assert not is_open(fd)


def test_a_memfd_that_is_no_whole_number_of_pages_is_refused() -> None:
    fd = os.memfd_create("odd", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, PAGE + 1)
    with pytest.raises(NotAMemfdError, match="whole pages"):
        Memfd.adopt(fd, PAGE + 1)


def test_a_punch_frees_and_zeroes_exactly_its_range(memfd: Memfd, permit: PunchPermit) -> None:
    memfd.punch(MIB, 2 * MIB, permit)
    assert memfd.resident_bytes() == 2 * MIB
    assert os.pread(memfd.fd, SIZE, 0) == b"\7" * MIB + bytes(2 * MIB) + b"\7" * MIB
    assert os.fstat(memfd.fd).st_size == SIZE


def assert_refused(memfd: Memfd, offset: int, length: int, permit: Any) -> None:
    with pytest.raises(PunchRefusedError):
        memfd.punch(offset, length, permit)
    assert memfd.resident_bytes() == SIZE
    assert os.pread(memfd.fd, SIZE, 0) == b"\7" * SIZE


def test_a_punch_without_a_permit_is_refused(memfd: Memfd) -> None:
    look_alike = SimpleNamespace(incarnation=Incarnation("web-0", os.getpid(), 0, memfd.inode))
    for permit in (None, True, object(), look_alike):
        assert_refused(memfd, 0, SIZE, permit)


def test_a_punch_while_the_guest_is_not_known_to_be_dead_is_refused(memfd: Memfd, permit: PunchPermit) -> None:
    permit.is_open = False
    assert_refused(memfd, 0, SIZE, permit)


@pytest.mark.parametrize("seals", [0, 2, 4, 6, 7], ids=lambda seals: f"seals-{seals}")
def test_a_memfd_that_a_vmm_has_sealed_is_adopted_and_cannot_change_its_size(seals: int) -> None:
    """Firecracker and QEMU add SHRINK and GROW, and SEAL last: then nobody can add any."""
    fd = filled()
    if seals:
        linux.add_seals(fd, seals)
    adopted = Memfd.adopt(fd, SIZE)
    assert adopted.seals & 6 == 6
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(adopted.fd, SIZE // 2)
    adopted.close()


@pytest.mark.parametrize("seals", [1, 3, 5], ids=["none", "shrink", "grow"])
def test_a_memfd_that_lacks_a_seal_and_takes_none_is_refused(seals: int) -> None:
    fd = filled()
    linux.add_seals(fd, seals)
    with pytest.raises(NotAMemfdError, match="cannot be sealed"):
        Memfd.adopt(fd, SIZE)


def test_a_punch_with_the_permit_of_another_memfd_is_refused(memfd: Memfd, permit: PunchPermit) -> None:
    other = Memfd.adopt(filled(), SIZE)
    assert_refused(other, 0, SIZE, permit)
    other.close()


@pytest.mark.parametrize(
    ("offset", "length"),
    [(1, PAGE), (0, PAGE - 1), (0, PAGE + 1), (PAGE // 2, PAGE), (512, 512)],
)
def test_an_unaligned_punch_is_refused(memfd: Memfd, permit: PunchPermit, offset: int, length: int) -> None:
    assert_refused(memfd, offset, length, permit)


@pytest.mark.parametrize(
    ("offset", "length"),
    [(-PAGE, PAGE), (0, SIZE + PAGE), (SIZE, PAGE), (SIZE - PAGE, 2 * PAGE), (0, 0), (PAGE, -PAGE)],
)
def test_a_punch_outside_the_memory_is_refused(memfd: Memfd, permit: PunchPermit, offset: int, length: int) -> None:
    assert_refused(memfd, offset, length, permit)


@pytest.mark.parametrize("seal", [linux.SEAL_WRITE, linux.SEAL_FUTURE_WRITE])
def test_a_punch_of_a_memfd_sealed_against_writing_is_refused_by_the_kernel(
    memfd: Memfd, permit: PunchPermit, seal: int
) -> None:
    linux.add_seals(memfd.fd, seal)
    with pytest.raises(OSError, match="not permitted") as caught:
        memfd.punch(0, SIZE, permit)
    assert caught.value.errno == errno.EPERM
    assert memfd.resident_bytes() == SIZE
    assert memfd.refresh_seals() & seal


def test_reading_fills_the_buffer_and_allocates_nothing(memfd: Memfd, permit: PunchPermit) -> None:
    memfd.punch(0, MIB, permit)
    buffer = memoryview(bytearray(2 * MIB))
    memfd.read_into(buffer, 0)
    assert bytes(buffer) == bytes(MIB) + b"\7" * MIB
    assert memfd.resident_bytes() == SIZE - MIB


def test_reading_past_the_end_is_told_of(memfd: Memfd) -> None:
    with pytest.raises(TruncatedError, match=f"byte {SIZE}"):
        memfd.read_into(memoryview(bytearray(2 * PAGE)), SIZE - PAGE)


def test_what_is_written_is_read_back(memfd: Memfd) -> None:
    memfd.write_from(memoryview(b"\1" * PAGE), PAGE)
    assert os.pread(memfd.fd, 3 * PAGE, 0) == b"\7" * PAGE + b"\1" * PAGE + b"\7" * PAGE


def test_closing_twice_is_closing_once() -> None:
    memfd = Memfd.adopt(filled(), SIZE)
    memfd.close()
    memfd.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        memfd.resident_bytes()


def test_a_closed_memfd_names_no_fd(memfd: Memfd) -> None:
    memfd.close()
    assert memfd.fd < 0
