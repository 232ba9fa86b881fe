from __future__ import annotations

import errno
import os
import signal

import pytest

from engine import dirty
from engine.events import Scanned
from engine.pause import Outcome
from engine.ranges import Blocks
from tests.integration.engine.rig import MIB, PAGE, Faults, Guest, Guests, Pauser


def assert_paused_exactly_from_resident_blocks(pauser: Pauser, guest: Guest) -> None:
    before, resident = guest.memory(), guest.resident()
    result = pauser.pause(guest)
    assert result.outcome is Outcome.FINISHED
    scanned = pauser.of(Scanned)[-1]
    assert scanned.tracker == dirty.RESIDENT
    assert scanned.dirty_bytes == resident
    assert scanned.empty_bytes == len(before) - resident
    assert pauser.restored() == before


def test_a_guest_cannot_resize_its_memory_once_it_was_received(guest: Guest) -> None:
    for size in (0, 4 * MIB, 16 * MIB):
        assert guest.ask("truncate", size) == f"errno {errno.EPERM}"
    assert len(guest.memory()) == 8 * MIB


@pytest.mark.usefixtures("write_protection")
def test_a_guest_that_unmapped_its_memory_has_every_resident_block_dirty(guests: Guests, pauser: Pauser) -> None:
    guest = guests.fresh(pages=range(0, 2048, 5))
    guest.ask("unmap")
    assert_paused_exactly_from_resident_blocks(pauser, guest)


@pytest.mark.usefixtures("write_protection")
def test_a_guest_that_writes_by_a_second_mapping_has_every_resident_block_dirty(guests: Guests, pauser: Pauser) -> None:
    guest = guests.fresh(pages=range(50))
    guest.ask("write_by_another_mapping", 1700, 3)
    assert_paused_exactly_from_resident_blocks(pauser, guest)


@pytest.mark.usefixtures("write_protection")
def test_a_guest_that_ended_the_tracking_has_every_resident_block_dirty(guests: Guests, pauser: Pauser) -> None:
    guest = guests.fresh(pages=range(50))
    guest.ask("stop_tracking")
    guest.write([1800], seed=4)
    assert_paused_exactly_from_resident_blocks(pauser, guest)


@pytest.mark.usefixtures("write_protection")
def test_a_later_generation_that_lost_its_tracker_is_exact_all_the_same(guests: Guests, pauser: Pauser) -> None:
    first = pauser.pause(guests.fresh(pages=range(0, 1000, 3)))
    assert first.header is not None
    guest = guests.from_header(pauser.builds, first.header)
    guest.write([0, 3, 6], seed=0)
    guest.write([1, 2000], seed=2)
    guest.ask("unmap")
    before = guest.memory()
    result = pauser.pause(guest, build="b2", parent=first.header)
    assert result.outcome is Outcome.FINISHED
    assert pauser.restored("b2") == before


@pytest.mark.usefixtures("write_protection")
def test_a_dead_guest_is_not_believed_when_it_says_that_nothing_was_written(guests: Guests) -> None:
    guest = guests.fresh(pages=range(0, 2048, 5))
    assert guest.tracker is not None
    os.kill(guest.pid, signal.SIGKILL)
    guest.process.kill()
    found = dirty.scan(guest.tracker, guest.process, guest.memfd, PAGE)
    assert found.tracker == dirty.RESIDENT
    assert list(found.dirty) == list(range(0, 2048, 5))
    assert len(found.dirty) + len(found.empty) == 2048


def test_a_guest_that_dies_between_the_look_and_the_scan_is_not_believed(guests: Guests) -> None:
    class Late:
        """Answers like a tracker whose guest died in the middle of its answer."""

        name = "late"

        def written(self, *, rearm: bool) -> Blocks | None:
            guest.process.kill()
            return Blocks()

        def close(self) -> None: ...

    guest = guests.fresh(pages=[4, 9])
    found = dirty.scan(Late(), guest.process, guest.memfd, PAGE)
    assert list(found.dirty) == [4, 9]


@pytest.mark.usefixtures("write_protection")
def test_a_guest_whose_maps_cannot_be_read_has_no_answer(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = guests.fresh(pages=[1])
    assert guest.tracker is not None
    assert guest.tracker.written(rearm=False) == Blocks([1])

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "not dumpable")

    monkeypatch.setattr("engine.linux.open", refuse, raising=False)
    assert guest.tracker.written(rearm=False) is None


@pytest.mark.usefixtures("write_protection")
def test_the_kernel_and_the_guests_own_bitmap_agree_on_what_was_written(guests: Guests) -> None:
    pages = [0, 1, 2, 511, 512, 700, 1024, 2047]
    by_kernel, by_guest = guests.fresh(pages=pages), guests.fresh(pages=pages, bitmap=True)
    assert by_kernel.tracker is not None
    assert by_guest.tracker is not None
    assert by_kernel.tracker.written(rearm=False) == by_guest.tracker.written(rearm=False) == Blocks(pages)


@pytest.mark.parametrize("bitmap", [False, True], ids=["kernel", "bitmap"])
def test_a_scan_forgets_nothing_unless_it_re_arms(guests: Guests, bitmap: bool) -> None:
    guest = guests.fresh(pages=[3, 4], bitmap=bitmap)
    assert guest.tracker is not None
    assert guest.tracker.written(rearm=False) == Blocks([3, 4])
    assert guest.tracker.written(rearm=True) == Blocks([3, 4])
    assert guest.tracker.written(rearm=False) == Blocks()
    guest.write([4, 5], seed=6)
    assert guest.tracker.written(rearm=False) == Blocks([4, 5])


def test_a_guest_that_shortens_its_bitmap_has_every_resident_block_dirty(guests: Guests, pauser: Pauser) -> None:
    guest = guests.fresh(pages=range(0, 2048, 5), bitmap=True)
    os.ftruncate(guest.notes, 100)
    assert_paused_exactly_from_resident_blocks(pauser, guest)


def test_reading_its_memory_does_not_make_a_guest_dirty(guests: Guests) -> None:
    guest = guests.fresh(pages=[3])
    assert guest.ask("read", 100) == bytes(PAGE).hex()
    assert guest.tracker is not None
    assert guest.tracker.written(rearm=False) == Blocks([3])


def test_a_guest_woken_between_copies_never_mixes_two_moments_into_a_build(
    guests: Guests, pauser: Pauser, faults: Faults
) -> None:
    guest = guests.fresh()

    def wake_and_write() -> None:
        os.kill(guest.pid, signal.SIGCONT)
        guest.write(range(0, 2048, 100), seed=7)

    result = pauser.pause(guest, punch=False, effects=faults.at_chunk("copy_read", 2, wake_and_write))
    assert result.outcome is Outcome.ROLLED_BACK
    assert pauser.names() == []
    before = guest.memory()
    assert pauser.pause(guest, build="b2").outcome is Outcome.FINISHED
    assert pauser.restored("b2") == before
