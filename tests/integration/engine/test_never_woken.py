"""Killed before punched: whoever wakes a guest meanwhile finds it dead, or costs the pause its build."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from typing import Any

import pytest

from engine.effects import Effects
from engine.errors import CondemnedError, FreezeError
from engine.events import (
    ChunkPublished,
    ChunkPunched,
    CleanPagesPunched,
    Condemned,
    CopyFailed,
    GuestDied,
    GuestKilled,
    GuestLooked,
    KillFailed,
    PunchFailed,
)
from engine.incarnation import GuestProcess
from engine.pause import Outcome
from engine.snapshot import Header
from tests.integration.engine.rig import BOTH, CHUNKS, MIB, PUNCH, Faults, Guest, Guests, Pauser, wait_until

ORDER = (Condemned, GuestLooked, GuestKilled, GuestDied)
DEDUP = pytest.mark.parametrize("dedup", [False, True], ids=["plain", "dedup"])


@BOTH
@DEDUP
def test_record_look_kill_and_death_come_in_this_order_and_nothing_is_copied_or_punched_between_them(
    guest: Guest, pauser: Pauser, background: bool, dedup: bool
) -> None:
    before = guest.memory()
    pauser.assert_finished(guest, pauser.pause(guest, background=background, dedup=dedup), before)
    kinds = [type(event) for event in pauser.events]
    at = kinds.index(Condemned)
    assert tuple(kinds[at : at + len(ORDER)]) == ORDER
    assert kinds[:at].count(ChunkPublished) == 1
    assert not {ChunkPunched, CleanPagesPunched} & set(kinds[:at])
    looks = pauser.of(GuestLooked)
    assert [(look.before, look.code) for look in looks] == [("kill", None)]
    assert looks[0].threads == {str(tid): list(did) for tid, did in (guest.process.frozen or {}).items()}


@pytest.fixture
def parent(guests: Guests, pauser: Pauser) -> Header:
    header = pauser.pause(guests.fresh(pages=range(100)), build="b0").header
    assert header is not None
    pauser.events.clear()
    return header


@BOTH
def test_a_guest_that_wrote_nothing_is_dead_before_its_clean_pages_are_punched(
    guests: Guests, pauser: Pauser, faults: Faults, parent: Header, background: bool
) -> None:
    guest = guests.from_header(pauser.builds, parent)
    dead: list[bool] = []
    effects = faults.before("punch", lambda *_: dead.append(guest.process.is_dead()))
    before = guest.memory()
    result = pauser.pause(guest, build="b1", parent=parent, background=background, effects=effects)
    pauser.assert_finished(guest, result, before, "b1")
    assert dead == [True]


def wake(guest: Guest) -> None:
    """As a third party does that hides it: SIGCONT, until something was done, and SIGSTOP."""
    os.kill(guest.pid, signal.SIGCONT)
    if not guest.process.is_dead():
        guest.write([1, 1999], seed=9)
    os.kill(guest.pid, signal.SIGSTOP)
    wait_until(lambda: guest.process.is_stopped() or guest.process.is_dead())


@BOTH
@PUNCH
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_guest_that_is_woken_and_stopped_again_is_in_no_finished_build(
    guest: Guest, pauser: Pauser, faults: Faults, background: bool, punch: bool, chunk: int
) -> None:
    before = guest.memory()
    effects = faults.at_chunk("copy_read", chunk, lambda: wake(guest))
    result = pauser.pause(guest, background=background, punch=punch, effects=effects)
    if chunk > 0 and (background or punch):  # it was dead
        pauser.assert_finished(guest, result, before)
        return
    assert result.outcome is Outcome.ROLLED_BACK
    assert "has run since it was frozen" in str(result.error)
    assert pauser.names() == []
    guest.process.thaw(pauser.condemned)
    guest.write([5], seed=3)
    after = guest.memory()
    assert pauser.pause(guest, build="b2").outcome is Outcome.FINISHED
    assert pauser.restored("b2") == after


@BOTH
@PUNCH
def test_a_guest_that_is_woken_between_record_and_kill_is_killed_and_discarded(
    guest: Guest, pauser: Pauser, faults: Faults, background: bool, punch: bool
) -> None:
    effects = faults.before("kill", lambda *_: wake(guest))
    result = pauser.pause(guest, background=background, punch=punch, effects=effects)
    if not (background or punch):  # all was copied and finished before it was woken
        assert result.outcome is Outcome.FINISHED
        assert [(each.before, each.code) for each in pauser.of(GuestLooked)] == [("finish", None), ("kill", "ran")]
        return
    pauser.assert_discarded(guest, result)
    assert not pauser.of(ChunkPunched)
    assert [(each.before, each.code) for each in pauser.of(GuestLooked)] == [("kill", "ran")]


@BOTH
def test_a_guest_that_somebody_else_kills_between_record_and_kill_is_discarded(
    guest: Guest, pauser: Pauser, faults: Faults, background: bool
) -> None:
    effects = faults.before("kill", lambda *_: guest.process.kill())
    result = pauser.pause(guest, background=background, effects=effects)
    pauser.assert_discarded(guest, result)
    assert [(each.before, each.code) for each in pauser.of(GuestLooked)] == [("kill", "dead")]


@BOTH
def test_a_checkpoint_of_a_guest_that_was_woken_is_not_finished(
    guest: Guest, pauser: Pauser, faults: Faults, background: bool
) -> None:
    effects = faults.at_chunk("copy_read", 2, lambda: wake(guest))
    result = pauser.pause(guest, checkpoint=True, background=background, effects=effects)
    assert (result.outcome, pauser.names()) == (Outcome.ROLLED_BACK, [])


def test_memory_read_out_of_a_process_that_was_woken_is_in_no_build(
    guest: Guest, pauser: Pauser, faults: Faults
) -> None:
    effects = faults.at_chunk("copy_read", 2, lambda: wake(guest))
    result = pauser.pause(guest, by_process=True, effects=effects)
    assert (result.outcome, pauser.names()) == (Outcome.ROLLED_BACK, [])


class Immortal(Effects):
    """The kernel does not end the guest: it is in state D."""

    def await_death(self, guest: GuestProcess, permit: Any) -> None:
        raise FreezeError("web-0: the guest did not die within 10 s")


@BOTH
@DEDUP
@pytest.mark.parametrize("refusal", ["not-sent", "lives"])
def test_a_guest_that_does_not_die_is_never_punched_and_never_thawed_and_its_copy_is_finished(
    guest: Guest, pauser: Pauser, faults: Faults, background: bool, dedup: bool, refusal: str
) -> None:
    before, resident = guest.memory(), guest.resident()
    effects = faults.failing("kill", errno.EPERM) if refusal == "not-sent" else Immortal()
    result = pauser.pause(guest, background=background, dedup=dedup, effects=effects)
    assert (result.outcome, result.condemned, result.punched_bytes) == (Outcome.FINISHED, True, 0)
    assert guest.resident() == resident
    assert {each.code for each in pauser.of(KillFailed)} == {refusal}
    assert [each.chunk for each in pauser.of(PunchFailed)] == [None]
    assert "the guest was not ended" in str(result.punch_error)
    assert result.kill_error is not None
    assert pauser.restored() == before
    if refusal == "not-sent":
        assert not pauser.retire()
        assert pauser.condemned.holds(guest.process.incarnation)
        with pytest.raises(CondemnedError):
            guest.process.thaw(pauser.condemned)


def test_a_guest_that_is_killed_at_the_second_attempt_is_dead_and_was_not_punched(
    guest: Guest, pauser: Pauser, faults: Faults
) -> None:
    before = guest.memory()
    result = pauser.pause(guest, effects=faults.failing("kill", errno.EPERM, times=1))
    assert (result.punched_bytes, result.kill_error) == (0, None)
    assert "the guest was not ended" in str(result.punch_error)
    pauser.assert_finished(guest, result, before)


@BOTH
@PUNCH
@pytest.mark.parametrize("at", ["scan", "create_cache", "reserve", "copy_read", "condemn", "kill", "punch", "finish"])
def test_an_interrupt_anywhere_ends_in_one_of_the_fates(
    guest: Guest, pauser: Pauser, faults: Faults, at: str, background: bool, punch: bool
) -> None:
    """In the thread that asked for the pause it comes out again, once the guest has its fate."""
    before = guest.memory()

    left = [KeyboardInterrupt] * 3  # somebody is impatient

    def interrupt(*_: object) -> None:
        if left:
            raise left.pop()

    pause = pauser.prepare(guest, background=background, punch=punch, effects=faults.before(at, interrupt))
    with contextlib.suppress(KeyboardInterrupt):
        pause.begin()
    result = pause.settle(20)
    pauser.retire()
    if result.outcome is Outcome.FINISHED:
        assert at in {"punch", "kill", "condemn"}
        assert pauser.restored() == before
    elif result.condemned:
        pauser.assert_discarded(guest, result)
    else:
        pauser.assert_rolled_back(guest, result, before)


@pytest.mark.parametrize("kind", [Condemned, GuestKilled, GuestDied, ChunkPublished, ChunkPunched, CleanPagesPunched])
@BOTH
def test_past_the_point_of_no_return_a_ledger_that_takes_no_more_costs_nobody_anything(
    guests: Guests, pauser: Pauser, kind: type, background: bool
) -> None:
    guest = guests.fresh(pages=range(1100))
    before = guest.memory()
    pause = pauser.prepare(guest, background=background)

    def emit(event: object) -> None:
        if isinstance(event, kind) and pause._condemned:
            raise OSError(errno.ENOSPC, "the ledger is full")

    pause._emit = emit
    pause.begin()
    result = pause.settle(20)
    pauser.retire()
    assert (result.outcome, result.error, result.punch_error) == (Outcome.FINISHED, None, None)
    assert pause.untold > 0
    assert guest.resident() == 0
    assert pauser.restored() == before


def test_a_record_stays_while_a_partial_cache_could_not_be_deleted(
    guest: Guest, pauser: Pauser, faults: Faults
) -> None:
    effects = faults.failing("copy_write", errno.EIO, chunk=2)
    faults.before("close", lambda *_: (pauser.builds / "b1.partial").mkdir(exist_ok=True), effects)
    result = pauser.pause(guest, effects=effects)
    assert (result.outcome, pauser.retire()) == (Outcome.DISCARDED, False)
    (pauser.builds / "b1.partial").rmdir()
    assert pauser.retire()
    assert [event.call for event in pauser.of(CopyFailed)] == ["copy.write"]


def test_a_build_is_of_the_freeze_under_a_storm_of_wake_ups(guest: Guest, pauser: Pauser, faults: Faults) -> None:
    """From before the kill until the end somebody sends SIGCONT; nothing of what it does is in the build."""
    before = guest.memory()
    sent: list[int] = []

    def storm(*_: object) -> None:
        for _signal in range(200):
            os.kill(guest.pid, signal.SIGCONT)
        sent.append(200)

    effects = faults.before("await_death", storm)
    faults.before("copy_write", lambda *_: storm() if sent else None, effects)
    result = pauser.pause(guest, effects=effects)
    pauser.assert_finished(guest, result, before)
    assert len(sent) == CHUNKS
    assert guest.resident() < MIB
