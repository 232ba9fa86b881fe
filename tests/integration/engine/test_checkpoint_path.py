"""A checkpoint borrows the memory: the same guest goes on, never punched, never condemned, nothing forgotten."""

from __future__ import annotations

import errno
import itertools
import os
import signal
from typing import Any

import pytest

from engine.effects import Effects
from engine.errors import EngineError
from engine.events import (
    BuildFinished,
    ChunkPublished,
    ChunkPunched,
    CleanPagesPunched,
    Compared,
    Condemned,
    CopyFailed,
    Planned,
    Scanned,
)
from engine.pause import Outcome, PauseResult
from engine.plan import DedupOptions, PauseOptions
from engine.ranges import Blocks
from engine.snapshot import Build, Header, delete_build
from tests.descriptors import open_before
from tests.integration.engine.rig import CHUNKS, MIB, PAGE, Faults, Guest, Guests, Pauser, is_settled

BOTH = (False, True)
PAGES = range(0, 2048, 16)
DESTRUCTIVE = {Condemned, ChunkPunched, CleanPagesPunched, Compared}


@pytest.fixture
def guest(sparse_guest: Guest) -> Guest:
    return sparse_guest


def checkpoint(pauser: Pauser, guest: Guest, **more: Any) -> PauseResult:
    return pauser.pause(guest, checkpoint=True, **more)


def assert_goes_on(pauser: Pauser, guest: Guest, before: bytes, resident: int) -> None:
    """Still stopped, uncondemned, every byte and every page of it there; then it runs."""
    assert guest.process.is_stopped()
    assert list(pauser.condemned.records()) == []
    assert guest.memfd.fd >= 0
    assert (guest.memory(), guest.resident()) == (before, resident)
    assert not [event for event in pauser.events if type(event) in DESTRUCTIVE]
    guest.process.thaw(pauser.condemned)
    assert guest.is_alive_and_runs()


def header_of(result: PauseResult) -> Header:
    assert (result.outcome, result.error) == (Outcome.FINISHED, None)
    assert result.header is not None
    return result.header


def written(guest: Guest) -> Blocks | None:
    assert guest.tracker is not None
    return guest.tracker.written(rearm=False)


class Forbidden(Effects):
    """Fails where a checkpoint does what it never may."""

    def condemn(self, *_: object) -> Any:
        raise AssertionError("condemned")

    def punch(self, *_: object) -> None:
        raise AssertionError("punched")

    def kill(self, *_: object) -> None:
        raise AssertionError("killed")

    def retire(self, *_: object) -> None:
        raise AssertionError("retired")

    def compare(self, *_: object) -> Any:
        raise AssertionError("compared")


@pytest.mark.parametrize(
    ("use_memfd", "background", "punch", "dedup", "inflight"), list(itertools.product(BOTH, BOTH, BOTH, BOTH, BOTH))
)
def test_whatever_the_flags_say_a_checkpoint_frees_nothing_and_condemns_nobody(
    guest: Guest, pauser: Pauser, use_memfd: bool, background: bool, punch: bool, dedup: bool, inflight: bool
) -> None:
    before, resident = guest.memory(), guest.resident()
    options = PauseOptions(use_memfd, background, punch, DedupOptions(dedup), inflight)
    pause = pauser.prepare(guest, options=options, checkpoint=True, effects=Forbidden())
    pause.begin()
    assert is_settled(pause)  # it answers when its copy is done
    result = pause.settle(0)
    header = header_of(result)
    planned = pauser.of(Planned)[-1]
    assert (planned.path, planned.punch) == ("in-place", False)
    assert (result.condemned, result.punched_bytes, header.length) == (False, 0, resident)
    assert_goes_on(pauser, guest, before, resident)
    assert pauser.restored() == before


def test_a_checkpoint_refuses_to_condemn_even_when_it_is_told_to(guest: Guest, pauser: Pauser) -> None:
    pause = pauser.prepare(guest, checkpoint=True)
    pause._writing.prepare(pauser.events.append, pauser.events.append)
    with pytest.raises(EngineError, match="may not be condemned"):
        pause._condemn()
    assert list(pauser.condemned.records()) == []


def test_its_peak_is_the_dirty_bytes_more(guest: Guest, pauser: Pauser) -> None:
    result = checkpoint(pauser, guest)
    assert result.peak_over is not None
    assert guest.resident() <= result.peak_over <= guest.resident() + 8 * MIB


def test_the_next_pause_holds_exactly_what_changed_since(guest: Guest, pauser: Pauser) -> None:
    first = header_of(checkpoint(pauser, guest))
    assert written(guest) == Blocks()
    guest.process.thaw(pauser.condemned)
    guest.write([3, 16, 1500], seed=2)
    guest.write([32], seed=0)
    before = guest.memory()
    second = header_of(pauser.pause(guest, build="b2", parent=first))
    assert pauser.of(Scanned)[-1].dirty_bytes == second.file_length == 4 * PAGE
    assert second.length == 3 * PAGE  # one of them is zero
    assert pauser.restored("b2") == before
    assert guest.process.is_dead()


def test_a_checkpoint_of_a_guest_that_wrote_nothing_since_the_last_one_is_empty(guest: Guest, pauser: Pauser) -> None:
    first = header_of(checkpoint(pauser, guest))
    before = guest.memory()
    second = header_of(checkpoint(pauser, guest, build="b2", parent=first))
    assert second.length == 0
    assert pauser.restored("b2") == before


def test_a_chain_of_checkpoints_and_a_last_pause_are_exact_each(guests: Guests, pauser: Pauser) -> None:
    guest = guests.fresh(pages=[*range(300), *range(1000, 1100, 7)])
    parent, kept = None, []
    for generation in range(6):
        kept.append(guest.memory())
        result = pauser.pause(guest, build=f"g{generation}", parent=parent, checkpoint=generation < 5)
        parent = header_of(result)
        if generation < 5:
            guest.process.thaw(pauser.condemned)
            guest.write(range(generation * 200, generation * 200 + 90, 1 + generation), seed=generation + 2)
            guest.write(range(20 * generation, 20 * generation + 15), seed=0)
    assert [pauser.restored(f"g{n}") for n in range(6)] == kept


def test_a_checkpoint_of_a_resumed_guest_stores_its_diff_and_pins_what_it_stands_on(
    guests: Guests, pauser: Pauser
) -> None:
    first = header_of(pauser.pause(guests.fresh(), build="b0"))
    guest = guests.from_header(pauser.builds, first)
    guest.write([3, 9], seed=2)
    before = guest.memory()
    second = header_of(checkpoint(pauser, guest, parent=first))
    assert second.length == 2 * PAGE
    assert pauser.restored() == before
    with pytest.raises(EngineError, match="pinned"):
        delete_build(pauser.builds, "b0")


@pytest.mark.parametrize("call", ["copy_read", "copy_write", "publish"])
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_checkpoint_that_fails_at_any_chunk_forgets_nothing(
    guest: Guest, pauser: Pauser, faults: Faults, call: str, chunk: int
) -> None:
    before, dirty = guest.memory(), written(guest)
    result = checkpoint(pauser, guest, effects=faults.failing(call, errno.EIO, chunk=chunk))
    assert result.failed_chunk == chunk
    assert written(guest) == dirty
    pauser.assert_rolled_back(guest, result, before)
    pauser.assert_nothing_was_forgotten(guest)


@pytest.mark.parametrize("call", ["look", "scan", "create_cache", "reserve", "write_header", "finish"])
def test_a_checkpoint_that_fails_at_any_other_step_forgets_nothing(
    guest: Guest, pauser: Pauser, faults: Faults, call: str
) -> None:
    before = guest.memory()
    result = checkpoint(pauser, guest, effects=faults.failing(call, errno.ENOSPC))
    pauser.assert_rolled_back(guest, result, before)
    pauser.assert_nothing_was_forgotten(guest)


def test_a_failure_after_an_earlier_checkpoint_forgets_nothing_since_that_one(
    guest: Guest, pauser: Pauser, faults: Faults
) -> None:
    first = header_of(checkpoint(pauser, guest))
    guest.process.thaw(pauser.condemned)
    guest.write(range(1, 2048, 100), seed=2)
    before = guest.memory()
    effects = faults.failing("copy_write", errno.ENOSPC, chunk=2)
    result = checkpoint(pauser, guest, build="b2", parent=first, effects=effects)
    pauser.assert_rolled_back(guest, result, before, left=["b1"])
    pauser.assert_nothing_was_forgotten(guest, parent=first)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "no"), EngineError("no"), ZeroDivisionError("odd")])
def test_a_dirty_set_that_cannot_be_begun_anew_holds_too_much_and_never_too_little(
    guest: Guest, pauser: Pauser, faults: Faults, error: Exception
) -> None:
    def refuse(*_: object) -> None:
        raise error

    before, dirty, resident = guest.memory(), written(guest), guest.resident()
    first = header_of(checkpoint(pauser, guest, effects=faults.before("rearm", refuse)))
    assert written(guest) == dirty
    assert_goes_on(pauser, guest, before, resident)
    guest.write([16, 33], seed=2)
    before = guest.memory()
    second = header_of(pauser.pause(guest, build="b2", parent=first))
    assert second.length == (len(PAGES) + 1) * PAGE
    assert pauser.restored("b2") == before


def crash_at(pauser: Pauser, guest: Guest, faults: Faults, call: str, chunk: int | None) -> None:
    """Make a checkpoint in a forked copy of this process that is killed at a call."""

    def die(*arguments: Any) -> None:
        if chunk is None or arguments[-1].index == chunk:
            os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        try:
            checkpoint(pauser, guest, effects=faults.before(call, die))
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def test_a_crash_between_the_finished_build_and_the_new_dirty_set_forgets_nothing(
    guest: Guest, pauser: Pauser, faults: Faults
) -> None:
    before, dirty = guest.memory(), written(guest)
    crash_at(pauser, guest, faults, "rearm", None)
    assert pauser.names() == ["b1"]
    assert pauser.restored() == before
    assert written(guest) == dirty
    guest.process.thaw(pauser.condemned)
    guest.write([1, 16], seed=2)
    before = guest.memory()
    result = pauser.pause(guest, build="b2", parent=pauser.header("b1"))  # the node after it believes the build
    header_of(result)
    assert pauser.restored("b2") == before


@pytest.mark.parametrize(
    ("call", "chunk"),
    [("scan", None), ("copy_read", 0), ("copy_write", 2), ("publish", 3), ("write_header", None), ("finish", None)],
)
def test_a_crash_before_the_build_is_finished_forgets_nothing(
    guest: Guest, pauser: Pauser, faults: Faults, call: str, chunk: int | None
) -> None:
    before, dirty = guest.memory(), written(guest)
    crash_at(pauser, guest, faults, call, chunk)
    assert "b1" not in pauser.names()
    assert (guest.memory(), written(guest)) == (before, dirty)
    assert guest.process.is_stopped()
    guest.process.thaw(pauser.condemned)
    pauser.assert_nothing_was_forgotten(guest)


def test_a_crash_after_the_new_dirty_set_began_leaves_a_build_to_stand_on(
    guest: Guest, pauser: Pauser, faults: Faults
) -> None:
    def rearm_and_die(*_: object) -> None:
        assert guest.tracker is not None
        guest.tracker.written(rearm=True)
        os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        try:
            checkpoint(pauser, guest, effects=faults.before("rearm", rearm_and_die))
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
    assert pauser.names() == ["b1"]  # it got its name first: whoever recovers finds it
    assert written(guest) == Blocks()
    guest.process.thaw(pauser.condemned)
    guest.write([1, 16], seed=2)
    before = guest.memory()
    second = header_of(pauser.pause(guest, build="b2", parent=pauser.header("b1")))
    assert second.length == 2 * PAGE
    assert pauser.restored("b2") == before


def test_the_new_dirty_set_begins_only_once_the_build_has_its_name(
    guest: Guest, pauser: Pauser, faults: Faults
) -> None:
    def look(*_: object) -> None:
        Build.open(pauser.builds, "b1").close()
        assert pauser.of(BuildFinished)
        assert guest.process.is_stopped()
        seen.append(written(guest))

    seen: list[Blocks | None] = []
    header_of(checkpoint(pauser, guest, effects=faults.before("rearm", look)))
    assert seen == [Blocks(PAGES)]
    assert written(guest) == Blocks()


def test_a_guest_whose_tracker_cannot_answer_is_checkpointed_whole_each_time(guests: Guests, pauser: Pauser) -> None:
    guest = guests.fresh(pages=PAGES, bitmap=True)
    os.ftruncate(guest.notes, 100)
    before, resident = guest.memory(), guest.resident()
    first = header_of(checkpoint(pauser, guest))
    assert pauser.of(Scanned)[-1].tracker == "resident-blocks"
    assert (first.length, pauser.restored()) == (resident, before)
    guest.process.thaw(pauser.condemned)
    guest.write([1], seed=3)
    before = guest.memory()
    second = header_of(checkpoint(pauser, guest, build="b2", parent=first))
    assert second.length == resident + PAGE
    assert pauser.restored("b2") == before


def test_a_tracker_that_finds_its_voice_after_the_checkpoint_forgets_nothing(guests: Guests, pauser: Pauser) -> None:
    guest = guests.fresh(pages=PAGES, bitmap=True)
    notes = os.pread(guest.notes, 2048, 0)
    os.ftruncate(guest.notes, 100)  # no answer at the freeze: every resident block is exported
    first = header_of(checkpoint(pauser, guest))
    os.ftruncate(guest.notes, 2048)
    os.pwrite(guest.notes, notes, 0)
    guest.process.thaw(pauser.condemned)
    guest.write([1], seed=3)
    before = guest.memory()
    header_of(pauser.pause(guest, build="b2", parent=first))
    assert pauser.restored("b2") == before


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_cancel_rolls_back_and_forgets_nothing(guest: Guest, pauser: Pauser, faults: Faults, chunk: int) -> None:
    before, said = guest.memory(), list[bool]()
    effects = faults.at_chunk("copy_write", chunk, lambda: said.append(pause.cancel()))
    pause = pauser.prepare(guest, checkpoint=True, effects=effects)
    pause.begin()
    assert said == [True]
    pauser.assert_rolled_back(guest, pause.settle(20), before)
    pauser.assert_nothing_was_forgotten(guest)


@pytest.mark.parametrize("call", ["write_header", "finish", "rearm"])
def test_a_cancel_that_comes_too_late_is_refused(guest: Guest, pauser: Pauser, faults: Faults, call: str) -> None:
    said: list[bool] = []
    pause = pauser.prepare(guest, checkpoint=True, effects=faults.before(call, lambda *_: said.append(pause.cancel())))
    pause.begin()
    assert said == [False]
    header_of(pause.settle(20))


@pytest.mark.parametrize("chunk", [0, 2, 3])
def test_a_guest_that_runs_during_its_checkpoint_spoils_it_and_forgets_nothing(
    guest: Guest, pauser: Pauser, faults: Faults, chunk: int
) -> None:
    def wake_and_write() -> None:
        os.kill(guest.pid, signal.SIGCONT)
        guest.write(range(0, 2048, 100), seed=7)

    result = checkpoint(pauser, guest, effects=faults.at_chunk("copy_read", chunk, wake_and_write))
    assert result.outcome is Outcome.ROLLED_BACK
    assert pauser.names() == []
    pauser.assert_nothing_was_forgotten(guest)


def test_a_guest_that_somebody_kills_during_its_checkpoint_is_in_no_build(
    guest: Guest, pauser: Pauser, faults: Faults
) -> None:
    """What it did last cannot be known any more."""
    result = checkpoint(pauser, guest, effects=faults.at_chunk("copy_write", 2, guest.process.kill))
    assert (result.outcome, result.condemned, pauser.names()) == (Outcome.ROLLED_BACK, False, [])
    assert list(pauser.condemned.records()) == []


def test_a_checkpoint_of_a_taken_name_rolls_back_and_leaves_the_other_build(guest: Guest, pauser: Pauser) -> None:
    first = header_of(checkpoint(pauser, guest))
    kept = guest.memory()
    guest.process.thaw(pauser.condemned)
    guest.write([5], seed=3)
    before = guest.memory()
    result = checkpoint(pauser, guest, parent=first)
    pauser.assert_rolled_back(guest, result, before, left=["b1"])
    assert pauser.restored() == kept
    pauser.assert_nothing_was_forgotten(guest, parent=first)


def test_readers_of_a_checkpoint_get_its_chunks_as_they_are_published(
    guest: Guest, pauser: Pauser, faults: Faults
) -> None:
    before, got = guest.memory(), list[bytes]()

    def look(*_: object) -> None:
        assert pause.cache is not None
        got.append(pause.cache.read(0, PAGE))

    pause = pauser.prepare(guest, checkpoint=True, effects=faults.at_chunk("copy_write", 3, look))
    pause.begin()
    header_of(pause.settle(20))
    assert got == [before[:PAGE]]
    assert len(pauser.of(ChunkPublished)) == CHUNKS


def test_no_descriptor_is_left_by_any_outcome_but_the_memory_that_was_borrowed(
    guest: Guest, pauser: Pauser, faults: Faults
) -> None:
    start = open_before()
    for number, effects in enumerate([faults.failing("copy_write", errno.EIO, chunk=n) for n in (0, 1)]):
        assert checkpoint(pauser, guest, build=f"f{number}", effects=effects).outcome is Outcome.ROLLED_BACK
    header_of(checkpoint(pauser, guest))
    assert len(os.listdir("/proc/self/fd")) == start
    assert len(pauser.of(CopyFailed)) == 2


@pytest.mark.privileged
@pytest.mark.parametrize("block", [PAGE, 2 * MIB], ids=["4KiB-blocks", "2MiB-blocks"])
def test_a_hugetlb_guest_is_checkpointed_in_place(huge_pages: int, guests: Guests, pauser: Pauser, block: int) -> None:
    guest = guests.start(8 * MIB, huge=True).track(block_size=block)
    guest.write([0, 5, 600, 1999], seed=1)
    before, resident = guest.memory(), guest.resident()
    first = header_of(checkpoint(pauser, guest, block_size=block))
    assert_goes_on(pauser, guest, before, resident)
    guest.write([601], seed=2)
    before = guest.memory()
    second = header_of(pauser.pause(guest, build="b2", parent=first, block_size=block))
    assert second.file_length == 2 * MIB  # the kernel tracks whole pages
    assert second.length == 2 * PAGE
    assert pauser.restored("b2") == before
    assert guest.resident() == 0
