"""Faults that the kernel itself makes: limits, full file systems, seals, signals."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import linux
from engine.events import CopyFailed, GuestLooked, Planned
from engine.linux import SEAL_FUTURE_WRITE
from engine.pause import Outcome
from tests.integration.engine.rig import BOTH, MIB, PAGE, PUNCH, Faults, Guest, Guests, Pauser, fill_up


def in_a_child(act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do something in a forked copy of this process, whose limits may be lowered; what it returns, by a pipe."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, json.dumps(act()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        text = file.read()
    os.waitpid(pid, 0)
    assert text, "the child died"
    found: dict[str, Any] = json.loads(text)
    return found


def pause_under_a_file_size_limit(pauser: Pauser, guest: Guest, background: bool) -> dict[str, Any]:
    def act() -> dict[str, Any]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5 * MIB, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        result = pauser.pause(guest, background=background)
        return {"outcome": result.outcome.value, "error": result.error, "condemned": result.condemned}

    return in_a_child(act)


@BOTH
def test_a_file_size_limit_on_disk_is_met_before_anything_is_destroyed(
    pauser: Pauser, guest: Guest, background: bool
) -> None:
    before = guest.memory()
    said = pause_under_a_file_size_limit(pauser, guest, background)
    assert (said["outcome"], said["condemned"]) == ("rolled-back", False)
    assert "File too large" in said["error"]
    assert guest.memory() == before
    assert pauser.names() == []
    guest.process.thaw(pauser.condemned)
    assert guest.is_alive_and_runs()


@BOTH
def test_a_file_size_limit_on_tmpfs_discards_the_punched_guest(
    shm_pauser: Pauser, guest: Guest, background: bool
) -> None:
    said = pause_under_a_file_size_limit(shm_pauser, guest, background)
    assert (said["outcome"], said["condemned"]) == ("discarded", True)
    assert "File too large" in said["error"]
    assert guest.process.is_dead()
    assert guest.resident() < 8 * MIB
    assert shm_pauser.names() == []
    assert [record.incarnation for record in shm_pauser.condemned.records()] == [guest.process.incarnation]


def test_a_process_out_of_descriptors_rolls_back(pauser: Pauser, guest: Guest) -> None:
    def act() -> dict[str, Any]:
        pause = pauser.prepare(guest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        try:
            while True:
                os.dup(0)
        except OSError:
            pause.begin()
        result = pause.settle(20)
        return {"outcome": result.outcome.value, "error": result.error}

    before = guest.memory()
    said = in_a_child(act)
    assert said["outcome"] == "rolled-back"
    assert "Too many open files" in said["error"]
    assert guest.memory() == before
    guest.process.thaw(pauser.condemned)
    assert guest.is_alive_and_runs()


def address_space() -> int:
    """Bytes that this process has mapped."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * PAGE


@BOTH
def test_memory_that_runs_out_past_the_point_of_no_return_costs_no_guest(
    pauser: Pauser, guests: Guests, faults: Faults, background: bool
) -> None:
    """What is large was taken before; no second thread can be had, either."""
    guest = guests.fresh()
    before = guest.memory()

    def run_out(*_: object) -> None:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (address_space() + MIB, hard))

    def act() -> dict[str, Any]:
        result = pauser.pause(guest, background=background, effects=faults.before("condemn", run_out))
        return {"outcome": result.outcome.value, "error": result.error}

    assert in_a_child(act) == {"outcome": "finished", "error": None}
    assert pauser.restored() == before


def in_folder(pauser: Pauser, folder: Path) -> Pauser:
    return type(pauser)(folder)


@BOTH
def test_a_tmpfs_that_is_too_small_is_found_out_before_the_guest_is_condemned(
    small_tmpfs: Path, pauser: Pauser, guest: Guest, background: bool
) -> None:
    small = in_folder(pauser, small_tmpfs / "node")
    before = guest.memory()
    result = small.pause(guest, background=background)
    assert "No space left" in str(result.error)
    small.assert_rolled_back(guest, result, before)


@BOTH
def test_a_tmpfs_that_fills_up_meanwhile_discards(
    small_tmpfs: Path, pauser: Pauser, guests: Guests, faults: Faults, background: bool
) -> None:
    small = in_folder(pauser, small_tmpfs / "node")
    guest = guests.fresh(pages=range(0, 2048, 4))
    filler = small_tmpfs / "somebody-else"
    effects = faults.at_chunk("copy_read", 1, lambda: fill_up(filler))
    result = small.pause(guest, background=background, effects=effects)
    assert "No space left" in str(result.error)
    small.assert_discarded(guest, result)


def test_a_memfd_sealed_against_writing_is_copied_and_not_punched(pauser: Pauser, guest: Guest) -> None:
    before = guest.memory()
    guest.ask("seal", SEAL_FUTURE_WRITE)
    result = pauser.pause(guest)
    assert result.outcome is Outcome.FINISHED
    assert "sealed against writing" in pauser.of(Planned)[0].punch_reason
    assert not pauser.of(Planned)[0].punch
    assert (result.punched_bytes, result.punch_error) == (0, None)
    assert pauser.restored() == before


def test_a_seal_that_comes_after_the_plan_ends_punching_and_not_the_copy(
    pauser: Pauser, guest: Guest, faults: Faults
) -> None:
    before = guest.memory()
    effects = faults.at_chunk("copy_read", 2, lambda: linux.add_seals(guest.watch, SEAL_FUTURE_WRITE))
    result = pauser.pause(guest, effects=effects)
    assert result.outcome is Outcome.FINISHED
    assert "not permitted" in str(result.punch_error)
    assert result.punched_bytes < 8 * MIB
    assert pauser.restored() == before


def kill(guest: Guest) -> None:
    """As the out-of-memory killer would."""
    os.kill(guest.pid, signal.SIGKILL)
    os.waitpid(guest.pid, 0)


@BOTH
@PUNCH
def test_a_guest_that_somebody_else_killed_while_it_was_copied_leaves_no_build_unless_we_had_killed_it_before(
    pauser: Pauser, guest: Guest, faults: Faults, background: bool, punch: bool
) -> None:
    before = guest.memory()
    effects = faults.at_chunk("copy_read", 2, lambda: kill(guest))
    result = pauser.pause(guest, background=background, punch=punch, effects=effects)
    if background or punch:
        pauser.assert_finished(guest, result, before)
        return
    assert (result.outcome, result.condemned, pauser.names()) == (Outcome.ROLLED_BACK, False, [])
    assert [(each.before, each.code) for each in pauser.of(GuestLooked)] == [("finish", "dead")]


@BOTH
def test_a_guest_that_is_killed_before_it_is_condemned_is_not_condemned(
    pauser: Pauser, guest: Guest, faults: Faults, background: bool
) -> None:
    before = guest.memory()
    effects = faults.at_chunk("copy_write", 0, lambda: kill(guest))
    result = pauser.pause(guest, background=background, effects=effects)
    assert (result.outcome, result.condemned) == (Outcome.ROLLED_BACK, False)
    assert guest.memory() == before
    assert pauser.names() == []


@BOTH
def test_a_guest_that_is_woken_before_it_is_condemned_rolls_back_and_loses_nothing(
    pauser: Pauser, guest: Guest, faults: Faults, background: bool
) -> None:
    def wake() -> None:
        os.kill(guest.pid, signal.SIGCONT)
        guest.write([1, 1000], seed=8)

    result = pauser.pause(guest, background=background, effects=faults.at_chunk("copy_write", 0, wake))
    assert result.outcome is Outcome.ROLLED_BACK
    assert "no longer stopped" in str(result.error)
    assert guest.is_alive_and_runs()
    before = guest.memory()
    again = pauser.pause(guest, build="b2", background=background)
    assert again.outcome is Outcome.FINISHED
    assert pauser.restored("b2") == before


@BOTH
@PUNCH
def test_a_copy_of_a_guest_that_was_woken_under_it_is_never_called_finished(
    pauser: Pauser, guest: Guest, faults: Faults, background: bool, punch: bool
) -> None:
    before = guest.memory()
    effects = faults.at_chunk("publish", 3, lambda: os.kill(guest.pid, signal.SIGCONT))
    result = pauser.pause(guest, background=background, punch=punch, effects=effects)
    if background or punch:  # it was dead by then
        pauser.assert_finished(guest, result, before)
    else:
        assert [event.call for event in pauser.of(CopyFailed)] == ["GuestRanError"]
        assert result.outcome is Outcome.ROLLED_BACK
        assert guest.is_alive_and_runs()
        assert pauser.names() == []


def test_a_dead_guest_cannot_be_frozen(pauser: Pauser, guest: Guest) -> None:
    kill(guest)
    with pytest.raises(Exception, match="died before it could be frozen"):
        pauser.prepare(guest)


def test_a_copier_that_is_killed_leaves_a_record_and_no_finished_build(
    pauser: Pauser, guest: Guest, faults: Faults
) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            pauser.pause(guest, effects=faults.at_chunk("copy_read", 3, lambda: os.kill(os.getpid(), signal.SIGKILL)))
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert pauser.names() == ["b1.partial"]
    assert [record.incarnation for record in pauser.condemned.records()] == [guest.process.incarnation]
    assert guest.resident() < 8 * MIB
    with pytest.raises(Exception, match="condemned"):
        guest.process.thaw(pauser.condemned)
    guest.process.kill()
    pauser.condemned.retire(guest.process)
    assert list(pauser.condemned.records()) == []
