"""Calls of the kernel whose effect is looked at in /proc, in files, or in a process of the test's own."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import mmap
import os
import re
import select
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import linux
from engine.incarnation import state_of
from tests.descriptors import open_before

PAGE = mmap.PAGESIZE
RELEASE = tuple(int(each) for each in re.findall(r"\d+", os.uname().release)[:2])


@pytest.fixture
def cat() -> Iterator[subprocess.Popen[bytes]]:
    """A process that answers what it is sent, and is past its exec."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert answers(process, 20.0)
        yield process
        process.kill()


QUESTIONS = itertools.count(1)


def answers(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether it sends the byte back, after those that it was sent before."""
    assert process.stdin
    assert process.stdout
    question = bytes([next(QUESTIONS) % 256])
    process.stdin.write(question)
    return is_answered(process, question, seconds)


def is_answered(process: subprocess.Popen[bytes], question: bytes, seconds: float) -> bool:
    assert process.stdout
    while select.select([process.stdout], [], [], seconds)[0]:
        if question in process.stdout.read(256):
            return True
    return False


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


def in_a_fork(act: Callable[[], None]) -> int:
    """The errno that the act ended with, 0 where it did its work, 255 where it found something wrong."""
    pid = os.fork()
    if pid == 0:
        code = 255
        with contextlib.suppress(BaseException):
            try:
                act()
                code = 0
            except OSError as error:
                code = error.errno or 255
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# -- memory


def test_written_pages_are_named_relative_to_the_start_until_they_are_protected_again() -> None:
    with mmap.mmap(-1, 8 * PAGE) as memory:
        memory[:] = bytes(8 * PAGE)
        address = linux.address_of(memory) + PAGE
        try:
            fd = linux.write_protect_tracking(address, 6 * PAGE)
        except OSError as refused:
            if refused.errno not in {errno.EPERM, errno.ENOSYS} and RELEASE >= (6, 7):
                raise
            pytest.skip(f"needs userfaultfd write-protection (Linux 6.7): {refused.strerror}")
        pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
        for page in (0, 2, 3, 5, 7):  # the first and the last are not tracked
            memory[page * PAGE] = 1
        for rearm, expected in ((False, [(1, 3), (4, 5)]), (True, [(1, 3), (4, 5)]), (False, [])):
            found = linux.scan_written(pagemap, address, 6 * PAGE, rearm=rearm)
            assert list(zip(found.starts // PAGE, found.ends // PAGE, strict=True)) == expected
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK
        os.close(fd)
        os.close(pagemap)


def test_memory_that_is_mapped_otherwise_is_not_tracked_and_leaves_no_fd(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(PAGE)
        with mmap.mmap(file.fileno(), PAGE) as memory:
            before = open_before()
            with pytest.raises(OSError, match=r"."):
                linux.write_protect_tracking(linux.address_of(memory) + 1, PAGE)
            assert len(os.listdir("/proc/self/fd")) == before


def test_a_scan_whose_ranges_do_not_fit_one_answer_asks_again_from_where_it_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kernel that gives two ranges at a time, and says how far it looked; its second answer is stale, as on 6.18."""
    monkeypatch.setattr(linux, "_SCAN_VECTOR", 2)
    ranges = [(0x1000, 0x2000), (0x3000, 0x4000), (0x5000, 0x6000), (0x7000, 0x8000), (0x9000, 0xA000)]
    asked = []

    def ioctl(fd: int, request: int, buffer: bytearray, mutate: bool) -> int:
        size, flags, start, end, walked, vector, room, most, *masks = struct.unpack("<12Q", buffer)
        asked.append((fd, request, size, flags, start, end, room, masks))
        assert (walked, most) == (0, 0)
        found = [each for each in ranges if each[0] >= start][:room]
        for at, (low, high) in enumerate(found):
            struct.pack_into("<3Q", (ctypes.c_char * 48).from_address(vector), 24 * at, low, high, 2)
        struct.pack_into("<Q", buffer, 32, found[-1][1] + 0x500 if found and len(asked) != 2 else 0)
        return len(found)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    found = linux.scan_written(5, 0x1000, 0x10000, rearm=True)
    assert list(zip(found.starts, found.ends, strict=True)) == [(low - 0x1000, high - 0x1000) for low, high in ranges]
    assert [each[4] for each in asked] == [0x1000, 0x4500, 0x8000]
    assert {each[:4] + each[5:7] for each in asked} == {(5, 0xC0606610, 96, 3, 0x11000, 2)}
    assert {tuple(each[7]) for each in asked} == {(0, 2, 0, 2)}
    asked.clear()
    assert len(linux.scan_written(5, 0xB000, 0x1000, rearm=False).starts) == 0
    assert [(each[3], each[4]) for each in asked] == [(2, 0xB000)]


def test_nothing_of_no_length_was_written() -> None:
    found = linux.scan_written(-1, 0, 0, rearm=False)
    assert (len(found.starts), len(found.ends)) == (0, 0)


def test_copied_memory_is_what_it_was_and_nothing_beside_it() -> None:
    with mmap.mmap(-1, PAGE) as source, mmap.mmap(-1, PAGE) as destination:
        source[:] = bytes(range(256)) * (PAGE // 256)
        linux.copy_memory(linux.address_of(destination) + 3, linux.address_of(source) + 7, 100)
        assert destination[:] == bytes(3) + bytes(range(7, 107)) + bytes(PAGE - 103)


def test_space_beyond_the_end_is_taken_and_the_file_stays_as_long_as_it_was(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        linux.reserve_beyond_end(file.fileno(), 1 << 20)
        status = os.fstat(file.fileno())
        assert (status.st_size, status.st_blocks * 512 >= 1 << 20) == (0, True)
    with pytest.raises(OSError, match=r".") as refused, (tmp_path / "file").open("rb") as file:
        linux.reserve_beyond_end(file.fileno(), 1 << 20)
    assert refused.value.errno == errno.EBADF


# -- this process


def test_the_signal_of_a_parents_death_is_the_one_that_was_asked_for() -> None:
    def act() -> None:
        linux.set_parent_death_signal(signal.SIGUSR1)
        number = ctypes.c_int()
        assert ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0) == 0  # PR_GET_PDEATHSIG
        assert number.value == signal.SIGUSR1

    assert in_a_fork(act) == 0
    assert in_a_fork(lambda: linux.set_parent_death_signal(1 << 10)) == errno.EINVAL


@pytest.mark.parametrize("name", ["short", "fifteen-bytes-1", "more than fifteen bytes of it"])
def test_a_process_has_as_much_of_its_name_as_the_kernel_keeps(name: str) -> None:
    def act() -> None:
        linux.set_process_name(name)
        assert Path("/proc/self/comm").read_text() == name[:15] + "\n"

    assert in_a_fork(act) == 0


def test_a_tracer_is_allowed_where_yama_asks_for_one() -> None:
    assert linux.allow_tracer(os.getpid()) == Path("/proc/sys/kernel/yama").exists()
    assert linux.allow_tracer(0) == Path("/proc/sys/kernel/yama").exists()


def test_a_tmpfs_in_a_namespace_of_ones_own_has_the_size_that_was_asked_for(tmp_path: Path) -> None:
    user = os.geteuid()

    def act() -> None:
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        linux.mount_tmpfs(str(tmp_path), 3 << 20)
        status = os.statvfs(tmp_path)
        assert status.f_blocks * status.f_frsize == 3 << 20
        fd = os.open(tmp_path, os.O_RDONLY)
        assert linux.filesystem_magic(fd) == linux.TMPFS_MAGIC

    ended = in_a_fork(act)
    if ended in {errno.EPERM, errno.ENOSYS, errno.EACCES, errno.ENOSPC}:
        pytest.skip(f"needs a user and mount namespace without privileges: {os.strerror(ended)}")
    assert ended == 0
    assert not os.path.ismount(tmp_path)


def test_namespaces_and_mounts_that_the_kernel_refuses_are_errors(tmp_path: Path) -> None:
    assert in_a_fork(lambda: linux.unshare(1)) == errno.EINVAL
    assert in_a_fork(lambda: linux.mount_tmpfs(str(tmp_path / "nowhere"), 1 << 20)) in {errno.ENOENT, errno.EPERM}


def test_a_detached_tmpfs_has_its_options_and_refuses_others_without_leaving_an_fd() -> None:
    try:
        fd = linux.detached_tmpfs({"size": "3m", "huge": "never"})
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOSYS}:
            raise
        pytest.skip(f"no tmpfs of its own: {error.strerror}")
    status = os.statvfs(f"/proc/self/fd/{fd}")
    assert status.f_blocks * status.f_frsize == 3 << 20
    assert not os.get_inheritable(fd)
    os.close(fd)
    before = open_before()
    for wrong in ({"colour": "3"}, {"size": "x"}):
        with pytest.raises(OSError, match=r".") as refused:
            linux.detached_tmpfs(wrong)
        assert refused.value.errno == errno.EINVAL
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_look_at_what_is_resident_leaves_no_mapping() -> None:
    name = f"looked-at-{os.getpid()}"
    fd = os.memfd_create(name)
    os.ftruncate(fd, 4 * PAGE)
    os.pwrite(fd, b"x", 2 * PAGE)
    assert linux.resident_pages(fd, 4 * PAGE).tolist() == [False, False, True, False]
    os.close(fd)
    assert name not in Path("/proc/self/maps").read_text()


# -- other processes


def test_a_stopped_process_runs_while_it_is_traced_and_is_stopped_after_it(cat: subprocess.Popen[bytes]) -> None:
    stop(cat)
    assert not answers(cat, 0.05)
    try:
        with linux.running_traced([cat.pid]):
            assert answers(cat, 20.0)
    except PermissionError as refused:
        pytest.skip(f"may not trace its own child: {refused.strerror}")
    end = time.monotonic() + 20
    while state_of(cat.pid) not in {"T", "t"}:  # it stops when it next has a CPU
        assert time.monotonic() < end
    assert not answers(cat, 0.05)
    cat.send_signal(signal.SIGCONT)
    assert answers(cat, 20.0)


def test_a_thread_is_stopped_for_as_long_as_the_thread_lives_that_asked_for_it(cat: subprocess.Popen[bytes]) -> None:
    asked, may_end = threading.Event(), threading.Event()
    refused: list[OSError] = []

    def ask() -> None:
        try:
            linux.stop_thread(cat.pid)
        except OSError as error:
            refused.append(error)
        asked.set()
        assert may_end.wait(20)

    thread = threading.Thread(target=ask)
    thread.start()
    assert asked.wait(20)
    answered = answers(cat, 0.05)
    may_end.set()
    thread.join()
    if refused:
        pytest.skip(f"may not trace its own child: {refused[0].strerror}")
    assert not answered
    assert answers(cat, 20.0)


def test_a_process_that_is_gone_is_not_traced() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    for trace in (linux.stop_thread, lambda pid: linux.running_traced([pid]).__enter__()):
        with pytest.raises(OSError, match=r".") as refused:
            trace(process.pid)
        assert refused.value.errno in {errno.ESRCH, errno.EPERM}


def test_a_thread_that_does_not_stop_for_its_tracer_is_an_error_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "_TRAP_SECONDS", 0.01)
    asked = []

    def waitpid(tid: int, options: int) -> tuple[int, int]:
        asked.append((tid, options))
        return (0, 0) if tid == 7 or len(asked) < 3 else (tid, 0)

    monkeypatch.setattr(os, "waitpid", waitpid)
    linux._await_trap(8)
    assert asked == [(8, os.WNOHANG | 0x40000000)] * 3
    with pytest.raises(OSError, match="7") as refused:
        linux._await_trap(7)
    assert refused.value.errno == errno.ETIMEDOUT
