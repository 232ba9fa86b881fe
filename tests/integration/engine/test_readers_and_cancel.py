from __future__ import annotations

import errno
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from engine.errors import BuildFailedError
from engine.events import CondemnFailed, Event
from engine.pause import Outcome, Pause
from tests.integration.engine.rig import (
    BOTH,
    MIB,
    PUNCH,
    Faults,
    Guest,
    Guests,
    Pauser,
    WaitForReaders,
    hold,
    raise_engine_error,
    wait_until,
)

CHUNK = 2 * MIB


def read_chunk(pool: ThreadPoolExecutor, pause: Pause, chunk: int) -> Future[bytes]:
    assert pause.cache is not None
    return pool.submit(pause.cache.read, chunk * CHUNK, CHUNK, 20)


def test_a_reader_waits_for_its_chunk_only_and_gets_exactly_its_bytes(
    guest: Guest, pauser: Pauser, faults: Faults, wait_for_readers: WaitForReaders
) -> None:
    before, go = guest.memory(), threading.Event()
    pause = pauser.prepare(guest, background=True, effects=faults.at_chunk("copy_write", 2, lambda: hold(go)))
    pause.begin()
    assert pause.cache is not None
    with ThreadPoolExecutor(4) as pool:
        waiting = read_chunk(pool, pause, 2)
        for chunk in (0, 1, 3):
            assert read_chunk(pool, pause, chunk).result(20) == before[chunk * CHUNK : (chunk + 1) * CHUNK]
        wait_for_readers(pause.cache, 1)
        assert not waiting.done()
        go.set()
        assert waiting.result(20) == before[2 * CHUNK : 3 * CHUNK]
    assert pause.settle(20).outcome is Outcome.FINISHED


def test_a_chunk_that_a_reader_waits_for_is_copied_next(
    guests: Guests, pauser: Pauser, faults: Faults, wait_for_readers: WaitForReaders
) -> None:
    guest = guests.fresh(16 * MIB, pages=range(0, 4096, 64))
    begun: list[int] = []
    gates = {1: threading.Event(), 2: threading.Event()}
    held = threading.Semaphore(0)

    def note_and_hold(*arguments: Any) -> None:
        begun.append(arguments[-1].index)
        if arguments[-1].index in gates:
            held.release()
            hold(gates[arguments[-1].index])

    pause = pauser.prepare(guest, background=True, effects=faults.before("copy_read", note_and_hold))
    pause.begin()
    assert pause.cache is not None
    assert all(held.acquire(timeout=20) for _ in gates)
    length = pause.cache.length // 8
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(pause.cache.read, 7 * length, length, 20)
        wait_for_readers(pause.cache, 1)
        gates[1].set()
        waiting.result(20)
        gates[2].set()
    assert pause.settle(20).outcome is Outcome.FINISHED
    assert begun[0] == 0
    assert set(begun[1:3]) == {1, 2}
    assert begun[3] == 7


@pytest.mark.parametrize("deletable", [True, False])
def test_a_copy_that_fails_wakes_every_reader_with_its_cause(
    guest: Guest, pauser: Pauser, faults: Faults, wait_for_readers: WaitForReaders, deletable: bool
) -> None:
    go = threading.Event()
    effects = faults.failing("copy_write", errno.EIO, chunk=2)
    if not deletable:
        faults.before("discard", raise_engine_error, effects)
    faults.before("copy_write", lambda *args: hold(go) if args[-1].index == 2 else None, effects)
    pause = pauser.prepare(guest, background=True, effects=effects)
    pause.begin()
    assert pause.cache is not None
    with ThreadPoolExecutor(3) as pool:
        waiting = [read_chunk(pool, pause, 2) for _ in range(3)]
        wait_for_readers(pause.cache, 3)
        go.set()
        for reader in waiting:
            with pytest.raises(BuildFailedError, match="Input/output error"):
                reader.result(20)
    pauser.assert_discarded(guest, pause.settle(20))
    with pytest.raises(BuildFailedError):
        pause.cache.read(0, 4096)  # it was published, and is gone with its build


def test_every_waiter_for_the_end_gets_the_same_result(guest: Guest, pauser: Pauser, faults: Faults) -> None:
    go = threading.Event()
    pause = pauser.prepare(guest, background=True, effects=faults.at_chunk("copy_write", 2, lambda: hold(go)))
    pause.begin()
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(pause.settle, 20) for _ in range(3)]
        go.set()
        assert len({id(waiter.result(20)) for waiter in waiting}) == 1


def test_a_reader_that_comes_after_the_end_reads_the_finished_build(guest: Guest, pauser: Pauser) -> None:
    before = guest.memory()
    pause = pauser.prepare(guest, background=True)
    pause.begin()
    assert pause.settle(20).outcome is Outcome.FINISHED
    assert pause.cache is not None
    assert pause.cache.read(5000, 3 * MIB) == before[5000 : 5000 + 3 * MIB]


@BOTH
@PUNCH
def test_a_cancel_before_the_condemnation_rolls_back(
    sparse_guest: Guest, pauser: Pauser, faults: Faults, background: bool, punch: bool
) -> None:
    before, said = sparse_guest.memory(), []
    effects = faults.at_chunk("copy_write", 0, lambda: said.append(pause.cancel()))
    pause = pauser.prepare(sparse_guest, background=background, punch=punch, effects=effects)
    pause.begin()
    assert said == [True]
    result = pause.settle(20)
    assert "cancelled" in str(result.error)
    pauser.assert_rolled_back(sparse_guest, result, before)


@BOTH
def test_a_cancel_after_the_condemnation_is_refused_and_the_pause_finishes(
    guest: Guest, pauser: Pauser, faults: Faults, background: bool
) -> None:
    before, said = guest.memory(), []
    effects = faults.at_chunk("copy_write", 1, lambda: said.append(pause.cancel()))
    pause = pauser.prepare(guest, background=background, effects=effects)
    pause.begin()
    assert pause.settle(20).outcome is Outcome.FINISHED
    assert said == [False]
    assert pauser.restored() == before
    assert not pause.cancel()


def test_a_cancel_during_an_uncondemned_copy_rolls_back(guest: Guest, pauser: Pauser, faults: Faults) -> None:
    before, said = guest.memory(), []
    effects = faults.at_chunk("copy_write", 2, lambda: said.append(pause.cancel()))
    pause = pauser.prepare(guest, punch=False, effects=effects)
    pause.begin()
    assert said == [True]
    pauser.assert_rolled_back(guest, pause.settle(20), before)


def test_a_cancel_that_was_granted_at_the_last_chunk_is_kept(guest: Guest, pauser: Pauser, faults: Faults) -> None:
    before, said = guest.memory(), []
    effects = faults.at_chunk("publish", 3, lambda: said.append(pause.cancel()))
    pause = pauser.prepare(guest, punch=False, effects=effects)
    pause.begin()
    assert said == [True]
    pauser.assert_rolled_back(guest, pause.settle(20), before)


def test_a_cancel_while_the_header_is_written_is_refused(guest: Guest, pauser: Pauser, faults: Faults) -> None:
    said: list[bool] = []
    effects = faults.before("write_header", lambda *_: said.append(pause.cancel()))
    pause = pauser.prepare(guest, punch=False, effects=effects)
    pause.begin()
    assert said == [False]
    assert pause.settle(20).outcome is Outcome.FINISHED


@BOTH
def test_nobody_waits_for_the_record_to_be_told_that_it_is_too_late_to_cancel(
    guest: Guest, pauser: Pauser, faults: Faults, background: bool
) -> None:
    """An event loop may ask: the record may be on a disk that hangs."""
    writing, go = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        writing.set()
        hold(go)

    pause = pauser.prepare(guest, background=background, effects=faults.before("condemn", hang))
    with ThreadPoolExecutor(2) as pool:
        begun = pool.submit(pause.begin)
        try:
            hold(writing)
            assert pool.submit(pause.cancel).result(5) is False
        finally:
            go.set()
        begun.result(20)
    assert pause.settle(20).outcome is Outcome.FINISHED


def test_who_wants_to_know_of_the_end_is_told_once_though_another_one_fails(
    guest: Guest, pauser: Pauser, faults: Faults
) -> None:
    told: list[str] = []

    def fail() -> None:
        told.append("fails")
        raise ZeroDivisionError

    go = threading.Event()
    pause = pauser.prepare(guest, background=True, effects=faults.at_chunk("copy_write", 2, lambda: hold(go)))
    pause.begin()
    pause.when_settled(fail)
    pause.when_settled(lambda: told.append(pause.settle(0).outcome))
    assert told == []
    go.set()
    pause.settle(20)
    wait_until(lambda: len(told) == 2)
    pause.when_settled(lambda: told.append("late"))
    assert told == ["fails", "finished", "late"]


def test_a_listener_may_cancel_when_the_record_cannot_be_written(guest: Guest, pauser: Pauser, faults: Faults) -> None:
    before = guest.memory()
    pause = pauser.prepare(guest, effects=faults.failing("condemn", errno.EIO))

    def listen(event: Event) -> None:
        if isinstance(event, CondemnFailed):
            assert pause.cancel()

    pause._emit = listen
    pause.begin()
    pauser.assert_rolled_back(guest, pause.settle(20), before)
