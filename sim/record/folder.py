"""The folder of a run: made, claimed, read back and removed here."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from engine.errors import UserError, behind
from engine.incarnation import start_time_of, state_of
from engine.printable import printable
from engine.reading import read_regular
from sim.record import events
from sim.record.fold import Fold
from sim.record.ledger import EVENTS_FILE, Entry, LedgerError, read
from sim.record.view import View

RUN_FILE = "run.json"
LATEST = "latest"
_ROOM = 16 << 10
_MOST_OF_RECORD = 64 << 10


class RunFolderFullError(UserError):
    """The disk under the run folder is full: the record cannot be kept, so there is no verdict.

    Not `started`: no guest was, as the room for the ledger could not be reserved.
    """

    def __init__(self, folder: Path, *, started: bool = True) -> None:
        what = "the run ended without a verdict" if started else "the run was not started"
        super().__init__(f"no space is left on the disk of {folder}: {what}; make room, or use --runs-dir")
        self.started = started


def names_full_disk(error: BaseException) -> bool:
    """True if the error, or one behind it, is ENOSPC or EDQUOT."""
    return any(
        isinstance(each, RunFolderFullError) or getattr(each, "errno", None) in {errno.ENOSPC, errno.EDQUOT}
        for each in behind(error)
    )


def has_ledger(folder: Path) -> bool:
    """True if something is recorded there: a run has begun."""
    try:
        return (folder / EVENTS_FILE).stat().st_size > 0
    except OSError:
        return False


def is_full(folder: Path) -> bool:
    """True if its disk has no room for a few lines of a ledger."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < _ROOM


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The runner of a run, and what to clean up if it dies. Start times: clock ticks since boot, /proc/PID/stat."""

    run: Annotated[str, Field(pattern="^[0-9a-f]{8,32}$")]
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
    spill_dir: str | None = None

    @classmethod
    def of(
        cls,
        run: str,
        entries: Sequence[Entry],
        cache_dir: Path,
        socket_dir: Path,
        cgroup: Path | None,
        *,
        ended: bool,
        spill_dir: Path | None = None,
    ) -> RunRecord:
        """The record of a run of this very process, with the node and zygote that its ledger names last."""
        started = [each.event for each in entries if isinstance(each.event, events.NodeStarted)]
        last, pid = started[-1] if started else None, os.getpid()
        return cls(
            run=run,
            runner_pid=pid,
            runner_start_time=start_time_of(pid) or 0,
            node_pid=last.pid if last else None,
            node_start_time=last.start_time if last else None,
            zygote_pid=last.zygote_pid if last else None,
            zygote_start_time=last.zygote_start_time if last else None,
            cache_dir=str(cache_dir),
            socket_dir=str(socket_dir),
            cgroup=str(cgroup) if cgroup else None,
            ended=ended,
            spill_dir=str(spill_dir) if spill_dir else None,
        )

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
    """Make the folder of a run's cache; `end_leftovers` recognises it by its name. Raises OSError."""
    folder = parent / f"snapdrill-{run}-cache"
    folder.mkdir(mode=0o700)
    return folder


def make_spill(parent: Path, run: str) -> Path:
    """The same for what a run's cache does not take."""
    folder = parent / f"snapdrill-{run}-spill"
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

    False, with nothing removed, if its record does not say that the run has ended: `snapdrill clean` needs it then.
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
    """A run without a record never started anything."""
    try:
        return not (run_dir / RUN_FILE).exists() or read_record(run_dir).ended
    except UserError:
        return False


def write_record(run_dir: Path, record: RunRecord) -> None:
    """Write run.json atomically."""
    partial = run_dir / f".{RUN_FILE}.partial"
    partial.unlink(missing_ok=True)
    with partial.open("x", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(record), indent=2) + "\n")
    os.replace(partial, run_dir / RUN_FILE)


def read_record(run_dir: Path) -> RunRecord:
    """The record of a run; UserError if it is missing or invalid."""
    path = run_dir / RUN_FILE
    try:
        return _RECORD.validate_json(read_regular(path, _MOST_OF_RECORD), strict=True, extra="forbid")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{printable(str(part))}: " for part in first["loc"][-1:])
        raise UserError(f"{path}: not a run's record: {where}{first['msg']}") from None


def is_mine(run_dir: Path) -> bool:
    """Whether its record is a file of this user, not a symbolic link."""
    status = os.lstat(run_dir / RUN_FILE)
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


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


SCENARIO_FILE = "scenario.yaml"


@dataclass(frozen=True)
class StoredRun:
    """A run that is over: `path` is its ledger, `entries` all of it, `folded` its view where that is known already."""

    path: Path
    entries: Sequence[Entry]
    folded: View | None = field(default=None, repr=False)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.path.parent

    @property
    def scenario_file(self) -> Path:
        """The scenario as it was run, kept beside the ledger."""
        return self.folder / SCENARIO_FILE

    @cached_property
    def view(self) -> View:
        """The whole ledger, folded."""
        return self.folded or self.view_at(None)

    def view_at(self, t: float | None) -> View:
        """The view `t` seconds after the run began; None for its end."""
        fold = Fold()
        fold.apply(entry for entry in self.entries if t is None or entry.t <= t)
        return fold.view()


def events_file(run: Path) -> Path:
    """The ledger of RUN: a run folder, a folder with a `latest` link, or the file; UserError if there is none."""
    try:
        for path in (run, run / EVENTS_FILE, run / "latest" / EVENTS_FILE):
            if path.is_file():
                return path
    except OSError as error:
        raise UserError(f"{run}: cannot be read: {error.strerror}") from None
    raise UserError(f"{run}: there is no {EVENTS_FILE}; give a run folder such as runs/demo/latest")


def open_run(run: Path) -> StoredRun:
    """Read a run back; UserError naming what cannot be read."""
    path = events_file(run)
    try:
        entries = read(path)
    except LedgerError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if not entries:
        raise UserError(f"{path}: it is empty: that run never began; give another run")
    return StoredRun(path, entries)
