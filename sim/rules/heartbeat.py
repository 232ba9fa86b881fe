"""A witness that the engine has no hand in: what a guest's own clock said last, read from its side memfd."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from sim.record import events
from sim.record.ledger import Entry

BEAT = 4  # bytes, at the end of the side memfd


class Heartbeats:
    """Holds the side memfd of every guest from its birth on: a dead guest's last beat is there all the same."""

    def __init__(self) -> None:
        self._fds: dict[str, int] = {}
        self._last: dict[str, int] = {}

    def take(self, entries: Iterable[Entry]) -> None:
        """Open the side memfd of each guest that these entries report as spawned, while it lives."""
        for entry in entries:
            born = entry.event
            if isinstance(born, events.GuestSpawned) and born.heartbeat and born.incarnation not in self._fds:
                try:
                    fd = os.open(f"/proc/{born.pid}/fd/{born.side_fd}", os.O_RDONLY | os.O_CLOEXEC)
                except OSError:  # it is gone already: there is no witness of it
                    continue
                self._fds[born.incarnation] = fd

    def beat(self, incarnation: str) -> int | None:
        """Its last beat, in microseconds of CLOCK_MONOTONIC modulo 2^32; None if no process holds its memory."""
        fd = self._fds.get(incarnation)
        if fd is None:
            return self._last.get(incarnation)
        return int.from_bytes(os.pread(fd, BEAT, os.fstat(fd).st_size - BEAT), "little")

    def close(self) -> None:
        """Give every fd back, once every guest is dead; what each beat last is kept."""
        for incarnation in list(self._fds):
            beat = self.beat(incarnation)
            if beat is not None:
                self._last[incarnation] = beat
            os.close(self._fds.pop(incarnation))


def beat_at_freeze(entries: Sequence[Entry]) -> dict[str, tuple[str, int]]:
    """Of each incarnation that is past its point of no return: the pause that froze it, and its beat at that freeze."""
    from engine.events import Condemned

    frozen: dict[str, tuple[str, str, int]] = {}
    found = {}
    for entry in entries:
        match entry.event:
            case events.GuestFrozen(incarnation, beat=beat) if entry.pause is not None and beat is not None:
                frozen[entry.pause] = (entry.pause, incarnation, beat)
            case Condemned() if entry.pause in frozen:
                pause, incarnation, beat = frozen[entry.pause]
                found[incarnation] = (pause, beat)
            case _:
                pass
    return found


def ran_after_its_freeze(entries: Sequence[Entry], heartbeats: Heartbeats) -> list[tuple[str, str, int]]:
    """(incarnation, pause, microseconds) of every condemned guest whose clock went on after the freeze."""
    found = []
    for incarnation, (pause, frozen) in beat_at_freeze(entries).items():
        now = heartbeats.beat(incarnation)
        if now is not None and now != frozen:
            found.append((incarnation, pause, now - frozen & 0xFFFFFFFF))
    return found
