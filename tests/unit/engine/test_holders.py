"""How often every process is looked at: a fleet of a thousand guests must not spend its machine on that."""

from __future__ import annotations

import contextlib
import mmap
import os
import pathlib
import threading
from collections.abc import Iterator

import pytest

from engine import holders, linux, processes
from engine.holders import Holders
from tests.descriptors import open_before


class Clock:
    """In place of the module's `time`; each look takes `cost` seconds of a thread's CPU time."""

    def __init__(self, cost: float) -> None:
        self.now, self.cost, self.used = 100.0, cost, 0.0
        self.looks = 0
        self.may_end = threading.Event()
        self.may_end.set()

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.used

    def look(self) -> dict[int, set[int]]:
        assert self.may_end.wait(10)
        self.looks += 1
        self.used += self.cost
        self.now += self.cost
        return {7: {self.looks}}


def looked(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Holders:
    monkeypatch.setattr(holders, "time", clock)
    monkeypatch.setattr(holders, "_look", clock.look)
    monkeypatch.setattr(holders, "_PATIENCE", 10.0)
    return Holders()


@pytest.mark.parametrize(("cost", "pause"), [(0.01, 0.99), (0.1, 2.0), (0.5, 10.0), (30.0, 10.0)])
def test_a_look_serves_a_second_and_for_twenty_times_what_it_cost_and_never_more_than_ten_seconds(
    cost: float, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(cost)
    found = looked(clock, monkeypatch)
    assert found.of(7, set()) == {1}
    clock.now += pause - 0.001
    assert found.of(7, set()) == {1}
    clock.now += 0.002
    assert found.of(7, set()) == {2}
    assert found.of(7, {2}) == set()


def test_no_look_begins_while_one_goes_on_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(0.0)
    found = looked(clock, monkeypatch)
    clock.may_end.clear()
    before = threading.active_count()
    for _ in range(5):
        found.look()
        clock.now += 3
    assert threading.active_count() == before + 1
    clock.may_end.set()
    assert found.of(7, set()) == {1}


# -- one look, at this very process


@contextlib.contextmanager
def mapped(fd: int, protection: int) -> Iterator[None]:
    """A shared mapping alone: Python's own keeps the file open, too."""
    address = linux._libc.mmap(None, mmap.PAGESIZE, protection, mmap.MAP_SHARED, fd, 0)
    yield
    linux._libc.munmap(address, mmap.PAGESIZE)


def test_a_memfd_is_held_by_who_has_it_open_for_writing_or_mapped_so() -> None:
    fd = os.memfd_create("snapdrill-held")
    os.ftruncate(fd, mmap.PAGESIZE)
    inode, me = os.fstat(fd).st_ino, str(os.getpid())
    before = open_before()
    assert inode in holders._opened(me)
    assert inode not in holders._mapped(me)
    assert os.getpid() in holders._look()[inode]
    assert len(os.listdir("/proc/self/fd")) == before
    reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    with mapped(fd, mmap.PROT_READ | mmap.PROT_WRITE), mapped(reader, mmap.PROT_READ):
        os.close(fd)
        assert inode not in holders._opened(me)
        assert inode in holders._mapped(me)
        assert os.getpid() in holders._look()[inode]
    with mapped(reader, mmap.PROT_READ):
        assert inode not in holders._mapped(me)
        assert inode not in holders._look()
    writer = os.open(f"/proc/self/fd/{reader}", os.O_WRONLY)
    assert inode in holders._opened(me)
    os.close(writer)
    os.close(reader)


def test_a_file_that_is_no_memfd_is_none_and_hides_none_that_is_opened_after_it(tmp_path: pathlib.Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(mmap.PAGESIZE)
        inode = os.fstat(file.fileno()).st_ino
        fd = os.memfd_create("snapdrill-held")
        with mmap.mmap(file.fileno(), mmap.PAGESIZE):
            me = str(os.getpid())
            assert inode not in holders._opened(me) | holders._mapped(me)
            assert os.fstat(fd).st_ino in holders._opened(me)
        os.close(fd)


def test_a_process_that_is_gone_is_an_error_of_its_own_and_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "with_memory", lambda: iter(["7", "8", "9"]))

    def held(pid: str) -> set[int]:
        if pid == "8":
            raise ProcessLookupError
        return {int(pid), 1}

    monkeypatch.setattr(holders, "_mapped", held)
    monkeypatch.setattr(holders, "_opened", lambda pid: {int(pid) + 100})
    assert holders._look() == {7: {7}, 1: {7, 9}, 107: {7}, 9: {9}, 109: {9}}


def test_an_fd_that_was_closed_meanwhile_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.memfd_create("snapdrill-held")
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: ["99999", *real(folder)])
    assert os.fstat(fd).st_ino in holders._opened(str(os.getpid()))
    os.close(fd)


def test_where_no_thread_can_be_had_what_was_seen_last_is_known_and_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(0.0)
    found = looked(clock, monkeypatch)
    assert found.of(7, set()) == {1}

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(holders, "_PATIENCE", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        clock.now += 1.5
        assert (found.of(7, set()), found.of(7, set())) == ({1}, {1})
    clock.now += 0.9
    assert found.of(7, set()) == {1}
    clock.now += 0.2
    monkeypatch.setattr(holders, "_PATIENCE", 10.0)
    assert found.of(7, set()) == {2}
