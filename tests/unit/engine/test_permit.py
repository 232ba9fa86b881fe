from __future__ import annotations

import dataclasses
import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import linux
from engine.errors import CondemnedError, FreezeError, PunchRefusedError
from engine.incarnation import CondemnedRecord, CondemnedRecords, GuestProcess, Incarnation, PunchPermit, start_time_of
from engine.memfd import Memfd

INCARNATION = Incarnation("web-0", 4711, 123456, 42)


@pytest.fixture
def records(tmp_path: Path) -> CondemnedRecords:
    return CondemnedRecords(tmp_path / "condemned")


@pytest.fixture
def myself() -> Iterator[GuestProcess]:
    """A process that is surely alive: this one."""
    pid = os.getpid()
    guest = GuestProcess(Incarnation("me", pid, start_time_of(pid) or 0, 1), os.pidfd_open(pid))
    yield guest
    guest.close()


@pytest.fixture
def dead() -> Iterator[GuestProcess]:
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    guest = GuestProcess(Incarnation("late", child.pid, start_time_of(child.pid) or 0, 1), os.pidfd_open(child.pid))
    child.kill()
    child.communicate()
    yield guest
    guest.close()


def test_a_permit_cannot_be_made_by_hand() -> None:
    with pytest.raises(PunchRefusedError, match="condemned record"):
        PunchPermit(INCARNATION, object())


def test_a_permit_comes_with_its_record(records: CondemnedRecords) -> None:
    assert not records.holds(INCARNATION)
    permit = records.condemn(INCARNATION, "b1")
    assert permit.incarnation == INCARNATION
    assert records.holds(INCARNATION)


def test_a_record_survives_its_writer(records: CondemnedRecords, tmp_path: Path) -> None:
    records.condemn(INCARNATION, "b1")
    after_a_restart = CondemnedRecords(tmp_path / "condemned")
    assert after_a_restart.holds(INCARNATION)
    assert [(record.incarnation, record.build) for record in after_a_restart.records()] == [(INCARNATION, "b1")]


@pytest.mark.parametrize(
    "other",
    [
        Incarnation("web-1", 4711, 123456, 42),
        Incarnation("web-0", 4712, 123456, 42),
        Incarnation("web-0", 4711, 123457, 42),
    ],
    ids=["sandbox", "pid", "start time"],
)
def test_a_record_condemns_one_incarnation_only(records: CondemnedRecords, other: Incarnation) -> None:
    records.condemn(INCARNATION, "b1")
    assert not records.holds(other)


def test_to_condemn_twice_is_to_condemn(records: CondemnedRecords) -> None:
    records.condemn(INCARNATION, "b1")
    records.condemn(INCARNATION, "b1")
    assert len(list(records.records())) == 1


def test_what_a_crash_left_half_written_is_no_record_and_hinders_none(
    records: CondemnedRecords, tmp_path: Path
) -> None:
    records.condemn(INCARNATION, "b1")
    path = next((tmp_path / "condemned").iterdir())
    path.rename(path.with_suffix(".tmp"))
    assert not records.holds(INCARNATION)
    assert list(records.records()) == []
    records.condemn(INCARNATION, "b1")
    assert records.holds(INCARNATION)


def test_a_record_that_cannot_be_written_gives_no_permit_and_leaves_nothing(
    records: CondemnedRecords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="Input/output"):
        records.condemn(INCARNATION, "b1")
    assert not records.holds(INCARNATION)
    assert list((tmp_path / "condemned").iterdir()) == []


def test_records_that_cannot_be_looked_at_are_not_taken_for_a_pardon(
    records: CondemnedRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(PermissionError):
        records.holds(INCARNATION)


def test_records_that_cannot_be_listed_are_not_taken_for_none(
    records: CondemnedRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.condemn(INCARNATION, "b1")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "listdir", refuse)
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        list(records.records())


def test_a_guest_that_cannot_be_signalled_is_reported_as_one_that_does_not_die(
    myself: GuestProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    with pytest.raises(FreezeError, match="cannot be killed: Operation not permitted"):
        myself.kill()
    with pytest.raises(PermissionError):
        myself.end()
    assert not myself.killed


def test_a_living_guest_keeps_its_record(records: CondemnedRecords, myself: GuestProcess) -> None:
    records.condemn(myself.incarnation, "b1")
    with pytest.raises(CondemnedError, match="still alive"):
        records.retire(myself)
    assert records.holds(myself.incarnation)


def test_a_condemned_guest_is_not_thawed(records: CondemnedRecords, myself: GuestProcess) -> None:
    records.condemn(myself.incarnation, "b1")
    with pytest.raises(CondemnedError, match="condemned"):
        myself.thaw(records)


def test_a_dead_guest_s_record_is_retired(records: CondemnedRecords, dead: GuestProcess) -> None:
    records.condemn(dead.incarnation, "b1")
    records.retire(dead)
    records.retire(dead)  # twice is once
    assert not records.holds(dead.incarnation)


def test_a_retired_record_does_not_open_another_memfd(records: CondemnedRecords) -> None:
    fd = os.memfd_create("other", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 4096)
    os.pwrite(fd, b"x", 0)
    memfd = Memfd.adopt(fd, 4096)
    permit = records.condemn(INCARNATION, "b1")
    with pytest.raises(PunchRefusedError):
        memfd.punch(0, 4096, permit)
    assert memfd.resident_bytes() == 4096
    assert linux.seals_of(memfd.fd) == linux.SEAL_SHRINK | linux.SEAL_GROW
    memfd.close()


def test_a_record_of_a_guest_that_lives_by_pid_and_start_time_stays_and_one_of_another_goes(
    records: CondemnedRecords, myself: GuestProcess
) -> None:
    records.condemn(myself.incarnation, "b1")
    (record,) = records.records()
    with pytest.raises(CondemnedError):
        records.retire_gone(record)
    assert records.holds(myself.incarnation)
    other = dataclasses.replace(myself.incarnation, start_time=myself.incarnation.start_time + 1)
    records.condemn(other, "b2")
    records.retire_gone(CondemnedRecord(other, "b2"))
    assert (records.holds(other), records.holds(myself.incarnation)) == (False, True)
