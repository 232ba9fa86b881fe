from __future__ import annotations

import errno
import itertools
import os
import threading
from pathlib import Path
from typing import Any

import pytest

import engine.copy as copying
from engine.effects import Effects
from engine.errors import CondemnedError
from engine.events import (
    BuildFinished,
    CacheDeleted,
    ChunkPunched,
    Condemned,
    CondemnFailed,
    CopyFailed,
    Event,
    PunchFailed,
    Retried,
)
from engine.pause import Outcome
from engine.snapshot import template
from tests.integration.engine.rig import (
    BOTH,
    CHUNKS,
    PAGE,
    Faults,
    Guest,
    Guests,
    Pauser,
    hold,
    is_settled,
    raise_engine_error,
    wait_until,
)

ERRNOS = [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EPERM, errno.EBADF, errno.ENODEV]
CALLS = {"copy_read": "copy.read", "copy_write": "copy.write", "publish": "publish"}
WAYS = {
    "sync-kept": (False, False),
    "sync-punched": (False, True),
    "background-kept": (True, False),
    "background-punched": (True, True),
}
# Which errno meets which chunk is a matter of luck for the code under test: each comes up, no product of all is needed.
CASES = [
    pytest.param(call, way, chunk, number, id=f"{call}-{way}-{chunk}-{errno.errorcode[number]}")
    for (call, way, chunk), number in zip(itertools.product(CALLS, WAYS, range(CHUNKS)), itertools.cycle(ERRNOS))
]


@pytest.fixture
def guest(sparse_guest: Guest) -> Guest:
    return sparse_guest


@pytest.mark.parametrize(("call", "way", "chunk", "number"), CASES)
def test_a_chunk_that_fails_rolls_back_before_the_condemnation_and_discards_after_it(
    guest: Guest, pauser: Pauser, faults: Faults, call: str, way: str, chunk: int, number: int
) -> None:
    background, punch = WAYS[way]
    before = guest.memory()
    effects = faults.failing(call, number, chunk=chunk)
    result = pauser.pause(guest, background=background, punch=punch, effects=effects)
    failed = pauser.of(CopyFailed)
    assert [(event.chunk, event.call) for event in failed] == [(chunk, CALLS[call])]
    assert result.failed_chunk == chunk
    assert os.strerror(number) in str(result.error)
    assert pauser.of(CacheDeleted)
    assert not pauser.of(BuildFinished)
    if chunk > 0 and (background or punch):
        pauser.assert_discarded(guest, result)
    else:
        pauser.assert_rolled_back(guest, result, before)
        pauser.assert_nothing_was_forgotten(guest)


@pytest.mark.parametrize("call", ["look", "scan", "create_cache", "reserve"])
@BOTH
def test_what_fails_before_the_first_chunk_rolls_back(
    guest: Guest, pauser: Pauser, faults: Faults, call: str, background: bool
) -> None:
    before = guest.memory()
    result = pauser.pause(guest, background=background, effects=faults.failing(call, errno.EMFILE))
    pauser.assert_rolled_back(guest, result, before)
    pauser.assert_nothing_was_forgotten(guest)


@pytest.mark.parametrize("call", ["write_header", "finish"])
@pytest.mark.parametrize("way", WAYS)
def test_a_build_that_cannot_be_finished_shares_the_fate_of_a_failed_chunk(
    guest: Guest, pauser: Pauser, faults: Faults, call: str, way: str
) -> None:
    background, punch = WAYS[way]
    before = guest.memory()
    effects = faults.failing(call, errno.ENOSPC)
    result = pauser.pause(guest, background=background, punch=punch, effects=effects)
    if background or punch:
        pauser.assert_discarded(guest, result)
    else:
        pauser.assert_rolled_back(guest, result, before)
        pauser.assert_nothing_was_forgotten(guest)


def test_attachments_that_do_not_fit_roll_back(guest: Guest, pauser: Pauser) -> None:
    before = guest.memory()
    result = pauser.pause(guest, attachments={"no/such/folder": b"x"})
    pauser.assert_rolled_back(guest, result, before)


@BOTH
def test_a_record_that_cannot_be_written_ends_punching_and_not_the_copy(
    guest: Guest, pauser: Pauser, faults: Faults, background: bool
) -> None:
    before, resident = guest.memory(), guest.resident()
    effects = faults.failing("condemn", errno.ENOSPC)
    result = pauser.pause(guest, background=background, effects=effects)
    assert result.outcome is Outcome.FINISHED
    assert not result.condemned
    assert "No space left" in str(result.condemn_error)
    assert result.punched_bytes == 0
    assert guest.resident() == resident
    assert not pauser.of(ChunkPunched)
    assert pauser.of(CondemnFailed)
    assert pauser.restored() == before
    assert guest.process.is_dead()


def test_a_record_that_fails_in_a_way_nobody_foresaw_keeps_nobody_waiting(guest: Guest, pauser: Pauser) -> None:
    class Odd(Effects):
        def condemn(self, *_: object) -> Any:
            raise ZeroDivisionError("odd")

    before = guest.memory()
    result = pauser.pause(guest, punch=False, effects=Odd())  # it is only asked for at the teardown
    assert (result.outcome, result.condemned, result.condemn_error) == (Outcome.FINISHED, False, "odd")
    assert pauser.restored() == before
    assert guest.process.is_dead()


def test_a_record_that_can_be_written_at_the_second_attempt_guards_the_teardown(
    guest: Guest, pauser: Pauser, faults: Faults
) -> None:
    before = guest.memory()
    effects = faults.failing("condemn", errno.ENOSPC, times=1)
    result = pauser.pause(guest, effects=effects)
    assert (result.outcome, result.condemned, result.punched_bytes) == (Outcome.FINISHED, True, 0)
    assert [type(e) for e in pauser.events if isinstance(e, CondemnFailed | Condemned)] == [CondemnFailed, Condemned]
    assert pauser.restored() == before


def test_a_record_that_truly_cannot_be_written_is_told_of(guest: Guest, pauser: Pauser) -> None:
    before = guest.memory()
    (pauser.folder / "condemned").rmdir()
    result = pauser.pause(guest)
    assert result.outcome is Outcome.FINISHED
    assert result.condemn_error is not None
    assert result.punched_bytes == 0
    assert pauser.restored() == before


@BOTH
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_punch_that_fails_ends_punching_and_not_the_copy(
    guest: Guest, pauser: Pauser, faults: Faults, background: bool, chunk: int
) -> None:
    before, resident = guest.memory(), guest.resident()
    effects = faults.failing("punch", errno.EPERM, chunk=chunk)
    result = pauser.pause(guest, background=background, effects=effects)
    assert result.outcome is Outcome.FINISHED
    assert "not permitted" in str(result.punch_error)
    assert [event.chunk for event in pauser.of(PunchFailed)] == [chunk]
    assert result.punched_bytes == resident - guest.resident() < resident
    assert pauser.restored() == before


def test_a_failed_punch_of_clean_pages_ends_punching_and_not_the_copy(
    guests: Guests, pauser: Pauser, faults: Faults
) -> None:
    guest = guests.fresh(pages=range(100))
    before = guest.memory()

    def refuse(*arguments: Any) -> None:
        if arguments[-1] is None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    result = pauser.pause(guest, effects=faults.before("punch", refuse))
    assert result.outcome is Outcome.FINISHED
    assert [event.chunk for event in pauser.of(PunchFailed)] == [None]
    assert pauser.restored() == before


@pytest.mark.parametrize("call", [*CALLS, "punch"])
@pytest.mark.parametrize("number", [errno.EINTR, errno.EAGAIN, errno.ENOMEM])
def test_a_transient_error_is_tried_again(guest: Guest, pauser: Pauser, faults: Faults, call: str, number: int) -> None:
    before = guest.memory()
    result = pauser.pause(guest, effects=faults.failing(call, number, chunk=1, times=3))
    assert (result.outcome, result.punch_error) == (Outcome.FINISHED, None)
    assert [event.attempt for event in pauser.of(Retried)] == [1, 2, 3]
    assert pauser.restored() == before
    assert guest.resident() == 0


def test_a_transient_error_that_stays_is_given_up(guest: Guest, pauser: Pauser, faults: Faults) -> None:
    before = guest.memory()
    result = pauser.pause(guest, effects=faults.failing("copy_read", errno.EAGAIN, chunk=0))
    pauser.assert_rolled_back(guest, result, before)
    assert [event.attempt for event in pauser.of(Retried)] == [1, 2, 3, 4]


def test_a_guest_that_will_not_die_keeps_its_record_and_stays_frozen(
    guest: Guest, pauser: Pauser, faults: Faults
) -> None:
    result = pauser.pause(guest, effects=faults.failing("kill", errno.EPERM))
    assert result.outcome is Outcome.FINISHED
    assert [event.call for event in pauser.of(CopyFailed)] == ["teardown"]
    assert [record.incarnation for record in pauser.condemned.records()] == [guest.process.incarnation]
    with pytest.raises(CondemnedError):
        guest.process.thaw(pauser.condemned)
    assert guest.process.is_stopped()


@BOTH
def test_a_cache_whose_deletion_fails_does_not_save_a_condemned_guest(
    guest: Guest, pauser: Pauser, faults: Faults, background: bool
) -> None:
    effects = faults.failing("copy_write", errno.EIO, chunk=2)
    faults.before("discard", raise_engine_error, effects)
    result = pauser.pause(guest, background=background, effects=effects)
    pauser.assert_discarded(guest, result)
    assert [event.call for event in pauser.of(CopyFailed)] == ["copy.write", "discard"]


class FailingListener:
    """A ledger that can take no more, from the first event of a kind on."""

    def __init__(self, pauser: Pauser, kind: type[Event]) -> None:
        self._pauser = pauser
        self._kind = kind
        self._failing = False

    def __call__(self, event: Event) -> None:
        self._failing = self._failing or isinstance(event, self._kind)
        if self._failing:
            raise OSError(errno.ENOSPC, "the ledger is full")
        self._pauser.events.append(event)


@BOTH
@pytest.mark.parametrize("chunk", [0, 2])
def test_a_listener_that_fails_with_the_copy_does_not_keep_the_guest_from_its_fate(
    guest: Guest, pauser: Pauser, faults: Faults, background: bool, chunk: int
) -> None:
    before = guest.memory()
    pause = pauser.prepare(guest, background=background, effects=faults.failing("copy_write", errno.EIO, chunk=chunk))
    pause._emit = FailingListener(pauser, CopyFailed)
    pause.begin()
    if chunk == 0:
        pauser.assert_rolled_back(guest, pause.settle(20), before)
    else:
        pauser.assert_discarded(guest, pause.settle(20))


def test_a_finished_build_stays_finished_when_a_listener_fails(guest: Guest, pauser: Pauser) -> None:
    before = guest.memory()
    pause = pauser.prepare(guest)
    pause._emit = FailingListener(pauser, BuildFinished)
    pause.begin()
    assert pause.settle(20).outcome is Outcome.FINISHED
    assert guest.process.is_dead()
    assert pauser.restored() == before


def test_a_worker_that_fails_lets_the_other_end_before_anything_is_closed(
    guest: Guest, pauser: Pauser, faults: Faults
) -> None:
    open_still: list[bool] = []
    second_works = threading.Event()

    def outlive_the_first_worker(*_: object) -> None:
        if not pauser.of(Condemned):
            return
        if threading.current_thread().name != "copier-2":
            hold(second_works)
            raise MemoryError
        second_works.set()
        copier = pause._writing.copier
        assert copier
        wait_until(lambda: copier._failure is not None or is_settled(pause))
        open_still.append(guest.memfd.fd >= 0)

    pause = pauser.prepare(guest, effects=faults.before("copy_write", outlive_the_first_worker))
    pause.begin()
    pauser.assert_discarded(guest, pause.settle(20))
    assert open_still == [True]


@BOTH
def test_memory_that_lacks_past_the_point_of_no_return_costs_nothing(
    guest: Guest, pauser: Pauser, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    real, before = copying._Buffers, guest.memory()

    def scarce(plan: Any) -> object:
        if pauser.of(Condemned):
            raise MemoryError
        return real(plan)

    monkeypatch.setattr(copying, "_Buffers", scarce)
    result = pauser.pause(guest, background=background)
    assert result.outcome is Outcome.FINISHED
    assert pauser.restored() == before


def test_memory_that_lacks_before_the_point_of_no_return_rolls_back(
    guest: Guest, pauser: Pauser, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []

    def scarce(plan: Any) -> object:
        made.append(plan)
        if len(made) == 2:
            raise MemoryError
        return object()

    monkeypatch.setattr(copying, "_Buffers", scarce)
    before = guest.memory()
    pauser.assert_rolled_back(guest, pauser.pause(guest), before)
    assert len(made) == 2


@BOTH
def test_where_no_thread_can_be_started_one_worker_copies_it_all(
    guest: Guest, pauser: Pauser, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = guest.memory()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    result = pauser.pause(guest, background=background)
    assert result.outcome is Outcome.FINISHED
    assert pauser.restored() == before
    assert guest.resident() == 0


def test_a_parent_of_another_size_is_refused(guests: Guests, pauser: Pauser) -> None:
    guest = guests.fresh()
    before = guest.memory()
    result = pauser.pause(guest, parent=template(len(before) * 2, PAGE))
    pauser.assert_rolled_back(guest, result, before)


def test_a_failure_of_a_kind_nobody_foresaw_rolls_back_too(guest: Guest, pauser: Pauser) -> None:
    class Odd(Effects):
        def copy_write(self, *_: object) -> None:
            raise ZeroDivisionError("odd")

    before = guest.memory()
    pauser.assert_rolled_back(guest, pauser.pause(guest, effects=Odd()), before)


def test_the_folder_of_builds_may_be_missing_or_unusable(guest: Guest, pauser: Pauser) -> None:
    before = guest.memory()
    pauser.builds.rmdir()
    Path(pauser.builds).write_bytes(b"a file where the folder was")
    result = pauser.pause(guest)
    assert result.outcome is Outcome.ROLLED_BACK
    assert guest.memory() == before
