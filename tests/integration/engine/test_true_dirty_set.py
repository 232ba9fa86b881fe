"""What a guest frees, what others write, what is zero: the next build is exact, and stores no byte for nothing."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator

import pytest

from engine import dirty, linux
from engine.dirty import RESIDENT
from engine.events import BuildFinished, CleanVerified, Planned, Scanned
from engine.holders import Holders
from engine.pause import Outcome
from engine.plan import PauseOptions
from engine.snapshot import Header
from tests.integration.engine.guest_process import page_content
from tests.integration.engine.rig import BOTH, MIB, PAGE, Guest, Guests, Pauser

VERIFIED = PauseOptions(background_copy=False, punch=True, verify=True)
Act = Callable[[Guest], object]


@pytest.fixture
def parent(guest: Guest, pauser: Pauser) -> Header:
    """A finished checkpoint of the whole guest, which goes on."""
    assert pauser.pause(guest, build="b1", checkpoint=True).outcome is Outcome.FINISHED
    guest.process.thaw(pauser.condemned)
    pauser.events.clear()
    return pauser.header("b1")


def free(first: int, count: int) -> Act:
    """As a balloon driver does: MADV_REMOVE, by the same call on the fd."""
    return lambda guest: linux.punch_hole(guest.watch, first * PAGE, count * PAGE)


def write(pages: range, seed: int = 7) -> Act:
    return lambda guest: guest.write(pages, seed)


FREED = {
    "some pages": [free(100, 16)],
    "a whole chunk": [free(512, 512)],
    "everything": [free(0, 2048)],
    "written and freed": [write(range(100, 116)), free(100, 16)],
    "freed and written in part": [free(100, 16), write(range(100, 104))],
    "every second page": [free(page, 1) for page in range(0, 2048, 2)],
}


@BOTH
@pytest.mark.parametrize("dedup", [False, True], ids=["plain", "dedup"])
@pytest.mark.parametrize("acts", FREED.values(), ids=FREED)
def test_what_the_guest_freed_is_zero_in_the_next_build_and_not_as_in_the_parent(
    guest: Guest, pauser: Pauser, parent: Header, acts: list[Act], dedup: bool, background: bool
) -> None:
    for act in acts:
        act(guest)
    before = guest.memory()
    result = pauser.pause(guest, build="b2", parent=parent, dedup=dedup, background=background)
    assert result.outcome is Outcome.FINISHED
    assert pauser.restored("b2") == before
    assert pauser.of(Scanned)[0].tracker == "write-protect-scan"
    assert guest.resident() == 0


def test_of_a_sparse_large_block_only_the_pages_that_are_there_are_stored_and_once(
    guests: Guests, shm_pauser: Pauser
) -> None:
    guest = guests.start(16 * MIB).track(block_size=2 * MIB)
    guest.write(range(0, 4096, 512), seed=1)
    before = guest.memory()
    first = shm_pauser.pause(guest, build="b1", block_size=2 * MIB, checkpoint=True)
    assert first.header is not None
    assert first.header.length == 8 * PAGE
    assert first.peak_over is not None
    assert first.peak_over <= MIB
    guest.process.thaw(shm_pauser.condemned)
    second = shm_pauser.pause(guest, build="b2", block_size=2 * MIB, parent=first.header)
    assert second.header is not None
    assert second.header.length == 0
    assert shm_pauser.restored("b2") == before


PATHS: dict[str, dict[str, bool]] = {
    "memfd": {},
    "memfd-background": {"background": True},
    "dedup": {"dedup": True},
    "process": {"by_process": True},
    "in-place": {"checkpoint": True},
}


@pytest.mark.parametrize("path", PATHS)
def test_pages_of_zeros_are_stored_nowhere(guest: Guest, shm_pauser: Pauser, path: str) -> None:
    guest.write(range(0, 2048, 2), seed=0)
    guest.write(range(1024, 1536), seed=0)
    before = guest.memory()
    result = shm_pauser.pause(guest, punch=path != "process", **PATHS[path])
    assert result.outcome is Outcome.FINISHED
    assert result.header is not None
    assert [each.path for each in shm_pauser.of(Planned)] == [path]
    assert shm_pauser.restored() == before
    held = os.stat(shm_pauser.builds / "b1" / "memfile").st_blocks * 512
    told = [each.length for each in shm_pauser.of(BuildFinished)]
    assert [held, result.header.length, *told] == [768 * PAGE] * 3


def test_a_guest_of_zeros_alone_stores_nothing(guest: Guest, shm_pauser: Pauser) -> None:
    guest.write(range(2048), seed=0)
    result = shm_pauser.pause(guest)
    assert result.outcome is Outcome.FINISHED
    assert os.stat(shm_pauser.builds / "b1" / "memfile").st_blocks == 0
    assert shm_pauser.restored() == bytes(8 * MIB)


def by_pwrite(guest: Guest) -> None:
    os.pwrite(guest.watch, page_content(9, 200), 200 * PAGE)


def by_a_mapping_that_is_gone(guest: Guest) -> None:
    with mmap.mmap(guest.watch, 8 * MIB) as memory:
        memory[200 * PAGE : 201 * PAGE] = page_content(9, 200)


def freed_and_read(guest: Guest) -> None:
    linux.punch_hole(guest.watch, 200 * PAGE, PAGE)
    assert guest.ask("read", 200) == bytes(PAGE).hex()


@pytest.mark.parametrize("act", [by_pwrite, by_a_mapping_that_is_gone, freed_and_read])
def test_what_no_tracker_sees_is_found_by_comparing_with_the_parent(
    guest: Guest, pauser: Pauser, parent: Header, act: Act
) -> None:
    act(guest)
    before = guest.memory()
    result = pauser.pause(guest, build="b2", parent=parent, options=VERIFIED)
    pauser.assert_finished(guest, result, before, "b2")
    assert [each.differing for each in pauser.of(CleanVerified)] == [PAGE]


def test_an_untouched_guest_differs_nowhere(guest: Guest, pauser: Pauser, parent: Header) -> None:
    guest.write([5], seed=3)
    before = guest.memory()
    result = pauser.pause(guest, build="b2", parent=parent, options=VERIFIED)
    header = pauser.assert_finished(guest, result, before, "b2")
    assert header.length == PAGE
    assert [(each.compared, each.differing) for each in pauser.of(CleanVerified)] == [(8 * MIB - PAGE, 0)]


@pytest.fixture
def other_process(guest: Guest) -> Iterator[int]:
    """A process that maps the memory and lives on, as a vhost-user back end does."""
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with mmap.mmap(guest.watch, 8 * MIB) as memory:
                memory[300 * PAGE : 301 * PAGE] = page_content(9, 300)
                os.write(ready[1], b"x")
                os.close(done[1])
                os.read(done[0], 1)
        finally:
            os._exit(0)
    os.read(ready[0], 1)
    yield pid
    for fd in (*ready, *done):
        os.close(fd)
    os.waitpid(pid, 0)


@pytest.mark.privileged
def test_another_process_that_holds_the_memory_makes_everything_dirty_and_is_named(
    guest: Guest, pauser: Pauser, parent: Header, other_process: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: who else holds the memory is seen in other processes' maps and fds")
    monkeypatch.setattr("engine.holders._PATIENCE", 20.0)
    monkeypatch.setattr(dirty, "_HOLDERS", Holders())
    before = guest.memory()
    result = pauser.pause(guest, build="b2", parent=parent)
    assert result.outcome is Outcome.FINISHED
    scanned = pauser.of(Scanned)[0]
    assert (scanned.tracker, scanned.why) == (RESIDENT, f"process {other_process} holds the memory, too")
    assert pauser.restored("b2") == before


def test_a_roll_back_leaves_the_guests_own_file_offset_where_it_was(guest: Guest, pauser: Pauser) -> None:
    os.lseek(guest.watch, 12345, os.SEEK_SET)  # the same open file description as the guest's own
    linux.punch_hole(guest.watch, 0, PAGE)
    dirty.resident(guest.memfd)
    vars(dirty)["_walked"](guest.memfd)
    assert os.lseek(guest.watch, 0, os.SEEK_CUR) == 12345


@pytest.mark.parametrize("pages", [[], [0], [2047], range(0, 2048, 2), range(100, 900)], ids=str)
def test_both_ways_to_find_holes_agree_and_allocate_nothing(guests: Guests, pages: list[int]) -> None:
    guest = guests.start()
    guest.write(pages, seed=1)
    held = guest.resident()
    wanted = [page in pages for page in range(2048)]
    assert linux.resident_pages(guest.memfd.fd, guest.memfd.size).tolist() == wanted
    assert vars(dirty)["_walked"](guest.memfd).tolist() == wanted
    assert guest.resident() == held
