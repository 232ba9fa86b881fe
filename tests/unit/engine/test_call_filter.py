"""The kernel answers chosen calls of one thread by an errno: at one offset of one file, in that thread alone."""

from __future__ import annotations

import ctypes
import errno
import os
import pathlib
import platform
import threading
from collections.abc import Callable, Iterator

import pytest

from engine import linux

PAGE = 4096
FAR = (5 << 32) + 3 * PAGE  # an offset whose high word counts


def told(call: Callable[[], object]) -> str:
    """`done`, or the name of its errno."""
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def in_a_thread(act: Callable[[], list[str]]) -> list[str]:
    """A filter lives as long as its thread."""
    found: list[list[str]] = []
    thread = threading.Thread(target=lambda: found.append(act()))
    thread.start()
    thread.join()
    assert found, "the thread failed"
    return found[0]


@pytest.fixture
def fd(tmp_path: pathlib.Path) -> Iterator[int]:
    made = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.ftruncate(made, FAR + 2 * PAGE)
    yield made
    os.close(made)


@pytest.fixture
def other(tmp_path: pathlib.Path) -> Iterator[int]:
    made = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    yield made
    os.close(made)


@pytest.fixture(autouse=True)
def _filters_can_be_had() -> None:
    (refused,) = in_a_thread(lambda: [told(lambda: linux.fail_calls("pwrite", -1, 0, errno.EIO))])
    has_filters = "\nSeccomp:" in pathlib.Path("/proc/self/status").read_text()
    if refused in {"ENOSYS", "EPERM", "EACCES"} or not has_filters:
        pytest.skip(f"needs seccomp filters on x86_64 or aarch64: {refused}")
    assert refused == "done"  # else it is our call that is wrong


def test_a_read_fails_at_its_offset_of_its_file_alone(fd: int, other: int) -> None:
    def act() -> list[str]:
        linux.fail_calls("preadv", fd, FAR, errno.EIO)
        offsets = (0, FAR - PAGE, FAR, FAR + PAGE, FAR & 0xFFFFFFFF)
        return [told(lambda at=at: os.preadv(fd, [bytearray(8)], at)) for at in offsets] + [  # type: ignore[misc]
            told(lambda: os.preadv(other, [bytearray(8)], FAR)),
            told(lambda: os.pread(fd, 8, FAR)),
        ]

    assert in_a_thread(act) == ["done", "done", "EIO", "done", "done", "done", "done"]


def test_a_write_fails_at_its_offset_and_goes_on_failing_there(fd: int) -> None:
    def act() -> list[str]:
        linux.fail_calls("pwrite", fd, PAGE, errno.ENOSPC)
        return [told(lambda at=at: os.pwrite(fd, b"x", at)) for at in (0, PAGE, 2 * PAGE, PAGE)]  # type: ignore[misc]

    assert in_a_thread(act) == ["done", "ENOSPC", "done", "ENOSPC"]


def test_a_punch_fails_at_its_offset() -> None:
    memfd = os.memfd_create("test")
    os.ftruncate(memfd, 4 * PAGE)

    def act() -> list[str]:
        linux.fail_calls("fallocate", memfd, PAGE, errno.EPERM)
        return [told(lambda at=at: linux.punch_hole(memfd, at, PAGE)) for at in (0, PAGE, 2 * PAGE)]  # type: ignore[misc]

    assert in_a_thread(act) == ["done", "EPERM", "done"]
    os.close(memfd)


def test_a_read_of_a_process_fails_for_that_process() -> None:
    source = ctypes.create_string_buffer(b"content")

    def act() -> list[str]:
        read = lambda: linux.read_process(  # noqa: E731 - done twice
            os.getpid(), memoryview(bytearray(8)), ctypes.addressof(source), [(0, 8)]
        )
        before = told(read)
        linux.fail_calls("process_vm_readv", os.getpid(), None, errno.ESRCH)
        return [before, told(read)]

    assert in_a_thread(act) == ["done", "ESRCH"]


def test_other_threads_and_later_ones_are_not_touched(fd: int) -> None:
    in_a_thread(lambda: [told(lambda: linux.fail_calls("pwrite", fd, 0, errno.EIO))])
    assert in_a_thread(lambda: [told(lambda: os.pwrite(fd, b"x", 0))]) == ["done"]
    assert told(lambda: os.pwrite(fd, b"x", 0)) == "done"


def test_another_machine_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(OSError, match="no system call numbers are known for riscv64"):
        linux.fail_calls("pwrite", 0, 0, errno.EIO)
