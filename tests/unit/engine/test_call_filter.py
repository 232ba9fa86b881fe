"""The kernel answers chosen calls of one thread by an errno: at one offset of one file, in that thread alone."""

from __future__ import annotations

import ctypes
import errno
import os
import pathlib
import platform
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from engine import linux

PAGE = 4096
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
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
    if refused in {"EPERM", "EACCES"} or platform.machine() not in ARCH or not has_filters:
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
    with pytest.raises(OSError, match="no system call numbers are known for riscv64") as refused:
        linux.fail_calls("pwrite", 0, 0, errno.EIO)
    assert refused.value.errno == errno.ENOSYS


# -- the filter itself, run on what the kernel would show it

ALLOW, ERRNO = 0x7FFF0000, 0x00050000


def answer(program: bytes, arch: int, nr: int, *arguments: int) -> int:
    """What the program returns: load a word, jump where it is not equal, return."""
    data = struct.pack("<IIQ6Q", nr, arch, 0, *(arguments + (0,) * 6)[:6])
    instructions = list(struct.iter_unpack("<HBBI", program))
    at = word = 0
    while True:
        code, equal, other, value = instructions[at]
        at += 1
        if code == 0x06:
            return int(value)
        if code == 0x20:
            (word,) = struct.unpack_from("<I", data, value)
        else:
            assert code == 0x15
            at += equal if word == value else other


@pytest.mark.parametrize(
    ("machine", "call", "numbers"),
    [("x86_64", "preadv", [327, 295]), ("aarch64", "preadv", [286, 69]), ("x86_64", "pwrite", [18]),
     ("aarch64", "pwrite", [68]), ("aarch64", "fallocate", [47]), ("aarch64", "process_vm_readv", [270])],
)  # fmt: skip
def test_a_filter_refuses_one_call_at_one_place_and_allows_every_other(
    machine: str, call: linux.FailableCall, numbers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    programs: list[bytes] = []
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(linux, "_install", programs.append)
    in_a_thread(lambda: [told(lambda: linux.fail_calls(call, 7, FAR, errno.EIO))])
    assert len(programs) == len(numbers)
    place = {"preadv": 3, "pwrite": 3, "fallocate": 2}.get(call)
    arguments = [7, 0, 0, 0]
    if place is not None:
        arguments[place] = FAR
    for program, nr in zip(programs, numbers, strict=True):
        refused = answer(program, ARCH[machine], nr, *arguments)
        assert refused == ERRNO | errno.EIO
        others = [(nr + 1, arguments), (nr, [8, *arguments[1:]])]
        if place is not None:
            wrong = (FAR + PAGE, FAR & 0xFFFFFFFF, FAR + (1 << 32))
            others += [(nr, [*arguments[:place], each, *arguments[place + 1 :]]) for each in wrong]
        assert {answer(program, ARCH[machine], number, *given) for number, given in others} == {ALLOW}
        assert answer(program, 1, nr, *arguments) == ALLOW
