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

from engine import evidence
from engine.errors import CondemnedError, FreezeError, GuestRanError, PunchRefusedError
from engine.evidence import Threads

DEATH_SECONDS = 10.0
"""How long a killed guest may take to die."""
_SETTLING = 50e-6  # seconds between two readings of what its threads did


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


def lives(pid: int, start_time: int) -> bool:
    """True while the very process of this pid and start time runs; a zombie is dead."""
    fields = _stat_fields(pid)
    return fields is not None and int(fields[19]) == start_time and fields[0] not in {"Z", "X"}


def _stat_fields(pid: int) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read().decode("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


class GuestProcess:
    """The process behind an incarnation, addressed by its pidfd and its /proc folder (owned, closed by `close`)."""

    def __init__(self, incarnation: Incarnation, pidfd: int) -> None:
        self.incarnation = incarnation
        self.pidfd = pidfd
        self._folder = evidence.open_process(incarnation.pid)  # now: later the pid may be another process's
        if pidfd >= 0 and self.is_dead():
            self._close_folder()
        self.frozen: Threads | None = None
        """What its threads had done when it was frozen; None where it was not frozen by us."""
        self.seen: Threads | None = None
        """The same at the last look; None where there was nothing left to look at."""
        self.killed = False
        """True once `end` sent SIGKILL: the last look was made just before it."""
        self.asked_to_die = False
        """True once SIGKILL was sent through this object to a process that was alive."""

    def is_dead(self) -> bool:
        """True once the process has exited (its pidfd is readable)."""
        return self._dies_within(0)

    def is_stopped(self) -> bool:
        """True where every thread of the process is stopped by a signal."""
        return evidence.are_stopped(self._folder) and not self.is_dead()

    def freeze(self, deadline: float = 5.0) -> None:
        """SIGSTOP, wait until every thread is stopped, and note what each has done.

        Raises FreezeError after `deadline` seconds, on death, or where what it did cannot be learned: a guest that
        could run unseen is not paused.
        """
        self.frozen = self.seen = None
        self._signal(signal.SIGSTOP)
        end, pause = time.monotonic() + deadline, 20e-6
        while not self.is_stopped():
            self._go_on_waiting(end, f"the guest did not stop within {deadline:g} s")
            time.sleep(pause)
            pause = min(pause * 2, 2e-3)
        try:
            self.frozen = self._settled_threads(end)
        except (OSError, ValueError, KeyError) as error:
            raise FreezeError(f"{self.incarnation.name}: what its threads do cannot be read: {error}") from error

    def _settled_threads(self, end: float) -> Threads:
        """A thread is reported as stopped a moment before it leaves its CPU: read until two readings are the same."""
        before = evidence.threads_of(self._folder)
        while True:
            time.sleep(_SETTLING)
            now = evidence.threads_of(self._folder)
            if now == before and self.is_stopped():
                return now
            self._go_on_waiting(end, "its threads do not stop")
            before = now

    def _go_on_waiting(self, end: float, why: str) -> None:
        if self.is_dead():
            raise FreezeError(f"{self.incarnation.name}: the guest died before it could be frozen")
        if time.monotonic() > end:
            raise FreezeError(f"{self.incarnation.name}: {why}")

    def look(self) -> None:
        """Raise GuestRanError unless the guest is stopped and none of its threads has run since the freeze.

        Nothing is looked at once we killed it: the look was made just before the signal.
        """
        if not self.killed and (ran := self._ran()) is not None:
            raise ran

    def _ran(self) -> GuestRanError | None:
        name, self.seen = self.incarnation.name, None
        if self.is_dead():
            return GuestRanError(f"{name} is dead, by no act of ours: what it did last cannot be known", "dead")
        try:
            self.seen = evidence.threads_of(self._folder)
        except (OSError, ValueError, KeyError) as error:
            return GuestRanError(f"{name}: what its threads did cannot be read: {error}", "unseen")
        if not self.is_stopped():
            return GuestRanError(f"{name}: the guest is no longer stopped", "not-stopped")
        if self.frozen is None:
            return GuestRanError(f"{name} was not frozen by us: what it did meanwhile cannot be known", "unseen")
        if self.seen != self.frozen:
            return GuestRanError(f"{name} has run since it was frozen: another process woke it", "ran")
        return None

    def end(self) -> None:
        """The last look, and SIGKILL directly after it, whatever it showed: returns before the death.

        Raises GuestRanError once the signal is sent, where the look showed that the guest had run; OSError where it
        cannot be sent.
        """
        ran = None if self.killed else self._ran()
        self.killed = True  # first: after an interrupt here a death is known to be by our own signal, sent once more
        try:
            self._signal(signal.SIGKILL)
        except Exception:  # also one that came before the signal, such as no memory to ask for it
            self.killed = False
            raise
        if ran is not None:
            raise ran

    def await_death(self, deadline: float = DEATH_SECONDS) -> None:
        """Return once the pidfd says that it is dead; raises FreezeError after `deadline` seconds."""
        if not self._dies_within(deadline):
            raise FreezeError(f"{self.incarnation.name}: the guest did not die within {deadline:g} s")

    def kill(self, deadline: float = DEATH_SECONDS) -> None:
        """SIGKILL and wait for death; raises FreezeError where it cannot be sent, or does not end it in time."""
        try:
            self._signal(signal.SIGKILL)
        except OSError as error:
            raise FreezeError(f"{self.incarnation.name}: the guest cannot be killed: {error.strerror}") from error
        self.await_death(deadline)

    def thaw(self, condemned: CondemnedRecords) -> GuestRanError | None:
        """SIGCONT, after a look; gives what the look showed, where the guest had run already: nothing is lost by that.

        Raises CondemnedError where a record says that this incarnation may never run again.
        """
        if self.killed or condemned.holds(self.incarnation):
            raise CondemnedError(f"{self.incarnation.name} is condemned: its memory is no longer whole, it may not run")
        ran, self.frozen = self._ran(), None
        self._signal(signal.SIGCONT)
        return ran

    def children(self) -> list[int] | None:
        """Pids of living processes that it forked, which share its memory; None if the kernel has no such list."""
        try:
            return evidence.children_of(self._folder)
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Close the pidfd and the /proc folder; the process is not touched."""
        pidfd, self.pidfd = self.pidfd, -1  # first: no thread may signal the process that gets its number next
        if pidfd >= 0:
            os.close(pidfd)
        self._close_folder()

    def _close_folder(self) -> None:
        folder, self._folder = self._folder, -1
        if folder >= 0:
            os.close(folder)

    def _dies_within(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _signal(self, number: signal.Signals) -> None:
        if number is signal.SIGKILL and self.pidfd >= 0 and not self.is_dead():
            self.asked_to_die = True
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return  # already reaped: death is what its callers check for


_MINT = object()


class PunchPermit:
    """The only key to `Memfd.punch`; made by `CondemnedRecords.condemn` alone, and no use while the guest lives."""

    __slots__ = ("incarnation", "is_open")

    def __init__(self, incarnation: Incarnation, mint: object) -> None:
        if mint is not _MINT:
            raise PunchRefusedError("a punch permit comes from a condemned record only")
        self.incarnation = incarnation
        self.is_open = False

    def open(self, guest: GuestProcess) -> None:
        """From now on punching is allowed: the guest is dead. Raises PunchRefusedError while it lives."""
        if guest.incarnation != self.incarnation or not guest.is_dead():
            raise PunchRefusedError(f"{self.incarnation.name} is not known to be dead: nothing of it may be punched")
        self.is_open = True


@dataclass(frozen=True, slots=True)
class CondemnedRecord:
    """Who was condemned, for which build, as read back from disk; None where the record can no longer be read."""

    incarnation: Incarnation
    build: str | None


class CondemnedRecords:
    """The folder of condemned records of one node, one JSON file an incarnation.

    With `expected` there must be one, as a node ran here before: where it is gone, which guests it
    condemned is not known (`vanished`).
    """

    def __init__(self, folder: Path, *, expected: bool = False) -> None:
        self._folder = folder
        self.vanished = expected and not folder.is_dir()
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
        """True where this incarnation is condemned, or where the folder is gone, so that it is not known.

        Raises OSError for what cannot be looked at: that may not be taken for "not condemned".
        """
        try:
            os.stat(self._path(incarnation))
        except FileNotFoundError:
            return not self._folder.is_dir()
        return True

    def records(self) -> Iterator[CondemnedRecord]:
        """Every record that was not retired; a `.tmp` is a condemnation that never happened.

        One that cannot be read condemns by its name alone. Raises OSError where the folder cannot be listed: that may
        not be taken for "none is condemned".
        """
        for name in sorted(name for name in os.listdir(self._folder) if name.endswith(".json")):
            path = self._folder / name
            try:
                content = json.loads(path.read_bytes())
                build = content.pop("build")
                found = CondemnedRecord(Incarnation(**content), build)
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                named = _named(path)
                if named is None:
                    continue
                found = CondemnedRecord(named, None)
            yield found

    def retire(self, guest: GuestProcess) -> None:
        """Forget a record once the guest is dead; raises CondemnedError while it lives."""
        if not guest.is_dead():
            raise CondemnedError(f"{guest.incarnation.name} is still alive: its condemned record stays")
        self._path(guest.incarnation).unlink(missing_ok=True)

    def retire_gone(self, record: CondemnedRecord) -> None:
        """Forget a record whose process is dead (a zombie is) by pid and start time; CondemnedError while it lives."""
        incarnation = record.incarnation
        if lives(incarnation.pid, incarnation.start_time):
            raise CondemnedError(f"{incarnation.name} is still alive: its condemned record stays")
        self._path(incarnation).unlink(missing_ok=True)

    def _path(self, incarnation: Incarnation) -> Path:
        return self._folder / f"{incarnation.name}-{incarnation.pid}-{incarnation.start_time}.json"


def _named(path: Path) -> Incarnation | None:
    """The incarnation that a record names, from its file name; None if the file is no record."""
    parts = path.stem.rsplit("-", 2)
    if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        return None
    return Incarnation(parts[0], int(parts[1]), int(parts[2]), 0)
