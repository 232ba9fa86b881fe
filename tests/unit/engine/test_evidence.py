"""Only running changes what a stopped process has done; and a permit is no use while its guest lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import evidence
from engine.errors import CondemnedError, FreezeError, GuestRanError, PunchRefusedError
from engine.incarnation import CondemnedRecord, CondemnedRecords, GuestProcess, Incarnation, lives, start_time_of

BUSY = """
import sys, threading
def work():
    while True:
        pass
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def guest() -> Iterator[GuestProcess]:
    """A process of three threads, two of which are always busy."""
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        born = Incarnation("web-0.1", child.pid, start_time_of(child.pid) or 0, 1)
        made = GuestProcess(born, os.pidfd_open(child.pid))
        yield made
        child.kill()
        made.close()


@pytest.fixture
def records(tmp_path: Path) -> CondemnedRecords:
    return CondemnedRecords(tmp_path / "condemned")


def stop(pid: int) -> None:
    """SIGSTOP, as a third party would that hides that it woke somebody."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    folder = evidence.open_process(pid)
    while not evidence.are_stopped(folder):
        pass
    os.close(folder)


def wake_for_a_moment(guest: GuestProcess) -> None:
    before = guest.frozen
    os.kill(guest.incarnation.pid, signal.SIGCONT)
    folder = evidence.open_process(guest.incarnation.pid)
    while evidence.threads_of(folder) == before:
        pass
    os.close(folder)
    stop(guest.incarnation.pid)


def test_a_frozen_guest_that_nobody_woke_has_not_run(guest: GuestProcess) -> None:
    guest.freeze()
    for number in (signal.SIGSTOP, signal.SIGUSR1, signal.SIGWINCH):
        os.kill(guest.incarnation.pid, number)
    Path(f"/proc/{guest.incarnation.pid}/smaps").read_bytes()
    guest.look()
    assert guest.frozen is not None
    assert len(guest.frozen) == 3
    assert guest.seen == guest.frozen


def test_a_guest_that_was_woken_and_stopped_again_has_run(guest: GuestProcess) -> None:
    guest.freeze()
    wake_for_a_moment(guest)
    assert guest.is_stopped()
    with pytest.raises(GuestRanError, match="has run since it was frozen") as caught:
        guest.look()
    assert caught.value.code == "ran"


def test_a_guest_that_was_woken_and_runs_on_has_run(guest: GuestProcess) -> None:
    guest.freeze()
    os.kill(guest.incarnation.pid, signal.SIGCONT)
    with pytest.raises(GuestRanError, match="no longer stopped"):
        guest.look()


def test_a_guest_that_somebody_else_killed_has_taken_its_evidence_along(guest: GuestProcess) -> None:
    guest.freeze()
    guest.kill()
    with pytest.raises(GuestRanError, match="by no act of ours") as caught:
        guest.look()
    assert (caught.value.code, guest.seen) == ("dead", None)


def test_a_guest_that_was_never_frozen_by_us_cannot_be_vouched_for(guest: GuestProcess) -> None:
    stop(guest.incarnation.pid)
    with pytest.raises(GuestRanError, match="not frozen by us"):
        guest.look()


def test_the_end_of_an_untouched_guest_says_nothing_and_what_follows_it_is_ours(guest: GuestProcess) -> None:
    guest.freeze()
    guest.end()
    guest.await_death()
    guest.look()
    guest.end()
    assert guest.seen == guest.frozen


def test_a_guest_that_had_run_is_killed_all_the_same(guest: GuestProcess) -> None:
    guest.freeze()
    wake_for_a_moment(guest)
    with pytest.raises(GuestRanError):
        guest.end()
    guest.await_death()
    assert guest.is_dead()


def test_a_kill_for_which_there_was_no_memory_is_no_kill_and_the_next_look_is_made(
    guest: GuestProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest.freeze()

    def refuse(_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(guest, "_signal", refuse)
        with pytest.raises(MemoryError):
            guest.end()
    assert not guest.is_dead()
    wake_for_a_moment(guest)
    with pytest.raises(GuestRanError):
        guest.look()


def test_a_thaw_says_what_it_found_and_the_next_freeze_begins_anew(
    guest: GuestProcess, records: CondemnedRecords
) -> None:
    guest.freeze()
    assert guest.thaw(records) is None
    guest.freeze()
    wake_for_a_moment(guest)
    ran = guest.thaw(records)
    assert ran is not None
    assert ran.code == "ran"
    guest.freeze()
    guest.look()


def test_a_guest_that_was_ended_is_not_thawed_though_no_record_says_so(
    guest: GuestProcess, records: CondemnedRecords
) -> None:
    guest.freeze()
    guest.end()
    with pytest.raises(CondemnedError):
        guest.thaw(records)


def test_a_guest_whose_threads_cannot_be_read_is_not_frozen(
    guest: GuestProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(evidence, "threads_of", refuse)
    with pytest.raises(FreezeError, match="what its threads do cannot be read"):
        guest.freeze()


def test_where_the_kernel_keeps_no_schedstat_context_switches_are_what_is_seen(
    guest: GuestProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = vars(evidence)["_read"]
    monkeypatch.setattr(evidence, "_read", lambda at, name: b"0 0 0" if name.endswith("schedstat") else real(at, name))
    guest.freeze()
    guest.look()
    assert guest.frozen is not None
    assert any(sum(did) for did in guest.frozen.values())


def test_a_permit_opens_at_its_guests_death_and_not_before(guest: GuestProcess, records: CondemnedRecords) -> None:
    permit = records.condemn(guest.incarnation, "b1")
    with pytest.raises(PunchRefusedError, match="not known to be dead"):
        permit.open(guest)
    assert not permit.is_open
    guest.kill()
    permit.open(guest)
    assert permit.is_open


def test_a_permit_does_not_open_at_the_death_of_another(guest: GuestProcess, records: CondemnedRecords) -> None:
    permit = records.condemn(Incarnation("web-1.1", 1, 1, 1), "b1")
    guest.kill()
    with pytest.raises(PunchRefusedError):
        permit.open(guest)


def test_children_are_seen() -> None:
    folder = evidence.open_process(os.getpid())
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        assert child.pid in evidence.children_of(folder)
        child.kill()
    os.close(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"build": "b1"}', b"\xff\xfe"])
def test_a_record_that_cannot_be_read_condemns_by_its_name(
    records: CondemnedRecords, tmp_path: Path, content: bytes
) -> None:
    records.condemn(Incarnation("web-0.1", 4711, 99, 42), "b1")
    (tmp_path / "condemned" / "web-0.1-4711-99.json").write_bytes(content)
    assert records.holds(Incarnation("web-0.1", 4711, 99, 42))
    assert list(records.records()) == [CondemnedRecord(Incarnation("web-0.1", 4711, 99, 0), None)]


def test_a_folder_of_records_that_vanished_condemns_whoever_is_asked_for(
    records: CondemnedRecords, tmp_path: Path, guest: GuestProcess
) -> None:
    (tmp_path / "condemned").rmdir()
    assert records.holds(guest.incarnation)
    with pytest.raises(CondemnedError):
        guest.thaw(records)
    assert CondemnedRecords(tmp_path / "condemned", expected=True).vanished


def test_a_folder_that_was_never_made_has_not_vanished(tmp_path: Path) -> None:
    first = CondemnedRecords(tmp_path / "condemned")
    assert not first.vanished
    assert not first.holds(Incarnation("web-0.1", 1, 1, 1))
    assert not CondemnedRecords(tmp_path / "condemned", expected=True).vanished


def test_a_zombie_is_dead(records: CondemnedRecords) -> None:
    child = subprocess.Popen(["true"])
    born = Incarnation("web-0.1", child.pid, start_time_of(child.pid) or 0, 1)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    records.condemn(born, "b1")
    assert not lives(born.pid, born.start_time)
    records.retire_gone(next(records.records()))
    assert not records.holds(born)
    child.wait()


def test_a_name_with_brackets_is_not_taken_for_a_state() -> None:
    code = "import sys; open('/proc/self/comm', 'w').write('a) T (b'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        process = evidence.open_process(child.pid)
        assert not evidence.are_stopped(process)
        os.close(process)
        child.kill()
