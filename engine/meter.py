"""What the kernel says about memory: the peak of source and destination together during one pause."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass

from engine.cache import Cache
from engine.memfd import Memfd, ProcessMemory

_READINGS = 8


@dataclass(frozen=True, slots=True)
class MeterSample:
    """Resident bytes of the guest's memory (None without a memfd) and of the cache at one moment."""

    source: int | None
    cache: int


class PeakMeter:
    """Keeps the largest sum of memfd and cache residency, sampled after each chunk's write and before its punch."""

    def __init__(self, memory: Memfd | ProcessMemory, cache: Cache) -> None:
        self._memory = memory
        self._cache = cache
        self._lock = threading.Lock()
        self.at_freeze = memory.resident_bytes()
        self.peak = self.at_freeze or 0
        self._last = MeterSample(self.at_freeze, 0)

    def sample(self) -> MeterSample:
        """Measure now: after a chunk was written, before it is punched. What cannot be measured is as it was last."""
        with contextlib.suppress(OSError):  # a figure that lacks may not cost the memory
            self._last = self._measure()
        now = self._last
        with self._lock:
            self.peak = max(self.peak, (now.source or 0) + now.cache)
        return now

    def _measure(self) -> MeterSample:
        """Both at one moment: the other worker may punch and write between two readings, so read until it did not."""
        source = self._memory.resident_bytes()
        for _ in range(_READINGS):
            cache = self._cache.resident_bytes()
            after = self._memory.resident_bytes()
            if after == source:
                break
            source = after
        return MeterSample(source, cache)

    def freed(self) -> int:
        """Bytes of the memfd that are gone since the freeze (st_blocks); 0 without one, or where it cannot be asked."""
        with contextlib.suppress(OSError):
            return max(0, (self.at_freeze or 0) - (self._memory.resident_bytes() or 0))
        return 0

    @property
    def peak_over(self) -> int | None:
        """Peak minus what the memfd held at the freeze, in bytes; None without a memfd."""
        return None if self.at_freeze is None else self.peak - self.at_freeze

    @property
    def peak_ratio(self) -> float | None:
        """Peak over what the memfd held at the freeze; None where it held nothing, or there is none."""
        return self.peak / self.at_freeze if self.at_freeze else None


class CpuClock:
    """CPU seconds of the threads that carry a pause, one after the other; each calls `begin`, and the last reads."""

    def __init__(self) -> None:
        self._before = 0.0
        self._began = time.thread_time()

    def begin(self) -> None:
        """The calling thread carries it from now on."""
        self._began = time.thread_time()

    def end(self) -> None:
        """The calling thread hands it on."""
        self._before, self._began = self.so_far(), time.thread_time()

    def so_far(self) -> float:
        """Of those before and of the calling thread, which carries it."""
        return self._before + time.thread_time() - self._began
