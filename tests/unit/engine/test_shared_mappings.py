"""Shared mappings, as the kernel is asked for them and as its text says."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import linux
from engine.linux import SharedMapping

SIZE = 3 * mmap.PAGESIZE


@pytest.fixture
def memfd() -> Iterator[int]:
    fd = os.memfd_create("snapdrill-mapped here", os.MFD_CLOEXEC)
    os.ftruncate(fd, SIZE)
    yield fd
    os.close(fd)


def of(fd: int) -> list[SharedMapping]:
    return [each for each in linux.shared_mappings(os.getpid()) if each.inode == os.fstat(fd).st_ino]


def test_a_memfd_is_found_where_it_is_mapped_shared_and_nowhere_else(memfd: int) -> None:
    assert of(memfd) == []
    with mmap.mmap(memfd, SIZE) as mapped, mmap.mmap(memfd, SIZE, prot=mmap.PROT_READ), mmap.mmap(memfd, SIZE, 2):
        start = linux.address_of(mapped)
        found = of(memfd)
        assert sorted(each.writable for each in found) == [False, True]  # the private one is not shared
        ours = next(each for each in found if each.writable)
        assert (ours.start, ours.end) == (start, start + SIZE)
        assert ours.name == b"/memfd:snapdrill-mapped here (deleted)"
    assert of(memfd) == []


def test_the_text_says_what_the_kernel_answers(memfd: int) -> None:
    with mmap.mmap(memfd, SIZE), mmap.mmap(memfd, mmap.PAGESIZE, prot=mmap.PROT_READ):
        told = linux._parsed(Path("/proc/self/maps").read_bytes())
        assert len([each for each in told if each.inode == os.fstat(memfd).st_ino]) == 2
        assert told == linux.shared_mappings("self")


def test_a_kernel_without_the_query_is_read_as_text(memfd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with mmap.mmap(memfd, SIZE):
        answered = of(memfd)
        monkeypatch.setattr("engine.linux._PROCMAP_QUERY", 0xC0686612)  # ENOTTY, as before Linux 6.11
        assert of(memfd) == answered != []


def test_a_process_that_has_ended_maps_nothing_and_one_that_is_gone_is_an_error() -> None:
    child = subprocess.Popen([sys.executable, "-IS", "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert linux.shared_mappings(child.pid) == []
    child.wait()
    with pytest.raises(FileNotFoundError):
        linux.shared_mappings(child.pid)


def test_a_running_thread_of_our_own_cannot_be_traced() -> None:
    with pytest.raises(PermissionError), linux.running_traced([os.getpid()]):
        pytest.fail("it was let run")
