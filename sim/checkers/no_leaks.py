"""`no_leaks`: after teardown no process, fd, mapping, cache file or cgroup of this run is left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sim.checkers.evidence import Evidence, violation
from sim.run_folder import processes_of


class NoLeaks:
    """Searches /proc for the run's id: in environments, open fds and mappings; and the run's folders."""

    name = "no_leaks"

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[dict[str, Any]] = []

    def observe(self, evidence: Evidence) -> None:
        """While the fleet lives it is there rightly."""

    def conclude(self, evidence: Evidence) -> None:
        self.checked = 1
        left = [f"process {pid} is still there" for pid in processes_of(evidence.run)]
        left += _held(evidence.run)
        left += [f"{folder} is still there" for folder in _folders(evidence) if folder.exists()]
        self.violations = [violation("*", reason) for reason in left]


def _folders(evidence: Evidence) -> Iterator[Path]:
    if not evidence.cache_kept:
        yield evidence.builds
    yield evidence.socket_dir
    yield from evidence.condemned.glob("*.json")
    name = f"snapdrill-{evidence.run}"
    for parent, folders, _ in os.walk("/sys/fs/cgroup"):  # which passes over what others remove meanwhile
        if name in folders:
            yield Path(parent, name)


def _held(run: str) -> list[str]:
    """Open fds and mappings of memory with this run's name, of every process that may be looked into."""
    found = []
    needle = f"snapdrill-{run}"
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            fds = os.listdir(f"/proc/{pid}/fd")
            with open(f"/proc/{pid}/maps", "rb") as file:
                maps = file.read()
        except OSError:  # somebody else's, or gone
            continue
        if needle.encode() in maps or any(needle in _target(f"/proc/{pid}/fd/{fd}") for fd in fds):
            found.append(f"process {pid} still holds memory of this run")
    return found


def _target(fd: str) -> str:
    try:
        return os.readlink(fd)
    except OSError:  # closed meanwhile: our own listing of /proc/self/fd always is
        return ""
