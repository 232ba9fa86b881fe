"""Dedup: pages that are zero or as in the parent are not stored; compare, condemn, then drain."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from engine.errors import PinnedBuildError
from engine.events import (
    BuildFinished,
    ChunkPublished,
    ChunkPunched,
    CleanPagesPunched,
    Compared,
    Condemned,
    CopyFailed,
    GuestDied,
    GuestKilled,
    GuestLooked,
    Planned,
    Scanned,
)
from engine.pause import Outcome
from engine.plan import DedupOptions, PauseOptions
from engine.snapshot import Header, delete_build, write_attachments
from tests.integration.engine.rig import MIB, PAGE, PUNCH, Faults, Guest, Guests, Pauser, is_settled, turn_over

PAGES = 2048
SPAN = 512  # pages of a chunk
NEW, SAME, ZERO = (PAGES - SPAN) // 16, PAGES // 4, PAGES // 8


def pages_of(memory: bytes) -> list[bytes]:
    return [memory[at : at + PAGE] for at in range(0, len(memory), PAGE)]


def by_the_page(now: bytes, before: bytes, dirty: set[int]) -> tuple[int, int, int]:
    """The reference: bytes stored, zero and equal among the dirty pages."""
    kinds = [0, 0, 0]
    for index, (page, other) in enumerate(zip(pages_of(now), pages_of(before), strict=True)):
        if index in dirty:
            kinds[1 if not any(page) else 2 if page == other else 0] += PAGE
    return kinds[0], kinds[1], kinds[2]


def compared(pauser: Pauser) -> tuple[int, int, int]:
    event = pauser.of(Compared)[-1]
    return event.stored, event.zero, event.equal


def first_generation(guests: Guests, pauser: Pauser, pages: range = range(PAGES)) -> Header:
    result = pauser.pause(guests.fresh(pages=pages), build="b0")
    assert result.header is not None
    pauser.events.clear()
    return result.header


@pytest.fixture
def parent(guests: Guests, pauser: Pauser) -> Header:
    return first_generation(guests, pauser)


@pytest.fixture
def child(guests: Guests, pauser: Pauser, parent: Header) -> Guest:
    """Pages written anew, to what they were, and to zero; all but the last of four spans have new ones."""
    guest = guests.from_header(pauser.builds, parent)
    guest.write(range(0, PAGES - SPAN, 16), seed=2)
    guest.write(range(1, PAGES, 4), seed=1)
    guest.write(range(2, PAGES, 8), seed=0)
    return guest


@PUNCH
def test_five_generations_store_only_what_differs_and_are_resumed_byte_by_byte(
    guests: Guests, pauser: Pauser, punch: bool
) -> None:
    guest = guests.fresh(pages=[*range(300), *range(1000, 1100, 7)])
    parent, last, kept = None, bytes(8 * MIB), []
    dirty = {*range(300), *range(1000, 1100, 7)}
    for generation in range(5):
        kept.append(guest.memory())
        build = f"g{generation}"
        result = pauser.pause(guest, build=build, parent=parent, punch=punch, dedup=True)
        parent = pauser.assert_finished(guest, result, kept[-1], build)
        assert pauser.of(Planned)[-1].path == "dedup"
        assert compared(pauser) == by_the_page(kept[-1], last, dirty)
        assert parent.length == compared(pauser)[0]
        assert guest.resident() == 0 or not punch
        guest, last = guests.from_header(pauser.builds, parent), kept[-1]
        assert guest.memory() == last
        new = range(generation * 200, generation * 200 + 90, 1 + generation)
        zero = range(20 * generation, 20 * generation + 15)
        same = [*range(40, 60), *range(1000, 1100, 7)]
        was, first = pages_of(last), pages_of(kept[0])
        zeros = {page for page in same if not any(was[page])}
        unchanged = {page for page in same if was[page] == first[page]} - zeros
        guest.write(new, seed=generation + 2)
        guest.write(zero, seed=0)
        guest.write(zeros, seed=0)
        guest.write(unchanged, seed=1)  # to what it was
        dirty = {*new, *zero} | zeros | unchanged
    assert [pauser.restored(f"g{n}") for n in range(5)] == kept


@PUNCH
def test_pages_written_to_what_they_were_are_not_stored(
    pauser: Pauser, child: Guest, parent: Header, punch: bool
) -> None:
    before = child.memory()
    result = pauser.pause(child, build="b1", parent=parent, punch=punch, dedup=True)
    header = pauser.assert_finished(child, result, before, "b1")
    assert compared(pauser) == (NEW * PAGE, ZERO * PAGE, SAME * PAGE)
    assert header.length == os.path.getsize(pauser.builds / "b1" / "memfile") == NEW * PAGE


def test_a_guest_that_wrote_only_what_was_there_stores_nothing_and_is_punched_whole(
    guests: Guests, pauser: Pauser, parent: Header
) -> None:
    guest = guests.from_header(pauser.builds, parent)
    guest.write(range(0, PAGES, 2), seed=1)
    before = guest.memory()
    result = pauser.pause(guest, build="b1", parent=parent, dedup=True)
    header = pauser.assert_finished(guest, result, before, "b1")
    assert (header.length, guest.resident()) == (0, 0)
    kinds = [type(event) for event in pauser.events]
    ended = [Condemned, GuestLooked, GuestKilled, GuestDied]
    assert kinds == [Scanned, Compared, Planned, *ended, CleanPagesPunched, BuildFinished]


def test_a_first_generation_leaves_out_its_zeros(guests: Guests, pauser: Pauser) -> None:
    guest = guests.fresh(pages=range(1000))
    guest.write(range(500, 1500), seed=0)
    before = guest.memory()
    result = pauser.pause(guest, dedup=True)
    header = pauser.assert_finished(guest, result, before, "b1")
    assert compared(pauser) == (500 * PAGE, 1000 * PAGE, 0)
    assert header.length == 500 * PAGE


def test_of_a_large_block_only_the_pages_that_differ_are_stored(guests: Guests, pauser: Pauser) -> None:
    guest = guests.start().track(block_size=2 * MIB)
    guest.write(range(PAGES), seed=1)
    first = pauser.pause(guest, build="b0", block_size=2 * MIB)
    assert first.header is not None
    guest = guests.from_header(pauser.builds, first.header)
    guest.write([5, 1030], seed=2)
    guest.write([600], seed=0)
    before = guest.memory()
    result = pauser.pause(guest, build="b1", parent=first.header, block_size=2 * MIB, dedup=True)
    header = pauser.assert_finished(guest, result, before, "b1")
    assert pauser.of(Scanned)[-1].dirty_bytes == 6 * MIB
    assert compared(pauser) == (2 * PAGE, PAGE, 6 * MIB - 3 * PAGE)
    assert (header.length, header.mapping.block_size, guest.resident()) == (2 * PAGE, 2 * MIB, 0)


def test_what_is_not_owed_is_freed_after_the_compare_and_the_rest_as_it_is_drained(
    pauser: Pauser, child: Guest, parent: Header, faults: Faults
) -> None:
    before, resident = child.memory(), child.resident()
    held: list[tuple[int | None, int]] = []
    effects = faults.before("punch", lambda *args: held.append((args[-1] and args[-1].index, child.resident())))
    result = pauser.pause(child, build="b1", parent=parent, effects=effects, dedup=True)
    pauser.assert_finished(child, result, before, "b1")
    assert resident == 8 * MIB
    assert pauser.of(CleanPagesPunched)[0].freed >= SPAN * PAGE
    rest = [left for chunk, left in held if chunk is not None]
    assert rest[0] <= resident - SPAN * PAGE
    assert rest == sorted(rest, reverse=True)
    assert len(pauser.of(ChunkPunched)) == 3
    assert child.resident() == 0
    kinds = [type(event) for event in pauser.events]
    published = kinds.index(ChunkPublished)
    assert kinds.index(Compared) < published < kinds.index(Condemned) < kinds.index(CleanPagesPunched)


@pytest.mark.parametrize("dirty", ["all", "scattered"])
def test_the_peak_of_a_punched_dedup_is_what_the_guest_held(guests: Guests, pauser: Pauser, dirty: str) -> None:
    size = 24 * MIB
    first = pauser.pause(guests.fresh(size), build="b0")
    assert first.header is not None
    guest = guests.from_header(pauser.builds, first.header)
    guest.write(range(0, size // PAGE, 1 if dirty == "all" else 3), seed=2)
    result = pauser.pause(guest, build="b1", parent=first.header, dedup=True)
    assert result.outcome is Outcome.FINISHED
    assert result.peak_over is not None
    assert result.peak_over <= 8 * MIB


def test_without_punching_the_peak_is_the_stored_bytes_more(pauser: Pauser, child: Guest, parent: Header) -> None:
    result = pauser.pause(child, build="b1", parent=parent, punch=False, dedup=True)
    assert result.peak_over is not None
    assert NEW * PAGE <= result.peak_over <= NEW * PAGE + 8 * MIB
    assert result.punched_bytes == 0


@PUNCH
@pytest.mark.parametrize("at", [0, 5 * MIB, 8 * MIB - 1])
def test_a_parent_that_is_corrupt_rolls_back_before_anything_is_destroyed(
    pauser: Pauser, child: Guest, parent: Header, punch: bool, at: int
) -> None:
    before = child.memory()
    memfile = pauser.builds / "b0" / "memfile"
    turn_over(memfile, at)
    result = pauser.pause(child, build="b1", parent=parent, punch=punch, dedup=True)
    assert f"build b0: chunk {at // (2 * MIB)} does not match" in str(result.error)
    assert [(event.call, event.condemned) for event in pauser.of(CopyFailed)] == [("CorruptBuildError", False)]
    pauser.assert_rolled_back(child, result, before, left=["b0"])
    turn_over(memfile, at)
    child.write([77, 1500], seed=5)
    before = child.memory()
    pauser.assert_finished(child, pauser.pause(child, build="b2", parent=parent, dedup=True), before, "b2")


def test_a_parent_that_is_deleted_after_the_compare_rolls_back(
    pauser: Pauser, child: Guest, parent: Header, faults: Faults
) -> None:
    before = child.memory()
    effects = faults.before("create_cache", lambda *_: delete_build(pauser.builds, "b0"))
    result = pauser.pause(child, build="b1", parent=parent, effects=effects, dedup=True)
    assert "build b0 is not finished" in str(result.error)
    assert result.parent_damaged
    pauser.assert_rolled_back(child, result, before)


def test_a_parent_cannot_be_deleted_between_the_look_at_it_and_the_word_that_it_is_stood_on(
    pauser: Pauser, child: Guest, parent: Header, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[bool] = []

    def write_while_held(attachments: dict[str, bytes], folder: Path) -> None:
        fd = os.open(pauser.builds, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.append(True)
        os.close(fd)
        write_attachments(attachments, folder)

    monkeypatch.setattr("engine.writing.write_attachments", write_while_held)
    assert pauser.pause(child, build="b1", parent=parent, dedup=True).outcome is Outcome.FINISHED
    assert held == [True]


@pytest.mark.parametrize("call", ["copy_write", "condemn", "punch", "write_header"])
def test_a_parent_cannot_be_deleted_once_the_cache_is_begun(
    pauser: Pauser, child: Guest, parent: Header, faults: Faults, call: str
) -> None:
    refused: list[bool] = []

    def delete(*_: object) -> None:
        with pytest.raises(PinnedBuildError, match=r"b1\.partial stands on it"):
            delete_build(pauser.builds, "b0")
        refused.append(True)

    before = child.memory()
    result = pauser.pause(child, build="b1", parent=parent, effects=faults.before(call, delete), dedup=True)
    pauser.assert_finished(child, result, before, "b1")
    assert refused
    with pytest.raises(PinnedBuildError, match="b1 stands on it"):
        delete_build(pauser.builds, "b0")


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EMFILE, errno.ENOMEM])
def test_a_compare_that_fails_rolls_back_and_forgets_nothing(
    pauser: Pauser, child: Guest, parent: Header, faults: Faults, number: int
) -> None:
    before = child.memory()
    effects = faults.failing("compare", number)
    result = pauser.pause(child, build="b1", parent=parent, effects=effects, dedup=True)
    pauser.assert_rolled_back(child, result, before, left=["b0"])
    child.write([77], seed=5)
    before = child.memory()
    pauser.assert_finished(child, pauser.pause(child, build="b2", parent=parent, dedup=True), before, "b2")


def test_a_guest_that_dies_while_it_is_compared_leaves_no_build(
    pauser: Pauser, child: Guest, parent: Header, faults: Faults
) -> None:
    effects = faults.before("compare", lambda *_: child.process.kill())
    result = pauser.pause(child, build="b1", parent=parent, effects=effects, dedup=True)
    assert (result.outcome, result.condemned) == (Outcome.ROLLED_BACK, False)
    assert pauser.names() == ["b0"]


def test_a_guest_that_is_woken_while_it_is_compared_is_not_condemned(
    pauser: Pauser, child: Guest, parent: Header, faults: Faults
) -> None:
    def wake(*_: object) -> None:
        os.kill(child.pid, signal.SIGCONT)
        child.write([9], seed=7)

    effects = faults.before("compare", wake)
    result = pauser.pause(child, build="b1", parent=parent, effects=effects, dedup=True)
    assert (result.outcome, result.condemned) == (Outcome.ROLLED_BACK, False)
    before = child.memory()
    pauser.assert_finished(child, pauser.pause(child, build="b2", parent=parent, dedup=True), before, "b2")


@pytest.mark.parametrize("call", ["compare", "create_cache", "copy_write"])
def test_a_cancel_before_the_record_rolls_back(
    pauser: Pauser, child: Guest, parent: Header, faults: Faults, call: str
) -> None:
    before, said = child.memory(), list[bool]()
    effects = faults.before(call, lambda *_: said.append(pause.cancel()))
    pause = pauser.prepare(child, build="b1", parent=parent, effects=effects, dedup=True)
    pause.begin()
    result = pause.settle(20)
    assert said[0]
    pauser.assert_rolled_back(child, result, before, left=["b0"])


def test_memory_that_in_flight_readers_may_need_is_not_punched(pauser: Pauser, child: Guest, parent: Header) -> None:
    before, resident = child.memory(), child.resident()
    options = PauseOptions(punch=True, dedup=DedupOptions(True, ("bestEffort",)), inflight_serve=True)
    result = pauser.pause(child, build="b1", parent=parent, options=options)
    pauser.assert_finished(child, result, before, "b1")
    assert (result.punched_bytes, child.resident()) == (0, resident)
    planned = pauser.of(Planned)[-1]
    assert "in-flight readers" in planned.punch_reason
    assert [note.split(" ")[0].rstrip(":") for note in planned.notes] == [
        "memfd-punch-on-snapshot",
        "memfile-diff-dedup",
    ]


def test_a_record_that_cannot_be_written_ends_punching_and_not_the_drain(
    pauser: Pauser, child: Guest, parent: Header, faults: Faults
) -> None:
    before, resident = child.memory(), child.resident()
    effects = faults.failing("condemn", errno.ENOSPC)
    result = pauser.pause(child, build="b1", parent=parent, effects=effects, dedup=True)
    pauser.assert_finished(child, result, before, "b1", condemned=False)
    assert (result.punched_bytes, child.resident()) == (0, resident)


@pytest.mark.parametrize("chunk", [None, 0, 2])
def test_a_punch_that_fails_ends_punching_and_not_the_drain(
    pauser: Pauser, child: Guest, parent: Header, faults: Faults, chunk: int | None
) -> None:
    def refuse(*arguments: Any) -> None:
        if (arguments[-1].index if arguments[-1] else None) == chunk:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    before = child.memory()
    effects = faults.before("punch", refuse)
    result = pauser.pause(child, build="b1", parent=parent, effects=effects, dedup=True)
    pauser.assert_finished(child, result, before, "b1")
    assert "not permitted" in str(result.punch_error)


def test_the_answer_comes_after_the_compare_and_before_the_drain_ends(
    pauser: Pauser, child: Guest, parent: Header, faults: Faults
) -> None:
    answered, before = threading.Event(), child.memory()

    def hold() -> None:
        assert answered.wait(20)

    options = PauseOptions(background_copy=False, punch=True, dedup=DedupOptions(True))
    pause = pauser.prepare(
        child, build="b1", parent=parent, options=options, effects=faults.at_chunk("copy_read", 2, hold)
    )
    pause.begin()
    assert not is_settled(pause)
    assert pauser.of(Compared)
    assert pause.header is not None
    assert pauser.condemned.holds(child.process.incarnation)
    answered.set()
    pauser.assert_finished(child, pause.settle(20), before, "b1")


def test_where_no_thread_can_be_started_one_worker_compares_and_drains(
    pauser: Pauser, child: Guest, parent: Header, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = child.memory()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    result = pauser.pause(child, build="b1", parent=parent, dedup=True)
    pauser.assert_finished(child, result, before, "b1")


def test_a_guest_that_lost_its_tracker_is_compared_whole(guests: Guests, pauser: Pauser, parent: Header) -> None:
    guest = guests.from_header(pauser.builds, parent)
    guest.write(range(20), seed=2)
    guest.write(range(100, 140), seed=0)
    guest.ask("unmap")
    os.pwrite(guest.notes, bytes(PAGES), 0)
    before = guest.memory()
    result = pauser.pause(guest, build="b1", parent=parent, dedup=True)
    header = pauser.assert_finished(guest, result, before, "b1")
    if pauser.of(Scanned)[-1].tracker == "resident-blocks":
        assert header.length == 20 * PAGE


@pytest.mark.privileged
@pytest.mark.parametrize("block", [PAGE, 2 * MIB], ids=["4KiB-blocks", "2MiB-blocks"])
def test_a_hugetlb_guest_is_compared_in_pages_of_4_kib_and_punched_in_pages_of_2_mib(
    huge_pages: int, guests: Guests, pauser: Pauser, faults: Faults, block: int
) -> None:
    guest = guests.start(8 * MIB, huge=True).track(block_size=block)
    guest.write([0, 5, 600, 1999], seed=1)
    first = pauser.pause(guest, build="b0", block_size=block)
    assert first.header is not None
    guest = guests.from_header(pauser.builds, first.header, huge=True)
    guest.write([0, 600], seed=1)  # as they were
    guest.write([5], seed=0)
    guest.write([2000], seed=2)
    before, steps = guest.memory(), list[int]()
    effects = faults.before("punch", lambda *args: steps.append(args[2]))
    result = pauser.pause(guest, build="b1", parent=first.header, block_size=block, effects=effects, dedup=True)
    header = pauser.assert_finished(guest, result, before, "b1")
    assert header.length == PAGE
    assert guest.resident() == 0
    assert steps
    assert all(length % (2 * MIB) == 0 for length in steps)
