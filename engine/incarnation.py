"""One guest process, and the records that condemn it (opens circle 1)."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.errors import CondemnedError, FreezeError, PunchRefusedError


@dataclass(frozen=True, slots=True)
class Incarnation:
    """Identity of a guest process: pid and start time (clock ticks since boot) name it across pid reuse."""

    name: str
    pid: int
    start_time: int
    memfd_inode: int


def start_time_of(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (clock ticks since boot); None where there is no such process."""
    fields = _stat_fields(pid)
    return int(fields[19]) if fields else None


def state_of(pid: int) -> str | None:
    """The state letter of /proc/PID/stat (R, S, D, T, Z, ...); None where there is no such process."""
    fields = _stat_fields(pid)
    return fields[0] if fields else None


def _stat_fields(pid: int) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read().decode("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


class GuestProcess:
    """The process behind an incarnation, addressed by its pidfd (owned, closed by `close`)."""

    def __init__(self, incarnation: Incarnation, pidfd: int) -> None:
        self.incarnation = incarnation
        self.pidfd = pidfd

    def is_dead(self) -> bool:
        """True once the process has exited (its pidfd is readable)."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def is_stopped(self) -> bool:
        """True where every thread of the process is stopped by a signal."""
        try:
            threads = os.listdir(f"/proc/{self.incarnation.pid}/task")
        except FileNotFoundError:
            return False
        return bool(threads) and all(state_of(int(tid)) in ("T", "t") for tid in threads) and not self.is_dead()

    def freeze(self, deadline: float = 5.0) -> None:
        """SIGSTOP and wait until every thread is stopped; raises FreezeError after `deadline` seconds or on death."""
        self._signal(signal.SIGSTOP)
        end, pause = time.monotonic() + deadline, 20e-6
        while not self.is_stopped():
            if self.is_dead():
                raise FreezeError(f"{self.incarnation.name}: the guest died before it could be frozen")
            if time.monotonic() > end:
                raise FreezeError(f"{self.incarnation.name}: the guest did not stop within {deadline:g} s")
            time.sleep(pause)
            pause = min(pause * 2, 2e-3)

    def confirm_stopped(self) -> None:
        """Raise FreezeError unless the guest is still stopped: what it wrote meanwhile would be lost."""
        if not self.is_stopped():
            raise FreezeError(f"{self.incarnation.name}: the guest is no longer stopped")

    def thaw(self, condemned: CondemnedRecords) -> None:
        """SIGCONT; raises CondemnedError where a record says that this incarnation may never run again."""
        if condemned.holds(self.incarnation):
            raise CondemnedError(f"{self.incarnation.name} is condemned: its memory is no longer whole, it may not run")
        self._signal(signal.SIGCONT)

    def kill(self, deadline: float = 10.0) -> None:
        """SIGKILL and wait for death; raises FreezeError where the kernel does not end it within `deadline` seconds."""
        self._signal(signal.SIGKILL)
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if not poll.poll(deadline * 1000):
            raise FreezeError(f"{self.incarnation.name}: the guest did not die within {deadline:g} s")

    def close(self) -> None:
        """Close the pidfd; the process is not touched."""
        pidfd, self.pidfd = self.pidfd, -1  # first: nobody may signal whoever gets its number
        if pidfd >= 0:
            os.close(pidfd)

    def _signal(self, number: signal.Signals) -> None:
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return  # already reaped: death is what its callers check for


_MINT = object()


class PunchPermit:
    """The only key to `Memfd.punch`; made by `CondemnedRecords.condemn` alone."""

    __slots__ = ("incarnation",)

    def __init__(self, incarnation: Incarnation, mint: object) -> None:
        if mint is not _MINT:
            raise PunchRefusedError("a punch permit comes from a condemned record only")
        self.incarnation = incarnation


@dataclass(frozen=True, slots=True)
class CondemnedRecord:
    """Who was condemned, for which build, as read back from disk."""

    incarnation: Incarnation
    build: str


class CondemnedRecords:
    """The folder of condemned records of one node, one JSON file an incarnation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def condemn(self, incarnation: Incarnation, build: str) -> PunchPermit:
        """Commit the incarnation to teardown for ever, then give the permit; raises OSError with nothing changed."""
        path = self._path(incarnation)
        temporary = path.with_suffix(".tmp")
        content = json.dumps({**asdict(incarnation), "build": build}).encode()
        try:
            with open(temporary, "wb") as file:  # one left by a crash was never a record
                file.write(content)
            os.rename(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        return PunchPermit(incarnation, _MINT)

    def holds(self, incarnation: Incarnation) -> bool:
        """True where this incarnation is condemned."""
        try:
            os.stat(self._path(incarnation))
        except FileNotFoundError:
            return False  # any other error is raised: what cannot be read may not be taken for "not condemned"
        return True

    def records(self) -> Iterator[CondemnedRecord]:
        """Every record that was not retired; a `.tmp` is a condemnation that never happened."""
        for path in sorted(self._folder.glob("*.json")):
            content = json.loads(path.read_bytes())
            build = content.pop("build")
            yield CondemnedRecord(Incarnation(**content), build)

    def retire(self, guest: GuestProcess) -> None:
        """Forget a record once the guest is dead; raises CondemnedError while it lives."""
        if not guest.is_dead():
            raise CondemnedError(f"{guest.incarnation.name} is still alive: its condemned record stays")
        self._path(guest.incarnation).unlink(missing_ok=True)

    def retire_gone(self, record: CondemnedRecord) -> None:
        """Forget a record whose process is gone from /proc (pid and start time); CondemnedError while it lives."""
        incarnation = record.incarnation
        if start_time_of(incarnation.pid) == incarnation.start_time:
            raise CondemnedError(f"{incarnation.name} is still alive: its condemned record stays")
        self._path(incarnation).unlink(missing_ok=True)

    def _path(self, incarnation: Incarnation) -> Path:
        return self._folder / f"{incarnation.name}-{incarnation.pid}-{incarnation.start_time}.json"
