"""What a bench needs of this host: places to copy to, memory, an end between measurements; and what it lacks."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from engine import linux
from engine.errors import UserError
from sim.bench import candidates, screen
from sim.bench.layouts import has_parent
from sim.bench.rows import DISK, TMPFS, Row
from sim.probe import host
from sim.units import HUGE_PAGE, format_size
from sim.verdict import ExitCode

SHM = "/dev/shm"  # noqa: S108 - asked for because it is tmpfs
_SLACK = 256 << 20


@contextlib.contextmanager
def destinations(cache_dir: Path | None) -> Iterator[dict[str, Path]]:
    """A folder on each kind of destination."""
    disk = cache_dir or Path("runs" if Path("runs").is_dir() else ".")
    made: dict[str, Path] = {}
    try:
        for dest, parent in ((DISK, disk), (TMPFS, Path(SHM))):
            with contextlib.suppress(PermissionError, FileNotFoundError):
                made[dest] = Path(tempfile.mkdtemp(prefix=f"snapdrill-bench-{os.getpid()}-", dir=parent))
        yield made
    finally:
        for folder in made.values():
            shutil.rmtree(folder, ignore_errors=True)


def reason_to_leave_out(row: Row, size: int, folders: dict[str, Path], no_huge_pages: str | None) -> str | None:
    """Why this host cannot measure the row; None where it can."""
    case = row.case
    if any(need.take is screen.fleet_screen for need in row.needs) and (reason := screen.reason_to_leave_out()):
        return reason
    if case.page_size == HUGE_PAGE and no_huge_pages:
        return no_huge_pages
    if case.page_size == HUGE_PAGE and size % HUGE_PAGE:
        return f"{format_size(size)} is not a multiple of 2MiB"
    if case.dest and (reason := _wrong_place(case.dest, size, folders)):
        return reason
    scans = any(need.take is candidates.dirty_scan for need in row.needs)
    if (scans or has_parent(case.layout or "")) and not _can_scan():
        return "the kernel does not tell what a guest wrote (write-protect scan)"
    return None


def _wrong_place(dest: str, size: int, folders: dict[str, Path]) -> str | None:
    folder = folders.get(dest)
    if folder is None:
        return f"no folder can be made for {dest}"
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        is_tmpfs = linux.filesystem_magic(fd) == linux.TMPFS_MAGIC
        status = os.fstatvfs(fd)
    finally:
        os.close(fd)
    if is_tmpfs != (dest == TMPFS):
        return f"{folder.parent} is {'a' if is_tmpfs else 'no'} tmpfs: give --cache-dir a folder on a disk"
    free = status.f_bavail * status.f_frsize
    return f"{folder.parent} has {free >> 20} MiB free" if status.f_blocks and free < size + _SLACK else None


def _can_scan() -> bool:
    return bool(host()["write_protect_scan"])


def require_memory(size: int, rows: Sequence[Row]) -> None:
    """Raises UserError unless source and destination fit together, beside a pool of 2 MiB pages where that is used."""
    huge = any(row.case.page_size == HUGE_PAGE for row in rows)
    needed = (3 if huge else 2) * size + _SLACK
    available: int = host()["memory_available"]
    if available < needed:
        raise UserError(
            f"--size {format_size(size)} needs {needed >> 20} MiB of memory, {available >> 20} MiB can be had: "
            "give a smaller --size"
        )


@contextlib.contextmanager
def interrupts_between() -> Iterator[Callable[[], None]]:
    """Signals that end a bench are remembered; the yielded function raises for one, where nothing is half done."""
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda caught_one, _frame: caught.append(caught_one)) for number in numbers}

    def check() -> None:
        if caught:
            if caught[0] == signal.SIGINT:
                raise KeyboardInterrupt
            sys.exit(ExitCode.TERMINATED)

    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
