"""Where a run keeps everything, and what is left of a run whose runner died: found by the run's id, ended, removed."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from engine.errors import EngineError, UserError
from engine.incarnation import start_time_of, state_of
from sim.run_id import RUN_VARIABLE

RUN_FILE = "run.json"
LATEST = "latest"
DEATH_SECONDS = 10.0
_ROOM = 16 << 10
RMDIR_SECONDS = 2.0


class RunFolderFullError(UserError):
    """The disk under the run folder is full: the record cannot be kept, so there is no verdict."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"no space is left on the disk of {folder}: the run ended without a verdict; make room, or use --runs-dir"
        )


def names_full_disk(error: BaseException) -> bool:
    """True for an error that comes of a full disk or a used-up quota, or that was met on the way out after one."""
    if isinstance(error, RunFolderFullError) or getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}:
        return True
    return any(names_full_disk(each) for each in (error.__cause__, error.__context__) if each is not None)


def is_full(folder: Path) -> bool:
    """True where its disk has not room for a few lines of a ledger."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < _ROOM


class LeftoverError(EngineError):
    """Something that a dead run left could not be ended or removed."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Who runs a run, and what is to be undone if they die. Start times: clock ticks since boot, /proc/PID/stat."""

    run: str
    runner_pid: int
    runner_start_time: int
    node_pid: int | None
    node_start_time: int | None
    zygote_pid: int | None
    zygote_start_time: int | None
    cache_dir: str
    socket_dir: str
    cgroup: str | None
    ended: bool

    @property
    def runner_lives(self) -> bool:
        """True while the very process that made this record runs (a zombie does not)."""
        alive = start_time_of(self.runner_pid) == self.runner_start_time
        return alive and state_of(self.runner_pid) not in {"Z", "X", None}


_RECORD = TypeAdapter(RunRecord)


def make(runs_dir: Path, name: str, seed: int, now: datetime) -> Path:
    """Make `<runs_dir>/<name>/<UTC>-<seed>[-n]/`; `now` is aware."""
    return _make_numbered(runs_dir / name, f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{seed}")


def make_cache(parent: Path, run: str) -> Path:
    """Make the folder of a run's cache, by whose name `end_leftovers` knows it; raises OSError."""
    folder = parent / f"snapdrill-{run}-cache"
    folder.mkdir(mode=0o700)
    return folder


def claim(run_dir: Path, runs_dir: Path) -> Path:
    """Move an ended run `.../<name>/<stamp>/` to `<runs_dir>/<name>/<stamp>[-n]/`; gives its new place."""
    folder = _make_numbered(runs_dir / run_dir.parent.name, run_dir.name)
    os.replace(run_dir, folder)  # over the empty folder that was made for it
    point_latest_at(folder)
    return folder


def point_latest_at(folder: Path) -> None:
    """Make a run the latest of its name. Readers see the old link or the new one, never none."""
    aside = folder.parent / f".{LATEST}-{os.getpid()}-{folder.name}"
    aside.symlink_to(folder.name)
    os.replace(aside, folder.parent / LATEST)


def remove(run_dir: Path) -> bool:
    """Remove an ended run's folder; a link to it as the latest goes too, and the folder of runs when it is empty.

    False, with nothing removed, where its record does not say that the run has ended: `snapdrill clean` needs it to
    find what is left of it.
    """
    if not _has_ended(run_dir):
        return False
    shutil.rmtree(run_dir, ignore_errors=True)
    latest = run_dir.parent / LATEST
    if latest.is_symlink() and not latest.exists():
        latest.unlink(missing_ok=True)
    if not any(run_dir.parent.iterdir()):
        run_dir.parent.rmdir()
    return True


def _has_ended(run_dir: Path) -> bool:
    """A run without a record never had anything to end."""
    try:
        return not (run_dir / RUN_FILE).exists() or read_record(run_dir).ended
    except UserError:
        return False


def write_record(run_dir: Path, record: RunRecord) -> None:
    """Write run.json atomically."""
    partial = run_dir / f".{RUN_FILE}.partial"
    partial.write_text(json.dumps(dataclasses.asdict(record), indent=2) + "\n", encoding="utf-8")
    os.replace(partial, run_dir / RUN_FILE)


def read_record(run_dir: Path) -> RunRecord:
    """The record of a run; UserError where there is none or it is not one."""
    path = run_dir / RUN_FILE
    try:
        return _RECORD.validate_json(path.read_bytes(), strict=True, extra="forbid")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: not a run's record: {where + ': ' if where else ''}{first['msg']}") from None


def processes_of(run_id: str) -> list[int]:
    """Pids of all processes but this one whose environment says that they belong to the run.

    /proc/PID/environ is what a process was started with; a forked one has its parent's. Processes of other users are
    not readable and not seen.
    """
    mark = f"{RUN_VARIABLE}={run_id}".encode()
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())
    return sorted(pid for pid in pids if pid != os.getpid() and mark in _environment(pid))


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
    for kind, path, remove in _belongings(record, run_dir):
        if not path.is_dir():  # it lay inside one that is gone
            continue
        try:
            remove(path)
        except OSError as error:
            raise LeftoverError(f"{kind} {path} of run {record.run} remains: {error.strerror}") from error
        ended.append(f"{kind} {path}")
    return ended


def _make_numbered(parent: Path, stamp: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    folder, n = parent / stamp, 1
    while not _made(folder):
        n += 1
        folder = parent / f"{stamp}-{n}"
    return folder


def _made(folder: Path) -> bool:
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def _environment(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:  # gone, or another user's
        return []


def _process_phrase(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return f"process {pid} ({file.read().strip()})"
    except OSError:
        return f"process {pid}"


def _end_processes(run_id: str) -> list[str]:
    """Until none is found: one may have forked while it was looked for."""
    ended: list[str] = []
    end = time.monotonic() + DEATH_SECONDS
    while pids := processes_of(run_id):
        if time.monotonic() > end:
            raise LeftoverError(f"processes of run {run_id} do not die: {', '.join(map(str, pids))}")
        ended += [phrase for pid in pids if (phrase := _end_process(pid, run_id))]
    return ended


def _end_process(pid: int, run_id: str) -> str | None:
    """The pidfd is opened before the environment is asked again, so the signal cannot reach a successor of the pid."""
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
            raise LeftoverError(f"{phrase} of run {run_id} does not die")
    except ProcessLookupError:
        return None
    except PermissionError as error:
        raise LeftoverError(f"{phrase} of run {run_id} may not be ended: it is another user's") from error
    finally:
        os.close(pidfd)
    return phrase


def _belongings(record: RunRecord, run_dir: Path | None) -> list[tuple[str, Path, Callable[[Path], None]]]:
    """What exists of the run's own folders and cgroup: kind, path, and how it is removed."""
    named: list[tuple[str, str | None, Callable[[Path], None]]] = [
        ("cache folder", record.cache_dir, shutil.rmtree),
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
