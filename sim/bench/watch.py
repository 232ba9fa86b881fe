"""How much CPU other processes took while something was measured: a figure from such a time is worth nothing."""

from __future__ import annotations

import os
import resource
import time
from types import TracebackType
from typing import Self

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
    """Around a measurement; `others` is then the CPU seconds that were not ours.

    `guests` is what children that die inside had used before: it is no work of this measurement.
    """

    def __init__(self, guests: float = 0.0) -> None:
        self._earlier = guests
        self.others = 0.0
        self.noisy = False

    def __enter__(self) -> Self:
        self._busy, self._own, self._begun = busy_seconds(), own_seconds(), time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        wall = time.perf_counter() - self._begun
        own = own_seconds() - self._own - self._earlier
        self.others = max(0.0, busy_seconds() - self._busy - own)
        self.noisy = is_noisy(self.others, wall, len(os.sched_getaffinity(0)))


def is_noisy(others: float, wall: float, cpus: int) -> bool:
    """True where others took more than a few percent of the CPUs; seconds."""
    return others > TOLERATED * cpus * wall + _GRANULARITY
