"""Which part of a run a chart shows: a window up to now, or all of it with its idle times folded. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from sim.record.stages import Sample

WINDOWS: tuple[float | None, ...] = (None, 300.0, 30.0)
"""Seconds up to now; None is the whole run."""
IDLE = 10.0
"""Seconds without a change after which a time counts as idle."""
FOLDED = 2.0
"""Seconds that are left of an idle time."""


@dataclass(frozen=True, slots=True)
class ChartWindow:
    """From `begin` to `end`, seconds of the run; `folded` are the idle times that it leaves out, as (from, to)."""

    begin: float
    end: float
    folded: tuple[tuple[float, float], ...] = ()

    @property
    def length(self) -> float:
        """Seconds that are shown."""
        return self.end - self.begin - self.left_out

    @property
    def left_out(self) -> float:
        """Seconds that are folded."""
        return sum(to - since for since, to in self.folded)

    def place(self, t: float) -> float:
        """Where a time is shown, seconds after the window's left edge."""
        before = sum(min(t, to) - since for since, to in self.folded if since < t)
        return t - self.begin - before

    def shown(self, samples: Sequence[Sample]) -> list[Sample]:
        """The samples at the places where they are shown; the one before the window is what it begins with."""
        first = max(0, bisect_right([each.t for each in samples], self.begin) - 1)
        return [replace(each, t=max(0.0, self.place(each.t))) for each in samples[first:]]


def window(seconds: float | None, now: float, samples: Sequence[Sample], marks: Iterable[float]) -> ChartWindow:
    """The last `seconds` up to `now`; all of the run without its idle times for None. `marks` are times of interest."""
    if seconds is not None:
        return ChartWindow(max(0.0, now - seconds), now)
    changed = [each.t for last, each in pairwise(samples) if (last.source, last.cache) != (each.source, each.cache)]
    busy = sorted({0.0, now, *(each.t for each in samples[:1]), *changed, *marks})
    idle = ((since + FOLDED, to) for since, to in pairwise(busy) if to - since > IDLE)
    return ChartWindow(0.0, now, tuple(idle))
