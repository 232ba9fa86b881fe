"""What a run has left whose runner died: found by the run's id, ended, removed."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from engine import processes
from engine.cache import PARTIAL
from engine.errors import CondemnedError, EngineError
from engine.incarnation import CondemnedRecords, lives
from engine.spill import SUFFIX
from sim.record import events
from sim.record.folder import RunRecord
from sim.record.ledger import EVENTS_FILE, Entry, Ledger, drop_torn_line, read
from sim.record.names import CONDEMNED
from sim.record.run_id import RUN_VARIABLE

DEATH_SECONDS = 10.0
RMDIR_SECONDS = 2.0


class LeftoverError(EngineError):
    """Something that a dead run left could not be ended or removed."""


def processes_of(run_id: str) -> list[int]:
    """Pids of all processes but this one whose environment says that they belong to the run.

    /proc/PID/environ is what a process was started with; a forked one has its parent's. Processes of other users are
    not readable and not seen.
    """
    mark = f"{RUN_VARIABLE}={run_id}".encode()
    return sorted(int(pid) for pid in processes.with_memory() if int(pid) != os.getpid() and mark in _environment(pid))


def leftovers(record: RunRecord, run_dir: Path | None = None) -> list[str]:
    """What `end_leftovers` would end and remove now, one phrase each."""
    found = [_process_phrase(pid) for pid in processes_of(record.run)]
    return found + [f"{kind} {path}" for kind, path, _ in _belongings(record, run_dir)]


def end_leftovers(record: RunRecord, run_dir: Path | None = None) -> list[str]:
    """Kill every process of the run, wait for their death, remove its folders and cgroup; one phrase for each.

    Processes are known by the run's id in their environment, never by name. Folders and cgroup are removed only where
    their name begins with `snapdrill-<run id>`, or inside `run_dir`. Raises LeftoverError where something remains.
    """
    ended = _end_processes(record.run)
    records = None if run_dir is None else run_dir / CONDEMNED
    if run_dir is not None and records is not None and records.is_dir() and not records.is_symlink():
        builds = Path(record.cache_dir)
        ended += _retire_records(run_dir, builds) if _is_ours(builds, record.run, run_dir) else []
    for kind, path, remove in _belongings(record, run_dir):
        if not path.is_dir():  # it was inside a folder that is removed already
            continue
        try:
            remove(path)
        except OSError as error:
            raise LeftoverError(f"{kind} {path} of run {record.run} remains: {error.strerror}") from error
        ended.append(f"{kind} {path}")
    return ended


def _retire_records(run_dir: Path, builds: Path) -> list[str]:
    """For a run whose processes are all dead; its events are appended to the ledger."""
    ledger = run_dir / EVENTS_FILE
    if not ledger.is_file() or ledger.is_symlink():
        return []
    drop_torn_line(ledger)
    entries = read(ledger, is_own=True)
    writer = Ledger(ledger, time.monotonic() - (entries[-1].t if entries else 0.0))
    try:
        return retire_ended(run_dir / CONDEMNED, builds, entries, writer.append)
    finally:
        writer.close()


def retire_ended(
    folder: Path,
    builds: Path,
    entries: Sequence[Entry],
    note: Callable[[events.RecordRetired], object],
    spill: Path | None = None,
) -> list[str]:
    """Retire the condemned records of dead guests, after recording whether their build was finished or deleted.

    No process writes in `builds` any more, so unfinished builds are deleted first, with what they have in `spill`. One
    phrase for each record.
    """
    settled = {each.pause for each in entries if isinstance(each.event, events.PauseSettled)}
    records, retired = CondemnedRecords(folder), []
    for record in list(records.records()):
        name, build = record.incarnation.name, record.build
        if lives(record.incarnation.pid, record.incarnation.start_time) or "/" in f"{build}":
            continue
        if build is not None:
            shutil.rmtree(partial := builds / f"{build}{PARTIAL}", ignore_errors=True)
            if partial.exists():  # neither finished nor deleted: the record stays
                continue
            if spill is not None and not (builds / build).exists():
                with contextlib.suppress(OSError):  # mostly there is none
                    (spill / f"{build}{SUFFIX}").unlink()
        if build is None or build not in settled:
            finished = build is not None and (builds / build).is_dir()
            note(events.RecordRetired(name, build, "finished" if finished else "deleted"))
        with contextlib.suppress(CondemnedError, OSError):
            records.retire_gone(record)
            retired.append(f"the condemned record of {name}")
    return retired


def _environment(pid: int | str) -> list[bytes]:
    """What the process was started with; empty where that cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return file.readall().split(b"\0")
    except OSError:  # gone, or another user's
        return []


def _process_phrase(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return f"process {pid} ({file.read().strip()})"
    except OSError:
        return f"process {pid}"


def _end_processes(run_id: str) -> list[str]:
    """Repeats until none is found: one may have forked during the search."""
    ended: list[str] = []
    end = time.monotonic() + DEATH_SECONDS
    while pids := processes_of(run_id):
        if time.monotonic() > end:
            raise LeftoverError(f"processes of run {run_id} do not die after SIGKILL: {', '.join(map(str, pids))}")
        ended += [phrase for pid in pids if (phrase := _end_process(pid, run_id))]
    return ended


def _end_process(pid: int, run_id: str) -> str | None:
    """The pidfd is opened before the environment is read again, so the signal cannot reach a reused pid."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        phrase = _process_phrase(pid)
        if f"{RUN_VARIABLE}={run_id}".encode() not in _environment(pid):
            return None
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(DEATH_SECONDS * 1000):
            raise LeftoverError(f"{phrase} of run {run_id} does not die after SIGKILL")
    except ProcessLookupError:
        return None
    except PermissionError as error:
        raise LeftoverError(f"{phrase} of run {run_id} cannot be ended: it belongs to another user") from error
    finally:
        os.close(pidfd)
    return phrase


def _belongings(record: RunRecord, run_dir: Path | None) -> list[tuple[str, Path, Callable[[Path], None]]]:
    """What exists of the run's own folders and cgroup: kind, path, and how it is removed."""
    named: list[tuple[str, str | None, Callable[[Path], None]]] = [
        ("cache folder", record.cache_dir, shutil.rmtree),
        ("spill folder", record.spill_dir, shutil.rmtree),
        ("socket folder", record.socket_dir, shutil.rmtree),
        ("cgroup", record.cgroup, _remove_cgroup),
    ]
    paths = [(kind, Path(path), remove) for kind, path, remove in named if path]
    return [each for each in paths if _is_ours(each[1], record.run, run_dir) and each[1].is_dir()]


def _is_ours(path: Path, run_id: str, run_dir: Path | None) -> bool:
    if not run_id or not path.is_absolute() or path.is_symlink():
        return False
    whole = path.resolve()
    inside = run_dir is not None and run_dir.resolve() in whole.parents
    return inside or whole.name.startswith(f"snapdrill-{run_id}")


def _remove_cgroup(path: Path) -> None:
    """A cgroup is busy until the kernel has let go of its last dead process."""
    end, pause = time.monotonic() + RMDIR_SECONDS, 1e-3
    while True:
        try:
            return path.rmdir()
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(pause)
        pause = min(pause * 2, 0.1)
