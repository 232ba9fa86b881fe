"""Delays that are given as percentiles, computed exactly: quantiles, sums, and the last of many nodes. Pure.

Nothing is drawn, so no seed can turn a gate. What was not given is unknown, such as the slowest part without a `most`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sim.files.fleet_file import Floats
from sim.files.propagation import Propagation

CELLS = 8192
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Delay:
    """(share, seconds) rising from share 0, straight lines between; unknown beyond the last share.

    With `nodes` it is the delay of the slowest of so many, each with a delay of its own.
    """

    points: tuple[tuple[float, float], ...]
    nodes: int = 1

    @property
    def known(self) -> float:
        """The share of incidents about which something is given."""
        return float(self.points[-1][0] ** self.nodes)

    @property
    def most(self) -> float:
        """The last point's seconds; the longest delay where everything is known."""
        return self.points[-1][1]

    def quantile(self, share: float) -> float | None:
        """Seconds within which this share of incidents is over; None where that was not given."""
        one = float(share ** (1 / self.nodes))
        for (low, fast), (high, slow) in pairwise(self.points):
            if one <= high:
                return fast + (slow - fast) * (one - low) / (high - low)
        return self.points[-1][1] if one <= self.points[-1][0] + _ROUNDING else None

    def within(self, seconds: Floats) -> Floats:
        """The share that is over after so many seconds, for each; a delay of nothing is over at 0."""
        shares, times = (np.array(column) for column in zip(*self.points, strict=True))
        index = np.searchsorted(times, seconds, side="right")
        low, high = np.maximum(index - 1, 0), np.minimum(index, len(times) - 1)
        span = np.where(times[high] > times[low], times[high] - times[low], 1.0)
        part = np.clip((seconds - times[low]) / span, 0.0, 1.0)
        one = np.where(index == 0, 0.0, shares[low] + (shares[high] - shares[low]) * part)
        made: Floats = one**self.nodes
        return made


def fixed(seconds: float) -> Delay:
    """Always the same."""
    return Delay(((0.0, seconds), (1.0, seconds)))


def delay_of(propagation: Propagation) -> Delay:
    """As a document gives it: percentiles, or what was measured."""
    points = propagation.points()
    return Delay(tuple(points) if len(points) > 1 else ((0.0, points[0][1]), (1.0, points[0][1])))


def last_of(delay: Delay, nodes: int) -> Delay:
    """The slowest of so many nodes that are independent of each other: F to the power of their number."""
    return Delay(delay.points, delay.nodes * nodes)


@dataclass(frozen=True, slots=True)
class Sum:
    """Independent delays one after the other: how likely each of `seconds` is. What is missing to 1 is unknown."""

    seconds: Floats
    chances: Floats

    @property
    def known(self) -> float:
        """The share of incidents about which everything was given."""
        return float(self.chances.sum())

    def quantile(self, share: float) -> float | None:
        """Seconds, to a cell of the grid; None where that is unknown."""
        upto = np.cumsum(self.chances)
        at = int(np.searchsorted(upto, share - _ROUNDING))
        return float(self.seconds[at]) if at < len(upto) else None


def total(delays: Sequence[Delay], cells: int = CELLS) -> Sum:
    """Convolved on a grid from 0 to the sum of the longest; delays that never vary are added exactly."""
    always = [each for each in delays if each.points[0][1] == each.most and each.known >= 1 - _ROUNDING]
    varying = [each for each in delays if each not in always]
    offset = math.fsum(each.most for each in always)
    if not varying:
        return Sum(np.array([offset]), np.array([1.0]))
    step = math.fsum(each.most for each in varying) / cells
    if step == 0:
        return Sum(np.array([offset]), np.array([math.prod(each.known for each in varying)]))
    size = cells + len(varying) + 1
    spectrum = np.ones(size // 2 + 1, np.complex128)
    for each in varying:
        spectrum = spectrum * np.fft.rfft(_cells(each, step, size), size)
    chances = np.clip(np.fft.irfft(spectrum, size), 0.0, None)
    seconds: Floats = offset + np.arange(size, dtype=np.float64) * step
    return Sum(seconds, chances)


def _cells(delay: Delay, step: float, size: int) -> Floats:
    """How likely the delay rounds to each multiple of `step`."""
    edges: Floats = (np.arange(size, dtype=np.float64) + 0.5) * step
    made: Floats = np.diff(delay.within(edges), prepend=0.0)
    return made


def distinct(pauses_per_second: Floats, seconds: float) -> float:
    """How many different sandboxes are paused in so many seconds on average: the sum of 1 - exp(-rate * seconds)."""
    return float(-np.expm1(-pauses_per_second * seconds).sum())
