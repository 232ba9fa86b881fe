"""A quiet host: its pages, the folders that are copied to, its signals, and who else uses its CPUs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.errors import errno_name
from sim.files.units import HUGE_PAGE
from sim.record.verdict import ExitCode
from sim.run import private_tmpfs
from sim.run.build_folders import SHM

TMPFS, DISK, HUGE_TMPFS = "tmpfs", "disk", "huge-tmpfs"
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")


@contextlib.contextmanager
def pool_of(size: int, pool: Path = POOL) -> Iterator[str | None]:
    """Have `size` bytes of free 2 MiB pages inside; yields None, or why there are not so many.

    Another process that changes the pool under the same lock (flock(2) on nr_hugepages) waits meanwhile.
    """
    try:
        file = (pool / "nr_hugepages").open(encoding="ascii")
    except OSError as error:
        yield f"no pool of 2 MiB pages: {errno_name(error)}"
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        total, free, wanted = _read(pool, "nr_hugepages"), _read(pool, "free_hugepages"), -(-size // HUGE_PAGE)
        if free >= wanted:
            yield None
            return
        try:
            yield _raise(pool, total + wanted - free, wanted)
        finally:
            with contextlib.suppress(OSError):  # it was never raised
                (pool / "nr_hugepages").write_text(str(total))


def _raise(pool: Path, total: int, wanted: int) -> str | None:
    try:
        (pool / "nr_hugepages").write_text(str(total))
    except OSError as error:
        return f"{wanted} pages of 2 MiB are not free, and the pool cannot be raised: {errno_name(error)}"
    free = _read(pool, "free_hugepages")
    return None if free >= wanted else f"the kernel found {free} of {wanted} pages of 2 MiB"


def _read(pool: Path, name: str) -> int:
    return int((pool / name).read_text())


TOLERATED = 0.05
"""Share of all CPUs that others may take; with 20 ms on top, because /proc/stat counts in 10 ms."""
_GRANULARITY = 0.02


def busy_seconds() -> float:
    """CPU seconds that processes, interrupts and the hypervisor took since boot (/proc/stat)."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _iowait, irq, softirq, steal = (int(each) for each in file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """CPU seconds of this process and of its children that were waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def cpu_seconds_of(pid: int) -> float:
    """CPU seconds of a living process (the kernel's per-process clock, CPUCLOCK_SCHED)."""
    return time.clock_gettime((~pid << 3) | 2)


class Watch:
    """Around a measurement: `own` and `others` are then CPU seconds, `share` what others took of all CPUs, 0 to 1.

    `guests` is what children that die inside had used before: it is no work of this measurement. What they die of is.
    """

    def __init__(self, guests: float = 0.0) -> None:
        self._earlier = guests
        self.own = 0.0
        self.others = 0.0
        self.share = 0.0
        self.noisy = False

    def __enter__(self) -> Self:
        self._busy, self._own, self._begun = busy_seconds(), own_seconds(), time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        wall = time.perf_counter() - self._begun
        cpus = len(os.sched_getaffinity(0))
        self.own = own_seconds() - self._own - self._earlier
        self.others = max(0.0, busy_seconds() - self._busy - self.own)
        self.share = min(1.0, self.others / (cpus * wall)) if wall > 0 else 0.0
        self.noisy = is_noisy(self.others, wall, cpus)


def is_noisy(others: float, wall: float, cpus: int) -> bool:
    """True where others took more than a few percent of the CPUs; seconds."""
    return others > TOLERATED * cpus * wall + _GRANULARITY


@contextlib.contextmanager
def destinations(cache_dir: Path | None) -> Iterator[dict[str, Path]]:
    """A folder on each kind of destination."""
    parents = {DISK: cache_dir or Path("runs" if Path("runs").is_dir() else "."), TMPFS: SHM}
    huge: int | None = None
    with contextlib.suppress(OSError):
        huge = private_tmpfs.open_huge()
        parents[HUGE_TMPFS] = Path(f"/proc/self/fd/{huge}")
    made: dict[str, Path] = {}
    try:
        for dest, parent in parents.items():
            with contextlib.suppress(PermissionError, FileNotFoundError):
                made[dest] = Path(tempfile.mkdtemp(prefix=f"snapdrill-bench-{os.getpid()}-", dir=parent))
        yield made
    finally:
        for folder in made.values():
            shutil.rmtree(folder, ignore_errors=True)
        if huge is not None:
            os.close(huge)


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
