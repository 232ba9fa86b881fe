"""Which sandboxes are paused in each step of virtual time: a day with its peak, and a mass eviction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sim.distributions import Floats, Ints
from sim.fleet_file import MassEviction
from sim.forecast.streams import stream
from sim.forecast.virtual_fleet import VirtualFleet, VirtualGroup

DAY = 86_400.0


def rate(group: VirtualGroup, t: float) -> float:
    """Pauses an hour of each sandbox at `t` seconds: half of the day above the median, at most the peak."""
    wave = math.sin(2 * math.pi * t / DAY)
    return group.median * math.exp(wave * math.log(group.peak / group.median))


class Load:
    """Draws who is asked to pause, and when; it knows nothing of who runs. One step after the other."""

    def __init__(self, fleet: VirtualFleet, eviction: MassEviction | None, seed: int, step: float) -> None:
        self._groups: Sequence[VirtualGroup] = fleet.groups
        self._draw = stream(seed, "arrivals")
        self._step = step
        self._latest = np.zeros(fleet.count, np.int64)
        self._evicted, self._evicted_at = _eviction(fleet, eviction, seed)

    def asked(self, number: int) -> tuple[Ints, Floats]:
        """Sandboxes, each once, and the seconds at which they are asked, in step `number` from 0."""
        begin = number * self._step
        parts = [self._of(group, begin) for group in self._groups]
        low, high = np.searchsorted(self._evicted_at, [begin % DAY, begin % DAY + self._step])
        who = np.concatenate([*parts, self._evicted[low:high]])
        at = np.concatenate(
            [begin + self._draw.random(len(part)) * self._step for part in parts]
            + [self._evicted_at[low:high] - begin % DAY + begin]
        )
        order = np.arange(len(who))
        self._latest[who] = order  # of two requests for one sandbox the later one in the list stays
        once = self._latest[who] == order
        return who[once], at[once]

    def _of(self, group: VirtualGroup, begin: float) -> Ints:
        expected = rate(group, begin) * len(group.members) * self._step / 3600
        return group.members[self._draw.integers(0, len(group.members), self._draw.poisson(expected))]


def _eviction(fleet: VirtualFleet, eviction: MassEviction | None, seed: int) -> tuple[Ints, Floats]:
    """Everybody on the evicted nodes and the second of the day at which each is asked, in order."""
    if eviction is None:
        return np.zeros(0, np.int64), np.zeros(0)
    draw = stream(seed, "eviction")
    chosen = draw.permutation(fleet.nodes)[: math.ceil(fleet.nodes * eviction.nodes / 100)]
    evicted = np.zeros(fleet.nodes, np.bool_)
    evicted[chosen] = True
    who = np.flatnonzero(evicted[fleet.node])
    at = eviction.at + draw.random(len(who)) * eviction.within
    order = np.argsort(at, kind="stable")
    return who[order], at[order]
