"""KVM's log beside the tracker: in the units in which the tracker sees."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import cast

import pytest

from engine.dirty import DirtySet, SharedBitmap, WriteProtectScan
from engine.events import DirtyCompared
from engine.ranges import Blocks
from sim.node.dirty_log import LoggedTracker, compared

PAGE, PAGES = 4096, 2048
PER_HUGE = 512  # pages


class Scan:
    """A tracker that has seen these blocks."""

    name = WriteProtectScan.name

    def __init__(self, *blocks: int) -> None:
        self.blocks = Blocks(blocks)


@pytest.fixture
def noted() -> Iterator[int]:
    """A memfd with a byte a page; pages 3 and 600 were written."""
    fd = os.memfd_create("noted", os.MFD_CLOEXEC)
    os.ftruncate(fd, PAGES)
    for page in (3, 600):
        os.pwrite(fd, b"\1", page)
    yield fd
    os.close(fd)


def beside(fd: int, seen: Scan, per_unit: int) -> DirtyCompared | None:
    log = SharedBitmap(fd, 0, PAGES, PAGE, per_unit * PAGE)
    tracker = LoggedTracker(cast("WriteProtectScan", seen), log, per_unit)
    return compared(tracker, DirtySet(seen.blocks, Blocks(), seen.name, 0.1))


def test_a_write_to_a_huge_page_is_one_of_all_its_blocks_to_both(noted: int) -> None:
    both = beside(noted, Scan(*range(2 * PER_HUGE)), PER_HUGE)
    assert both is not None
    assert (both.tracked, both.logged, both.missed, both.unlogged) == (2 * PER_HUGE, 2 * PER_HUGE, 0, 0)


def test_a_huge_page_that_only_one_of_both_names_is_told_by_its_first_block(noted: int) -> None:
    both = beside(noted, Scan(*range(PER_HUGE), *range(3 * PER_HUGE, 4 * PER_HUGE)), PER_HUGE)
    assert both is not None
    assert (both.missed, both.first_missed) == (PER_HUGE, PER_HUGE)
    assert (both.unlogged, both.first_unlogged) == (PER_HUGE, 3 * PER_HUGE)


def test_small_pages_are_compared_one_by_one(noted: int) -> None:
    both = beside(noted, Scan(3, 4), 1)
    assert both is not None
    assert (both.missed, both.first_missed, both.unlogged, both.first_unlogged) == (1, 600, 1, 4)
