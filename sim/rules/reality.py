"""A run's processes, memory and files, looked at through /proc and the build folders. Nothing here asks the engine."""

from __future__ import annotations

import array
import os
import signal
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError, host_error
from engine.incarnation import start_time_of, state_of
from sim.record import events
from sim.record.ledger import EVENTS_FILE, Entry, Follower
from sim.record.names import sandbox_of
from sim.record.oracle import PAGE, ZEROED, Mismatch, generations, key_of, mismatches
from sim.rules.finding import Finding
from sim.rules.heartbeat import Heartbeats

if TYPE_CHECKING:  # loaded where it is used: a stored ledger is judged on machines without Linux, too
    from engine.memfd import Memfd
    from engine.snapshot import Build, Header

_PIECE = 2 << 20
_SHORT = 64 << 10  # bytes of a hole that are read faster than walked around
_GENERATION = 4
_ABOUT, _EXITING = ("stat", "status"), 0x4  # of /proc/PID; PF_EXITING of Linux


def is_doomed(stat: str, status: str) -> bool:
    """What these two files of /proc/PID say: it exits (PF_EXITING), or SIGKILL is pending."""
    if int(stat[stat.rindex(")") + 2 :].split()[6]) & _EXITING:
        return True
    pending = (line.split()[1] for line in status.splitlines() if line.startswith(("SigPnd:", "ShdPnd:")))
    return any(int(each, 16) >> signal.SIGKILL - 1 & 1 for each in pending)


@dataclass(frozen=True, slots=True)
class SpawnedGuest:
    """An incarnation as the ledger has it, to be looked for in /proc."""

    sandbox: str
    born: events.GuestSpawned

    def state(self) -> str | None:
        """The process's state letter; None if it is dead or its pid belongs to another process."""
        if start_time_of(self.born.pid) != self.born.start_time:
            return None
        state = state_of(self.born.pid)
        return None if state in {"Z", "X", None} else state

    def is_running(self) -> bool:
        """True where it lives and is not stopped."""
        return self.state() not in {None, "T", "t"}

    def is_dying(self) -> bool:
        """True where SIGKILL waits for it, or it exits: it runs no instruction of its own, however long that takes.

        Raises OSError where this host does not let it be looked at.
        """
        try:
            stat, status = (Path(f"/proc/{self.born.pid}/{name}").read_text("utf-8", "replace") for name in _ABOUT)
        except (FileNotFoundError, ProcessLookupError):
            return True
        return is_doomed(stat, status)

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


@dataclass(slots=True)
class Seen:
    """What one rule has seen so far, and the names of what it need not look at again."""

    finding: Finding = field(default_factory=Finding)
    done: set[str] = field(default_factory=set)

    def refused_by_host(self, sandbox: str, error: BaseException, **details: Any) -> bool:
        """True where a look failed by an error of this host, such as no file descriptor left: that says nothing of what
        was looked for, and is noted once as missing evidence."""
        if host_error(error) is None:
            return False
        reason = f"missing evidence: this host did not let it be looked at: {error}"
        if not any(all(each.get(key) == value for key, value in details.items()) for each in self.finding.missing):
            self.finding.lacks(sandbox, reason, **details)
        return True


@dataclass
class Reality:
    """The fleet of one run, for as long as there is one. `builds` is the folder of builds; `seen` is kept by rule."""

    run: str
    seed: int
    run_dir: Path
    builds: Path
    socket_dir: Path
    cache_kept: bool = False
    torn_down: bool = False
    heartbeats: Heartbeats | None = None
    spill: Path | None = None
    seen: defaultdict[str, Seen] = field(default_factory=lambda: defaultdict(Seen))

    @property
    def condemned(self) -> Path:
        """The folder of condemned records."""
        return self.run_dir / "condemned"

    def guests(self, born: Iterable[events.GuestSpawned]) -> dict[str, SpawnedGuest]:
        """By incarnation."""
        return {each.incarnation: SpawnedGuest(sandbox_of(each.incarnation), each) for each in born}

    def guest(self, born: events.GuestSpawned | None) -> SpawnedGuest | None:
        """One alone; None where nothing says that it was born."""
        return None if born is None else SpawnedGuest(sandbox_of(born.incarnation), born)

    def entries_by_now(self) -> list[Entry]:
        """The ledger read again: a copy goes on while a rule looks."""
        return list(Follower(self.run_dir / EVENTS_FILE, is_own=True).new_entries())

    def processes(self) -> list[int]:
        """Pids of every process that carries the run's id, but this one."""
        from sim.record.leftovers import processes_of

        return processes_of(self.run)

    def open_build(self, name: str) -> Build:
        """A build by its final name, to be closed; raises EngineError where it is not whole."""
        from engine.snapshot import Build

        return Build.open(self.builds, name)

    def named_builds(self) -> set[str]:
        """The builds that have their final name."""
        from engine.cache import PARTIAL

        names = os.listdir(self.builds) if self.builds.is_dir() else []
        return {each for each in names if not each.endswith(PARTIAL)}

    def caches_of(self, pause: str) -> list[str]:
        """What is there of a pause's build, finished or not."""
        from engine.cache import PARTIAL

        found = [name for name in (f"{pause}{PARTIAL}", pause) if (self.builds / name).exists()]
        spilled = self.spill / f"{pause}.spill" if self.spill is not None else None
        return found + ([spilled.name] if spilled is not None and spilled.exists() else [])

    def filled(self, header: Header) -> Memfd:
        """A memfd of the rules' own with what the header says; raises EngineError, OSError."""
        from engine.memfd import Memfd
        from engine.resume import fill

        fd = os.memfd_create(f"snapdrill-{self.run}-check", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, header.mapping.size)
        memfd = Memfd.adopt(fd, header.mapping.size)
        try:
            fill(memfd, self.builds, header)
        except (EngineError, OSError):
            memfd.close()
            raise
        return memfd

    def mismatches(self, sandbox: str, pages: array.array[int], fd: int) -> Iterator[Mismatch]:
        """Pages of the memory behind `fd` that are not what their generations say."""
        return mismatches(key_of(self.seed, sandbox), pages, sparse(fd, len(pages) * PAGE))


def pieces(fd: int, size: int) -> Iterator[bytes]:
    """A file in order, holes as zeros; pread does not allocate what it reads."""
    for offset in range(0, size, _PIECE):
        yield os.pread(fd, min(_PIECE, size - offset), offset)


def sparse(fd: int, size: int) -> Iterator[bytes | int]:
    """The same, with a long hole as the number of its bytes. A file that is shorter ends earlier."""
    size, offset = min(size, os.fstat(fd).st_size), 0
    for start, end in _without_short_holes(data_ranges(fd, size)):
        if start > offset:
            yield start - offset
        for at in range(start, end, _PIECE):
            yield os.pread(fd, min(_PIECE, end - at), at)
        offset = end
    if size > offset:
        yield size - offset


def data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where the kernel holds data, whole pages (SEEK_DATA, which does not allocate what it walks); all, on hugetlb."""
    offset = 0
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole is left
            return
        offset = -(-os.lseek(fd, start, os.SEEK_HOLE) // PAGE) * PAGE
        yield start // PAGE * PAGE, min(offset, size)


def _without_short_holes(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    whole: tuple[int, int] | None = None
    for start, end in ranges:
        if whole is not None and start - whole[1] <= _SHORT:
            whole = whole[0], end
            continue
        if whole is not None:
            yield whole
        whole = start, end
    if whole is not None:
        yield whole


def zeroed_pages(pages: array.array[int], fd: int) -> NDArray[np.intp]:
    """Pages that were written with content and hold nothing now: what a punch leaves."""
    written = np.asarray(pages, dtype=np.uint32)
    expected = (written != 0) & (written < ZEROED)
    if os.fstatvfs(fd).f_bsize > PAGE:  # hugetlb always says all data
        return np.flatnonzero(expected & ~_pages_with_content(fd, len(pages)))
    return np.flatnonzero(expected & ~_resident_pages(fd, len(pages)))


def _resident_pages(fd: int, count: int) -> NDArray[np.bool_]:
    resident = np.zeros(count, dtype=bool)
    for start, end in data_ranges(fd, count * PAGE):
        resident[start // PAGE : end // PAGE] = True
    return resident


def _pages_with_content(fd: int, count: int) -> NDArray[np.bool_]:
    found = [np.frombuffer(piece, np.uint8).reshape(-1, PAGE).any(axis=1) for piece in pieces(fd, count * PAGE)]
    return np.concatenate(found)


def page_details(mismatch: Mismatch) -> dict[str, Any]:
    """What a violation says of one page."""
    return {"page": mismatch.page, "expected": mismatch.expected, "found": mismatch.found}
