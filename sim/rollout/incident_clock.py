"""What cannot be undone once a stage goes wrong: how many sandboxes are punched before OFF is obeyed. Pure.

The clock runs from the stage's first pause: the stage bakes until its metrics are read, the harm is detected, an
operator decides, OFF travels to every node (common to all nodes, then each node by itself), and what was decided
before it still punches. Sandboxes are taken as independent of each other once the common part is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.files.figures import Known
from sim.files.fleet_file import Floats
from sim.rollout.delays import Delay, Sum, last_of, total

_MOMENTS = 96
_NODE_MOMENTS = 64
_ALMOST_ALL = 1 - 1e-6


@dataclass(frozen=True, slots=True)
class Part:
    """One stretch of the clock and how it is known; `per_node` is drawn by each node for itself."""

    name: str
    delay: Delay
    known: Known
    per_node: bool = False


@dataclass(frozen=True, slots=True)
class Count:
    """A number of sandboxes: in the middle, at most in 99 of 100 incidents, on average, and how likely any at all.

    None where a delay that it needs was not given.
    """

    p50: int | None
    p99: int | None
    mean: float | None
    any: float | None


@dataclass(frozen=True, slots=True)
class StageIncident:
    """Of one stage. `obeyed` is when the last node obeys, seconds at the median and the 99th percentile."""

    weight: float
    exposed: int
    parts: tuple[Part, ...]
    obeyed: tuple[float | None, float | None]
    punched: Count
    lost: Count | None = None


def incident(
    weight: float, pauses_per_second: Floats, parts: Sequence[Part], *, nodes: int = 1, loss_rate: float | None = None
) -> StageIncident:
    """Of a stage that exposes sandboxes with these rates. `loss_rate` (0 to 1) is of each sandbox that is punched."""
    common = total([each.delay for each in parts if not each.per_node])
    alone = [each.delay for each in parts if each.per_node]
    last = total([*(each.delay for each in parts if not each.per_node), *(last_of(each, nodes) for each in alone)])
    rates, counted = np.unique(pauses_per_second, return_counts=True)
    counts = counted.astype(np.float64)
    reached = _reached(rates, common, total(alone))
    unknown = common.known * total(alone).known < _ALMOST_ALL
    return StageIncident(
        weight=weight,
        exposed=int(counts.sum()),
        parts=tuple(parts),
        obeyed=(last.quantile(0.5), last.quantile(0.99)),
        punched=_count(reached, counts, 1.0, unknown=unknown),
        lost=None if loss_rate is None else _count(reached, counts, loss_rate, unknown=unknown),
    )


@dataclass(frozen=True, slots=True)
class _Reached:
    """How likely a sandbox of each rate (columns) is punched in each case of the common part (rows), and the case."""

    chances: Floats
    cases: Floats


def _reached(rates: Floats, common: Sum, alone: Sum) -> _Reached:
    seconds, cases = _condensed(common, _MOMENTS)
    own, own_cases = _condensed(alone, _NODE_MOMENTS)
    spared_alone = np.exp(-np.outer(rates, own)) @ (own_cases / own_cases.sum())
    return _Reached(1 - np.exp(-np.outer(seconds, rates)) * spared_alone, cases)


def _condensed(found: Sum, moments: int) -> tuple[Floats, Floats]:
    """So many seconds that stand for the whole, each for as much of it; the mean of each part is kept."""
    there = found.chances > 0
    seconds, chances = found.seconds[there], found.chances[there]
    if len(seconds) <= moments:
        return seconds, chances
    part = np.minimum((np.cumsum(chances) - chances / 2) / chances.sum() * moments, moments - 1).astype(np.int64)
    weight = np.bincount(part, chances, moments)
    mean = np.bincount(part, chances * seconds, moments)
    filled = weight > 0
    kept: Floats = weight[filled].astype(np.float64)
    return mean[filled] / kept, kept


def _count(reached: _Reached, counts: Floats, rate: float, *, unknown: bool) -> Count:
    chances, cases = reached.chances * rate, reached.cases
    means, variances = chances @ counts, (chances * (1 - chances)) @ counts
    upto = np.zeros(int(counts.sum()) + 1)
    factorials = np.array([math.lgamma(number + 1) for number in range(len(upto))])
    for mean, variance, case in zip(means, variances, cases, strict=True):
        upto += case * _binomial(float(mean), float(variance), factorials)
    upto = np.cumsum(upto)
    none = float(cases @ np.exp(np.log1p(-np.minimum(chances, _ALMOST_ALL)) @ counts))
    return Count(
        p50=_quantile(upto, 0.5),
        p99=_quantile(upto, 0.99),
        mean=None if unknown else float(cases @ means),
        any=None if unknown else min(1.0, max(0.0, 1 - none)),
    )


def _quantile(upto: Floats, share: float) -> int | None:
    at = int(np.searchsorted(upto, share - 1e-9))
    return at if at < len(upto) else None


def _binomial(mean: float, variance: float, factorials: Floats) -> Floats:
    """The chance of 0, 1, 2 and on of a sum of unlike tries, by the binomial with its mean and its variance.

    Exact for like tries; the number of tries is rounded to a whole one. `factorials` are logarithms, of 0! and on.
    """
    size = len(factorials)
    found = np.zeros(size)
    if mean <= 0:
        found[0] = 1.0
        return found
    tries = min(size - 1, max(math.ceil(mean), round(mean * mean / max(mean - variance, mean * 1e-9))))
    chance = min(1.0, mean / tries)
    if chance >= 1.0:
        found[tries] = 1.0
        return found
    wide = 12 * math.sqrt(mean * (1 - chance)) + 12
    number = np.arange(max(0, math.floor(mean - wide)), min(tries, math.ceil(mean + wide)) + 1)
    ways = factorials[tries] - factorials[number] - factorials[tries - number]
    logs = ways + number * math.log(chance) + (tries - number) * math.log1p(-chance)
    chances = np.exp(logs)
    found[number] = chances / chances.sum()
    return found
