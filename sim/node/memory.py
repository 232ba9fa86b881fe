"""Its memory: measured, and granted."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from engine.linux import TMPFS_MAGIC, filesystem_magic
from engine.ranges import SPAN
from engine.snapshot import Header
from sim.record.events import MemorySampled

_INTERVAL = 0.05  # seconds between samples that are no new peak
_STEP = 1 << 20  # a new peak is reported when it is this much higher


class NodeMemory:
    """Sums what is known of every guest and cache. Thread-safe: copiers update it."""

    def __init__(self, tell: Callable[[MemorySampled], object], planned: Callable[[], int]) -> None:
        self._tell = tell
        self._planned = planned
        self._guests: dict[str, int] = {}
        self._hugetlb: dict[str, int] = {}
        self._caches: dict[str, int] = {}
        self._page_cache: dict[str, int] = {}
        self._lock = threading.Lock()
        self._peaks = (0, 0)  # as last reported: without what is page cache of finished builds, and with it
        self._last = (0, 0, 0, 0)
        self._told_at = 0.0

    def set(
        self, *, guest: tuple[str, int] | None = None, cache: tuple[str, int] | None = None, huge: bool = False
    ) -> None:
        """New resident bytes of an incarnation's memory (`huge`: 2 MiB pages) or of a build's cache; 0 forgets it."""
        with self._lock:
            for table, change in ((self._hugetlb if huge else self._guests, guest), (self._caches, cache)):
                if change is not None:
                    table[change[0]] = change[1]
            self._maybe_tell()

    def finished(self, build: str) -> None:
        """A build on disk is finished: what is cached of it is page cache, which the kernel may take back."""
        with self._lock:
            self._page_cache[build] = self._caches.pop(build, 0)
            self._maybe_tell()

    def tell_now(self) -> None:
        """Write a sample whatever the interval, if anything changed."""
        with self._lock:
            self._maybe_tell(force=True)

    def _maybe_tell(self, *, force: bool = False) -> None:
        guests, caches = sum(self._guests.values()), sum(self._caches.values())
        hugetlb, page_cache = sum(self._hugetlb.values()), sum(self._page_cache.values())
        totals = (guests + caches + hugetlb, guests + caches + hugetlb + page_cache)
        sums, now = (guests, caches, hugetlb, page_cache), time.monotonic()
        is_peak = any(total >= peak + _STEP for total, peak in zip(totals, self._peaks, strict=True))
        if sums == self._last or not (force or is_peak or now - self._told_at > _INTERVAL):
            return
        self._peaks = (max(totals[0], self._peaks[0]), max(totals[1], self._peaks[1]))
        self._last, self._told_at = sums, now
        self._tell(MemorySampled(guests, caches, self._planned(), hugetlb, page_cache))


PUNCHED_PEAK = 8 << 20
"""Bytes that a punching pause may need beyond its guest: two chunks in flight, with room."""


def most_copier_bytes(memory: int, page_size: int, block_size: int) -> int:
    """Bytes that the copying threads of one pause take for themselves at most: each a span, as read and packed."""
    span = max(SPAN, page_size, block_size)
    workers = 1 if memory <= 2 * span else 2  # the first chunk is copied alone
    return workers * 2 * min(span, memory)


def held_bytes(header: Header, *, cache: bool, spill: bool) -> int:
    """Bytes of memory that a finished build takes, where its `cache`, its `spill` are on tmpfs."""
    spilled = min(header.length, sum(header.chunk_lengths[index] for index in header.spilled))
    return (header.length - spilled if cache else 0) + (spilled if spill else 0)


class OverBudgetError(Exception):
    """A request that could not fit even on an otherwise idle node; says how much it would need."""


class Budget:
    """Grants bytes up to `total`; a request waits until what went before it was given back.

    Of one node: `in_flight` counts the pauses that hold some of it and give it back by themselves.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.granted = 0
        self.in_flight = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    def has_room(self, size: int) -> bool:
        """True where `size` bytes are free now."""
        return not self._queue and self.granted + size <= self.total

    async def take(self, size: int, *, can_wait: bool) -> None:
        """Wait for `size` bytes; OverBudgetError where they exceed the budget and nothing that can end holds any."""
        if self.has_room(size):
            self.granted += size
            return
        if not can_wait:
            raise self._over(size)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((size, turn))
        await turn

    def hold(self, size: int) -> None:
        """Count bytes that are there already, without asking."""
        self.granted += size

    def give_back(self, size: int) -> None:
        """Return granted bytes and admit the waiters that fit now, in order."""
        self.granted -= size
        while self._queue and self.granted + self._queue[0][0] <= self.total:
            size, turn = self._queue.popleft()
            if not turn.done():
                self.granted += size
                turn.set_result(None)

    def refuse_waiting(self) -> None:
        """Nothing that can end holds any more: who still waits would wait for ever, and gets OverBudgetError."""
        while self._queue:
            size, turn = self._queue.popleft()
            if not turn.done():
                turn.set_exception(self._over(size))

    def _over(self, size: int) -> OverBudgetError:
        over = self.granted + size - self.total
        return OverBudgetError(f"it needs {size} bytes more, {over} over the node's budget of {self.total}")


def budgets_of(total: int, nodes: Mapping[str, int]) -> dict[str, Budget]:
    """That of the machine, under no name, and those of the simulated nodes on it."""
    return {name: Budget(size) for name, size in ({"": total} | {**nodes}).items()}


def on_tmpfs(folder: Path) -> bool:
    """True where what is written below `folder` stays in memory."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return filesystem_magic(fd) == TMPFS_MAGIC
    finally:
        os.close(fd)
