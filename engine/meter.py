"""What the kernel says about memory: the peak of source and destination together during one pause."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from engine.cache import Cache
from engine.memfd import Memfd


@dataclass(frozen=True, slots=True)
class Sample:
    """Resident bytes of the memfd and of the cache at one moment."""

    source: int
    cache: int


class PeakMeter:
    """Keeps the largest sum of memfd and cache residency, sampled after each write and before each punch."""

    def __init__(self, memfd: Memfd, cache: Cache) -> None:
        self._memfd = memfd
        self._cache = cache
        self._lock = threading.Lock()
        self.at_freeze = memfd.resident_bytes()
        self.peak = self.at_freeze

    def sample(self, unpublished: int = 0) -> Sample:
        """Measure now; `unpublished` bytes were written but are not yet counted by the cache (disk only)."""
        now = Sample(self._memfd.resident_bytes(), self._cache.resident_bytes())
        extra = 0 if self._cache.on_tmpfs else unpublished
        with self._lock:
            self.peak = max(self.peak, now.source + now.cache + extra)
        return now

    def freed(self) -> int:
        """Bytes of the memfd that are gone since the freeze (st_blocks)."""
        return max(0, self.at_freeze - self._memfd.resident_bytes())

    @property
    def peak_over(self) -> int:
        """Peak minus what the memfd held at the freeze, in bytes."""
        return self.peak - self.at_freeze

    @property
    def peak_ratio(self) -> float | None:
        """Peak over what the memfd held at the freeze; None where it held nothing."""
        return self.peak / self.at_freeze if self.at_freeze else None
