"""What rules look at: a process by pid and start time, its memory by fd, and what a punch leaves of a page."""

from __future__ import annotations

import array
import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from engine import linux
from engine.incarnation import start_time_of
from sim.record.oracle import PAGE, ZEROED, Mismatch, content, key_of
from sim.rules.finding import Finding, Reason
from sim.rules.reality import SpawnedGuest, is_doomed, page_details, pieces, sparse, zeroed_pages
from tests.story import spawned

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Guests, Scene


def test_a_living_process_runs_a_stopped_one_does_not_and_a_dead_one_has_no_state(guests: Guests) -> None:
    guest = guests.start()
    assert guest.spawned().is_running()
    guest.stop()
    assert guest.spawned().state() == "T"
    assert not guest.spawned().is_running()
    guest.kill()
    assert guest.spawned().state() is None
    assert not guest.spawned().is_running()


def test_a_process_that_was_killed_but_not_reaped_is_dead(guests: Guests) -> None:
    guest = guests.start()
    guest.process.kill()
    os.waitid(os.P_PID, guest.process.pid, os.WEXITED | os.WNOWAIT)
    assert guest.spawned().state() is None


def test_a_process_is_dying_once_it_was_killed_and_not_while_it_is_stopped(guests: Guests) -> None:
    guest = guests.start()
    assert not guest.spawned().is_dying()
    guest.stop()
    assert not guest.spawned().is_dying()
    guest.process.kill()
    os.waitid(os.P_PID, guest.process.pid, os.WEXITED | os.WNOWAIT)
    assert guest.spawned().is_dying()
    guest.kill()
    assert guest.spawned().is_dying()


@pytest.mark.parametrize(
    ("flags", "pending", "shared", "doomed"),
    [
        (0x400040, "0" * 16, "0" * 16, False),
        (0x400044, "0" * 16, "0" * 16, True),
        (0x400040, "0000000000000100", "0" * 16, True),
        (0x400040, "0" * 16, "0000000000000100", True),
        (0x400040, "0000000000020000", "0" * 16, False),  # SIGCHLD
    ],
)
def test_sigkill_that_waits_and_an_exit_that_goes_on_are_the_end(
    flags: int, pending: str, shared: str, doomed: bool
) -> None:
    stat = f"7 (a ) b) R 1 7 7 0 -1 {flags} 0 0"
    assert is_doomed(stat, f"Name:\tx\nSigPnd:\t{pending}\nShdPnd:\t{shared}\nSigBlk:\tffffffffffffffff\n") is doomed


def test_a_pid_with_another_start_time_is_somebody_elses(guests: Guests, scene: Scene) -> None:
    guest = guests.start(told=False)
    guests.tell(guest, start_time=guest.born.start_time + 1)
    found = scene.reality.guests(scene.evidence().guests)["web-0.1"]
    assert found.state() is None


def test_memory_and_generations_are_read_through_the_process(guests: Guests, scene: Scene) -> None:
    guest = guests.start()
    found = scene.reality.guests(scene.evidence().guests)["web-0.1"]
    fd = found.open_memory()
    assert list(scene.reality.mismatches("web-0", found.generations(), fd)) == []
    guest.write(4, b"x" * PAGE)
    assert [each.page for each in scene.reality.mismatches("web-0", found.generations(), fd)] == [4]
    os.close(fd)


def test_a_dead_process_has_no_memory_to_look_at(guests: Guests) -> None:
    guest = guests.start()
    guest.kill()
    with pytest.raises(OSError, match="No such file"):
        guest.spawned().open_memory()
    with pytest.raises(OSError, match="No such file"):
        guest.spawned().generations()


def test_zeroed_pages_are_those_written_with_content_that_the_kernel_holds_no_more() -> None:
    pages = array.array("I", [1, 0, 2, ZEROED | 1, 3, 3, 0, 1])
    fd = os.memfd_create("pages")
    os.pwrite(fd, b"x" * (8 * PAGE), 0)
    for page in (1, 2, 3, 7):
        linux.punch_hole(fd, page * PAGE, PAGE)
    resident = os.fstat(fd).st_blocks
    assert zeroed_pages(pages, fd).tolist() == [2, 7]
    assert os.fstat(fd).st_blocks == resident, "looking brings nothing back"
    linux.punch_hole(fd, 0, 8 * PAGE)
    assert zeroed_pages(pages, fd).tolist() == [0, 2, 4, 5, 7]
    os.close(fd)


def test_pieces_are_the_file_in_order_with_its_holes() -> None:
    fd = os.memfd_create("pieces")
    os.ftruncate(fd, 5 << 20)
    os.pwrite(fd, b"end", (5 << 20) - 3)
    found = list(pieces(fd, 5 << 20))
    assert [len(each) for each in found] == [2 << 20, 2 << 20, 1 << 20]
    assert b"".join(found) == bytes((5 << 20) - 3) + b"end"
    os.close(fd)


def test_a_long_hole_is_told_as_its_length_and_a_short_one_is_read() -> None:
    fd = os.memfd_create("sparse")
    os.ftruncate(fd, 100 * PAGE)
    for page in (40, 42, 99):
        os.pwrite(fd, b"x" * PAGE, page * PAGE)
    before = os.fstat(fd).st_blocks
    written, nothing = b"x" * PAGE, bytes(PAGE)
    assert list(sparse(fd, 100 * PAGE)) == [40 * PAGE, written + nothing + written, 56 * PAGE, written]
    assert os.fstat(fd).st_blocks == before, "looking brings nothing back"
    os.close(fd)


def test_a_hole_at_the_end_is_told_and_what_lies_behind_the_end_is_not() -> None:
    fd = os.memfd_create("sparse")
    os.pwrite(fd, b"x" * PAGE, 0)
    assert list(sparse(fd, 30 * PAGE)) == [b"x" * PAGE]
    os.ftruncate(fd, 20 * PAGE)
    assert list(sparse(fd, 30 * PAGE)) == [b"x" * PAGE, 19 * PAGE]
    os.ftruncate(fd, 0)
    assert list(sparse(fd, 30 * PAGE)) == []
    os.close(fd)


def test_a_large_sparse_memory_with_one_freed_page_has_one_mismatch(scene: Scene) -> None:
    pages = array.array("I", [0] * 1000)
    fd = os.memfd_create("sparse")
    os.ftruncate(fd, len(pages) * PAGE)
    for page in (3, 500, 501, 999):
        pages[page] = 7
        os.pwrite(fd, content(key_of(scene.reality.seed, "web-0"), page, 7), page * PAGE)
    assert list(scene.reality.mismatches("web-0", pages, fd)) == []
    linux.punch_hole(fd, 500 * PAGE, PAGE)
    (found,) = scene.reality.mismatches("web-0", pages, fd)
    assert (found.page, found.found) == (500, "all zero")
    linux.punch_hole(fd, 0, 400 * PAGE)
    assert [each.page for each in scene.reality.mismatches("web-0", pages, fd)] == [3, 500]
    os.close(fd)


def test_a_violation_says_what_is_known_and_nothing_else() -> None:
    finding = Finding()
    finding.violated("web-0", Reason("x", "broken"), pause="web-0.p1", incarnation=None)
    finding.violated(None, Reason("x", "broken"), **page_details(Mismatch(3, 2, "begins 00ff", "all zero")))
    assert finding.violations == [
        {"sandbox": "web-0", "code": "x", "reason": "broken", "pause": "web-0.p1"},
        {"sandbox": "*", "code": "x", "reason": "broken", "page": 3, "expected": "begins 00ff", "found": "all zero"},
    ]


def test_on_hugetlb_which_says_that_all_is_there_zeroed_pages_are_found_by_their_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 1,030 pages, more than one piece; a page counts as written by its last byte, too."""
    count = 1030
    pages = array.array("I", [1, 1, 0, ZEROED | 1, 1] + [1] * (count - 5))
    fd = os.memfd_create("pages")
    os.pwrite(fd, (bytes(PAGE - 1) + b"x") * count, 0)
    for page in (1, 2, 3, 4, 600, count - 1):
        os.pwrite(fd, bytes(PAGE), page * PAGE)
    assert zeroed_pages(pages, fd).tolist() == []
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_bsize=2 << 20))
    assert zeroed_pages(pages, fd).tolist() == [1, 4, 600, count - 1]
    os.close(fd)


def test_a_process_whose_name_is_no_text_is_looked_at_all_the_same() -> None:
    me = SpawnedGuest("web-0", spawned(pid=os.getpid(), start_time=start_time_of(os.getpid()) or 0))
    name = Path("/proc/self/comm")
    before = name.read_bytes()
    name.write_bytes(b") \xff\xfe")
    try:
        assert (me.is_dying(), me.is_running(), me.state()) == (False, True, "R")
    finally:
        name.write_bytes(before)
