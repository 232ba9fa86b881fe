"""A memory cgroup for one run's node, zygote and guests, where this host lets one be made (v1 or v2)."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
OVERHEAD = 512 << 20
"""Bytes beyond the node's budget for the processes themselves: interpreter, libraries, page tables."""


class MemoryCgroup:
    """A cgroup that this process may add processes to. Bytes."""

    def __init__(self, folder: Path, limit_file: str, peak_file: str) -> None:
        self.folder = folder
        self._usage_file = "memory.current" if limit_file == "memory.max" else "memory.usage_in_bytes"
        self._peak_file = peak_file

    @classmethod
    def make(cls, run: str, limit: int) -> MemoryCgroup | None:
        """A child of this process's own cgroup with a limit; None where the host does not allow it."""
        for parent, limit_file, peak_file in hierarchies():
            folder = parent / f"snapdrill-{run}"
            made = cls(folder, limit_file, peak_file)
            try:
                folder.mkdir()
                (folder / limit_file).write_text(str(limit))
                (folder / "cgroup.procs").read_text()
            except OSError:
                made.remove()
                continue
            return made
        return None

    def peak(self) -> int | None:
        """The largest use so far; None where the kernel does not keep it."""
        return self._number(self._peak_file)

    def usage(self) -> int | None:
        """What is charged now; None where it cannot be read."""
        return self._number(self._usage_file)

    def _number(self, name: str) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            return int((self.folder / name).read_text())
        return None

    def remove(self, deadline: float = 5.0) -> bool:
        """Remove it once its last process is gone; False where it stays."""
        end = time.monotonic() + deadline
        while self.folder.is_dir():
            try:
                self.folder.rmdir()
            except OSError:
                if time.monotonic() > end:
                    return False
                time.sleep(0.01)
        return True


def join(folder: str) -> None:
    """Move this process into a cgroup: what it and its children touch first is charged there."""
    (Path(folder) / "cgroup.procs").write_text(str(os.getpid()))


def die_first(by: int) -> None:
    """Where memory runs out, have the kernel choose this process before those it serves (proc_pid_oom_score_adj(5)).

    Raising is allowed to any process; without /proc nothing changes.
    """
    with contextlib.suppress(OSError, ValueError):
        fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)  # a guest begins with this: pathlib is slow
        try:
            os.pwrite(fd, b"%d" % min(1000, int(os.pread(fd, 16, 0)) + by), 0)
        finally:
            os.close(fd)


def hierarchies() -> list[tuple[Path, str, str]]:
    """(own folder, limit file, peak file) of each memory hierarchy this process is in, v2 first."""
    found: list[tuple[Path, str, str]] = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers and (_ROOT / "cgroup.controllers").exists():
            found.insert(0, (_ROOT / path.lstrip("/"), "memory.max", "memory.peak"))
        elif "memory" in controllers.split(","):
            own = _ROOT / "memory" / path.lstrip("/")
            found.append((own, "memory.limit_in_bytes", "memory.max_usage_in_bytes"))
    return found
