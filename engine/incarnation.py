"""One guest process of a sandbox, as the kernel knows it: identity, freezing, thawing, death."""

from __future__ import annotations

import os
import select
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import CondemnedError, FreezeError

if TYPE_CHECKING:
    from engine.permit import CondemnedRecords


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
