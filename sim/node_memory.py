"""Node memory now, from the kernel: guests in their two pools, and caches; told to the ledger as it changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sim.events import MemorySampled

_INTERVAL = 0.05  # seconds between samples that are no new peak
_STEP = 1 << 20  # a new peak is told when it is this much higher


class NodeMemory:
    """Sums what is known of every guest and cache. Thread-safe: copiers update it."""

    def __init__(self, tell: Callable[[MemorySampled], None], planned: Callable[[], int]) -> None:
        self._tell = tell
        self._planned = planned
        self._guests: dict[str, int] = {}
        self._hugetlb: dict[str, int] = {}
        self._caches: dict[str, int] = {}
        self._page_cache: dict[str, int] = {}
        self._lock = threading.Lock()
        self._peaks = (0, 0)  # as last told: without what is page cache of finished builds, and with it
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
