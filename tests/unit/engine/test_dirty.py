"""What is dirty, freed or zero, worked out of bitmaps and of what the kernel holds: values, no guest."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from engine import dirty, linux
from engine.dirty import RESIDENT, DirtySet, SharedBitmap, freed_unseen, in_pages, resident, resident_blocks, scan
from engine.incarnation import GuestProcess
from engine.mapping import Mapping, create, diff, merge
from engine.memfd import Memfd, ProcessMemory
from engine.ranges import Blocks

PAGE, HUGE = 4096, 2 << 20
PAGES = 16


def parent_of(pages: Iterable[int], size: int = PAGES * PAGE) -> Mapping:
    """A build that stores these pages, and above it one that made the last of them zero again."""
    made = create(Blocks(pages), "b1", size, PAGE)
    return merge(made, diff(Blocks(), Blocks([size // PAGE - 1]), "b2", PAGE))


def found(written: Iterable[int] = (), empty: Iterable[int] = (), tracker: str = "its own") -> DirtySet:
    return DirtySet(Blocks(written), Blocks(empty), tracker, 1.5, None)


@pytest.fixture
def memfd() -> Iterator[Memfd]:
    """Pages 0 to 3 and 8 are there."""
    fd = os.memfd_create("guest", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, PAGES * PAGE)
    for page in (0, 1, 2, 3, 8):
        os.pwrite(fd, b"x", page * PAGE)
    made = Memfd.adopt(fd, PAGES * PAGE)
    yield made
    made.close()


def test_the_pages_that_a_parent_holds_are_those_of_its_builds_and_not_its_zeros() -> None:
    assert np.flatnonzero(dirty.stored_pages(parent_of([0, 1, 5, 14, 15]))).tolist() == [0, 1, 5, 14]
    assert not dirty.stored_pages(parent_of([15])).any()
    assert dirty.stored_pages(create(Blocks(range(PAGES)), "b1", PAGES * PAGE, PAGE)).all()


@pytest.mark.parametrize("look", ["mincore", "walk", "swapped"])
def test_pages_that_are_there_are_found_in_every_way_and_no_offset_is_moved(
    memfd: Memfd, look: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "no mincore")

    if look == "walk":
        monkeypatch.setattr(linux, "resident_pages", refuse)
    if look == "swapped":  # fewer than are held
        monkeypatch.setattr(linux, "resident_pages", lambda *_: np.zeros(PAGES, dtype=bool))
    os.lseek(memfd.fd, 5, os.SEEK_SET)
    there = resident(memfd)
    assert there is not None
    assert np.flatnonzero(there).tolist() == [0, 1, 2, 3, 8]
    assert os.lseek(memfd.fd, 0, os.SEEK_CUR) == 5
    assert list(resident_blocks(memfd, PAGE)) == [0, 1, 2, 3, 8]
    assert list(resident_blocks(memfd, 4 * PAGE)) == [0, 2]
    os.pwrite(memfd.fd, b"x" * PAGES * PAGE, 0)
    there = resident(memfd)
    assert there is not None
    assert there.all()


def test_without_a_report_of_the_kernel_every_block_may_be_there() -> None:
    huge = cast("Memfd", SimpleNamespace(page_size=HUGE, size=4 * HUGE))
    assert resident(huge) is None
    assert list(resident_blocks(huge, HUGE)) == [0, 1, 2, 3]
    assert list(resident_blocks(ProcessMemory(1, 0, 3 * HUGE, PAGE), HUGE)) == [0, 1, 2]


def test_a_hole_where_the_parent_or_the_dirty_set_has_a_page_is_empty(memfd: Memfd) -> None:
    """Page 2 is clean and there, 5 is a hole that the parent holds, 9 is dirty and a hole, 12 is known to be zero."""
    refined = in_pages(found([0, 8, 9], [12]), memfd, parent_of([2, 5]), PAGE)
    assert refined is not None
    assert (list(refined.dirty), list(refined.empty)) == ([0, 8], [5, 9, 12])
    assert (refined.tracker, refined.scan_ms) == ("its own", 1.5)


def test_of_a_large_block_the_pages_that_are_there_are_dirty(memfd: Memfd) -> None:
    refined = in_pages(found([0, 2], [1]), memfd, parent_of([15]), 4 * PAGE)
    assert refined is not None
    assert (list(refined.dirty), list(refined.empty)) == ([0, 1, 2, 3, 8], [4, 5, 6, 7, 9, 10, 11])


def test_where_there_is_nothing_to_refine_there_is_none(memfd: Memfd) -> None:
    nothing = parent_of([15])  # zeros alone
    assert in_pages(found([0]), memfd, nothing, PAGE) is None
    assert in_pages(found([0], tracker=RESIDENT), memfd, nothing, PAGE) is not None
    os.pwrite(memfd.fd, b"x" * PAGES * PAGE, 0)
    assert in_pages(found([0]), memfd, parent_of([5]), PAGE) is None
    huge = cast("Memfd", SimpleNamespace(page_size=HUGE, size=4 * HUGE))
    assert in_pages(found([0]), huge, parent_of([5], 4 * HUGE), PAGE) is None


@pytest.mark.parametrize(
    ("written", "block", "stored", "held", "is_unseen"),
    [
        ([], PAGE, [0], 1, False), ([], PAGE, [0], 0, True), ([], PAGE, [0, 511, 512], 2, False),
        ([], PAGE, [0, 511, 512], 1, True), ([600], PAGE, [0], 2, False), ([600], PAGE, [0], 1, True),
        ([1], HUGE, [0], 1, True), ([1], HUGE, [0], 2, False), ([], PAGE, [], 0, False), ([0], PAGE, [1], 1, False),
    ],
)  # fmt: skip
def test_huge_pages_that_the_guest_freed_are_missed_by_their_number(
    written: list[int], block: int, stored: list[int], held: int, is_unseen: bool
) -> None:
    huge = cast("Memfd", SimpleNamespace(page_size=HUGE, size=4 * HUGE, resident_bytes=lambda: held * HUGE))
    assert freed_unseen(found(written), huge, parent_of(stored, 4 * HUGE), block) is is_unseen
    small = cast("Memfd", SimpleNamespace(page_size=PAGE, size=4 * HUGE, resident_bytes=lambda: 0))
    assert not freed_unseen(found(written), small, parent_of(stored, 4 * HUGE), block)


# -- a scan


class Guest:
    """Alive, alone."""

    incarnation = SimpleNamespace(pid=7)

    def __init__(self, children: list[int] | None = None, *, dead: bool = False) -> None:
        self.forked, self.dead = children, dead

    def children(self) -> list[int] | None:
        return self.forked

    def is_dead(self) -> bool:
        return self.dead


class Answer:
    name = "its own"

    def __init__(self, blocks: Iterable[int] | None) -> None:
        self.blocks = None if blocks is None else Blocks(blocks)
        self.asked: list[bool] = []

    def written(self, *, rearm: bool) -> Blocks | None:
        self.asked.append(rearm)
        return self.blocks

    def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(
    ("guest", "answer", "others", "why"),
    [
        (Guest(), [3], set(), None),
        (Guest([]), [3], set(), None),
        (Guest([9, 10]), [3], set(), "the guest has forked: process 9 shares its memory"),
        (Guest(), None, set(), "its own cannot answer"),
        (Guest(dead=True), [3], set(), "its own cannot answer"),
        (Guest(), [3], {12, 11}, "process 11 holds the memory, too"),
        (Guest(), None, {11}, "process 11 holds the memory, too"),
    ],
)
def test_a_tracker_is_believed_while_its_guest_lives_and_nobody_else_may_write(
    memfd: Memfd,
    guest: Guest,
    answer: list[int] | None,
    others: set[int],
    why: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def of(inode: int, but: set[int]) -> set[int]:
        asked.append((inode, but))
        return others

    monkeypatch.setattr(dirty, "_HOLDERS", SimpleNamespace(of=of))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    tracker = Answer(answer)
    got = scan(tracker, cast("GuestProcess", guest), memfd, PAGE, rearm=True)
    assert tracker.asked == [True]
    assert got.why == why
    if why is None:
        assert (list(got.dirty), list(got.empty), got.tracker) == ([3], [], "its own")
    else:
        empty = sorted(set(range(PAGES)) - {0, 1, 2, 3, 8})
        assert (list(got.dirty), list(got.empty), got.tracker) == ([0, 1, 2, 3, 8], empty, RESIDENT)
    assert 0 <= got.scan_ms < 60_000
    assert asked == ([] if guest.forked else [(memfd.inode, {7, os.getpid()})])
    asked.clear()
    scan(tracker, cast("GuestProcess", Guest()), memfd, PAGE)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    scan(tracker, cast("GuestProcess", Guest()), memfd, PAGE)
    assert (len(asked), tracker.asked) == (1, [True, False, False])


def test_notes_of_the_guest_are_blocks_and_are_cleared_when_they_are_asked_for_so() -> None:
    fd = os.memfd_create("notes")
    os.pwrite(fd, b"\1" * 3 + bytes([0, 1, 0, 0, 7, 0, 2]) + b"\1", 0)
    notes = SharedBitmap(fd, 3, 7, PAGE, 2 * PAGE)
    for rearm, expected in ((False, [0, 2, 3]), (True, [0, 2, 3]), (False, [])):
        blocks = notes.written(rearm=rearm)
        assert blocks is not None
        assert list(blocks) == expected
    assert os.pread(fd, 20, 0) == b"\1" * 3 + bytes(7) + b"\1"
    assert SharedBitmap(fd, 5, 7, PAGE, PAGE).written(rearm=False) is None  # the file ends before that
    os.close(fd)
