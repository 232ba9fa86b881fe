"""Who else holds a memfd for writing: what they write is in no dirty set."""

from __future__ import annotations

import math
import os
import threading
import time

from engine import linux, processes

_KEPT = 1.0  # seconds for which one look at all processes serves every pause, at least
_SHARE = 20  # and so many times the CPU time that it took: beside a thousand guests one takes half a second
_LONGEST = 10.0  # seconds between two looks at most, whatever they cost: a new holder must not stay unseen for minutes
_MEMFD = b"/memfd:"
_PATIENCE = 0.005  # seconds that a frozen guest waits for it: a busy process may hold a look up for long


class Holders:
    """Looks at every process that may be looked at, in a thread of its own, one look at a time. Thread-safe.

    Once a second at most, and for at most a twentieth of a core, unless one look takes half a second of CPU or more: a
    pause 10 s after the last look begins the next all the same.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0.0
        self._done = threading.Event()
        self._holders: dict[int, set[int]] = {}

    def look(self) -> None:
        """Begin a look, unless the last one still serves or is not done; it may take a while."""
        with self._lock:
            if time.monotonic() < self._next:
                return
            self._next = math.inf
            self._done.clear()
        try:
            threading.Thread(target=self._note, name="holders", daemon=True).start()
        except RuntimeError:  # no thread to be had: what was seen last is what is known
            self._next = time.monotonic() + _KEPT

    def _note(self) -> None:
        began, used = time.monotonic(), time.thread_time()
        try:
            self._holders = _look()
        finally:
            pause = min(_LONGEST, _SHARE * (time.thread_time() - used))
            self._next = max(began + _KEPT, time.monotonic() + pause)
            self._done.set()

    def of(self, inode: int, but: set[int]) -> set[int]:
        """Pids, other than these, with a writable fd or shared mapping of the memfd with this inode.

        By a look that is made now where that is done in time, else by the one before.
        """
        self.look()
        self._done.wait(_PATIENCE)
        return self._holders.get(inode, set()) - but


def _look() -> dict[int, set[int]]:
    """Every memfd's inode, and the processes that may write to it."""
    found: dict[int, set[int]] = {}
    for name in processes.with_memory():
        try:
            for inode in _mapped(name) | _opened(name):
                found.setdefault(inode, set()).add(int(name))
        except OSError:  # another user's, or gone
            continue
    return found


def _mapped(pid: str) -> set[int]:
    shared = linux.shared_mappings(pid)
    return {each.inode for each in shared if each.writable and each.name.startswith(_MEMFD)}


def _opened(pid: str) -> set[int]:
    found = set()
    folder = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for fd in os.listdir(folder):
            try:
                if os.readlink(fd, dir_fd=folder).startswith(_MEMFD.decode()) and _is_writable(pid, fd):
                    found.add(os.stat(fd, dir_fd=folder).st_ino)
            except OSError:  # closed meanwhile
                continue
    finally:
        os.close(folder)
    return found


def _is_writable(pid: str, fd: str) -> bool:
    info = os.open(f"/proc/{pid}/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        lines = os.read(info, 4096).splitlines()
    finally:
        os.close(info)
    flags = next(line for line in lines if line.startswith(b"flags:"))
    return int(flags.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
