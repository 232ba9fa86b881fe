"""What checkers look at: the ledger, and reality through /proc and the build folders. Nothing here asks the engine."""

from __future__ import annotations

import array
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.incarnation import start_time_of, state_of
from sim import events
from sim.ledger import EVENTS_FILE, Entry, Follower
from sim.oracle import PAGE, ZEROED, Mismatch, generations, key_of, mismatches
from sim.view import View

_PIECE = 2 << 20
_GENERATION = 4


@dataclass(frozen=True, slots=True)
class SpawnedGuest:
    """An incarnation as the ledger tells of it, to be looked for in /proc."""

    sandbox: str
    born: events.GuestSpawned

    def state(self) -> str | None:
        """The process's state letter; None where it is dead or its pid is somebody else's."""
        if start_time_of(self.born.pid) != self.born.start_time:
            return None
        state = state_of(self.born.pid)
        return None if state in {"Z", "X", None} else state

    def is_running(self) -> bool:
        """True where it lives and is not stopped."""
        return self.state() not in {None, "T", "t"}

    def open_memory(self) -> int:
        """A read-only fd of its memory, through /proc; raises OSError where the process is gone."""
        return self._open(self.born.memfd_fd)

    def generations(self) -> array.array[int]:
        """The oracle's generations, from the guest's side memfd; raises OSError where the process is gone."""
        fd = self._open(self.born.side_fd)
        try:
            pages = os.fstat(fd).st_size // (_GENERATION + 1)
            return generations(os.pread(fd, pages * _GENERATION, 0))
        finally:
            os.close(fd)

    def _open(self, fd: int) -> int:
        return os.open(f"/proc/{self.born.pid}/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One run at one moment. `builds` is the folder of builds, `condemned` that of the records."""

    run: str
    seed: int
    run_dir: Path
    builds: Path
    socket_dir: Path
    entries: Sequence[Entry]
    view: View
    cache_kept: bool = False

    @property
    def condemned(self) -> Path:
        """The folder of condemned records."""
        return self.run_dir / "condemned"

    def guests(self) -> list[SpawnedGuest]:
        """Every incarnation there ever was."""
        return [
            SpawnedGuest(each.sandbox, each.event)
            for each in self.entries
            if isinstance(each.event, events.GuestSpawned) and each.sandbox is not None
        ]

    def of_pause(self, pause: str) -> Iterator[Entry]:
        """The entries of one pause, in order."""
        return (each for each in self.entries if each.pause == pause)

    def damaged(self) -> set[str]:
        """Builds in which an injected fault flipped a byte: they must be refused, by name, when they are read."""
        return _damaged(self.entries)

    def damaged_by_now(self) -> set[str]:
        """The same by the ledger as it has become: copies go on while a checker looks, and tell of a fault first."""
        return _damaged(Follower(self.run_dir / EVENTS_FILE).new_entries())

    def mismatches(self, sandbox: str, pages: array.array[int], fd: int) -> Iterator[Mismatch]:
        """Pages of the memory behind `fd` that are not what their generations say."""
        return mismatches(key_of(self.seed, sandbox), pages, pieces(fd, len(pages) * PAGE))


def _damaged(entries: Iterable[Entry]) -> set[str]:
    return {
        each.pause
        for each in entries
        if each.pause is not None and isinstance(each.event, events.FaultFired) and each.event.error == "corrupt"
    }


def pieces(fd: int, size: int) -> Iterator[bytes]:
    """A file in order, holes as zeros; pread does not allocate what it reads."""
    for offset in range(0, size, _PIECE):
        yield os.pread(fd, min(_PIECE, size - offset), offset)


def zeroed_pages(pages: array.array[int], fd: int) -> NDArray[np.intp]:
    """Pages that were written with content and hold nothing now: what a punch leaves."""
    written = np.asarray(pages, dtype=np.uint32)
    expected = (written != 0) & (written < ZEROED)
    if os.fstatvfs(fd).f_bsize > PAGE:  # hugetlb always says all data
        return np.flatnonzero(expected & ~_pages_with_content(fd, len(pages)))
    return np.flatnonzero(expected & ~_resident_pages(fd, len(pages)))


def _resident_pages(fd: int, count: int) -> NDArray[np.bool_]:
    """By SEEK_DATA, which does not allocate what it walks."""
    resident = np.zeros(count, dtype=bool)
    offset, size = 0, count * PAGE
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole is left
            break
        offset = os.lseek(fd, start, os.SEEK_HOLE)
        resident[start // PAGE : -(-offset // PAGE)] = True
    return resident


def _pages_with_content(fd: int, count: int) -> NDArray[np.bool_]:
    found = [np.frombuffer(piece, np.uint8).reshape(-1, PAGE).any(axis=1) for piece in pieces(fd, count * PAGE)]
    return np.concatenate(found)


def violation(sandbox: str, reason: str, **details: Any) -> dict[str, Any]:
    """One violation: whose, why, and what else is known (incarnation, pause, page, expected, found)."""
    return {"sandbox": sandbox, "reason": reason, **{k: v for k, v in details.items() if v is not None}}


def page_violation(sandbox: str, reason: str, mismatch: Mismatch, **details: Any) -> dict[str, Any]:
    """A violation that one page shows."""
    return violation(sandbox, reason, page=mismatch.page, expected=mismatch.expected, found=mismatch.found, **details)
