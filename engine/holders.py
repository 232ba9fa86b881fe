"""Who else holds a memfd for writing: what they write is in no dirty set."""

from __future__ import annotations

import contextlib
import os
import threading
import time

from engine import linux

_KEPT = 1.0  # seconds for which one look at all processes serves every pause
_MEMFD = b"/memfd:"
_PATIENCE = 0.005  # seconds that a frozen guest waits for it: a busy process may hold a look up for long


class Holders:
    """Looks at every process that may be looked at, in a thread of its own, once a second at most. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = -_KEPT
        self._done = threading.Event()
        self._holders: dict[int, set[int]] = {}

    def look(self) -> None:
        """Begin a look, unless one was begun just now; it may take a while."""
        with self._lock:
            if time.monotonic() - self._begun < _KEPT:
                return
            self._begun = time.monotonic()
            self._done.clear()
        with contextlib.suppress(RuntimeError):  # no thread to be had: what was seen last is what is known
            threading.Thread(target=self._note, name="holders", daemon=True).start()

    def _note(self) -> None:
        try:
            self._holders = _look()
        finally:
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
    for name in filter(str.isdecimal, os.listdir("/proc")):
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
    with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as file:
        flags = next(line for line in file if line.startswith("flags:"))
    return int(flags.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
