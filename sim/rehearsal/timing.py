"""How much longer pauses take with the flag on than with it off, as a ratio with its noise band. Pure.

Each pause that the flag was on for is compared with the same pause in the flag-off arm, which ran just before or after
it. The band holds 95 % of the time for pauses that are independent of each other, whatever their distribution (order
statistics); as those of one round are not, it also reaches what each order of the arms gives by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sim.rehearsal.figures import PauseCost
from sim.rehearsal.propagation import percentile
from sim.report import words

Took = Literal["copy_ms", "blocked_ms"]
MISS = 0.05
"""How often the band may miss the true ratio."""
LEAST = 6
"""Pauses in each order of the arms: with fewer no median has such a band."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The same pause in both arms."""

    on: PauseCost
    off: PauseCost

    @property
    def on_first(self) -> bool:
        """Whether the arm with the flag on came first."""
        return self.on.began < self.off.began


@dataclass(frozen=True, slots=True)
class Ratio:
    """`value` lies in the band from `low` to `high`; all None where `pauses` are too few, as `why` says."""

    pauses: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    why: str = ""


def pairs(on: Iterable[PauseCost], off: Iterable[PauseCost]) -> Iterator[Pair]:
    """Of the pauses that the flag was on for and that both arms finished."""
    others = {(each.sandbox, each.nth): each for each in off}
    for each in on:
        other = others.get((each.sandbox, each.nth))
        if each.on and other is not None:
            yield Pair(each, other)


def ratio(compared: Sequence[Pair], took: Took, percent: float) -> Ratio:
    """The median is of the ratios of the pairs; another percentile is of each arm for itself."""
    known = [pair for pair in compared if getattr(pair.on, took) is not None and getattr(pair.off, took)]
    orders = [[pair for pair in known if pair.on_first is first] for first in (True, False)]
    fewest, band = min(map(len, orders)), _band(known, took, percent)
    if band is None or fewest < LEAST:
        lack = f"{words.plural(len(known), 'exposed pause')} to compare, {fewest} of them in one order of the arms"
        return Ratio(len(known), why=f"{lack}: it takes {_needed(percent)}, {LEAST} in each")
    value, *by_order = (_estimate(each, took, percent) for each in (known, *orders))
    return Ratio(len(known), value, min(band[0], *by_order), max(band[1], *by_order))


def _estimate(compared: Sequence[Pair], took: Took, percent: float) -> float:
    if percent == 50:
        return percentile(_ratios(compared, took), percent)
    mine, others = _of_each(compared, took)
    return percentile(mine, percent) / percentile(others, percent)


def _band(compared: Sequence[Pair], took: Took, percent: float) -> tuple[float, float] | None:
    found = ranks(len(compared), percent / 100, _miss(percent))
    if found is None:
        return None
    low, high = found[0] - 1, found[1] - 1
    if percent == 50:
        ratios = _ratios(compared, took)
        return ratios[low], ratios[high]
    mine, others = _of_each(compared, took)
    return mine[low] / others[high], mine[high] / others[low]


def _miss(percent: float) -> float:
    """Where each arm has a band of its own, each may miss half as often."""
    return MISS if percent == 50 else MISS / 2


def _needed(percent: float) -> int:
    return next(n for n in range(2 * LEAST, 10_000) if ranks(n, percent / 100, _miss(percent)) is not None)


def _ratios(compared: Iterable[Pair], took: Took) -> list[float]:
    return sorted(getattr(pair.on, took) / getattr(pair.off, took) for pair in compared)


def _of_each(compared: Sequence[Pair], took: Took) -> tuple[list[float], list[float]]:
    return sorted(getattr(pair.on, took) for pair in compared), sorted(getattr(pair.off, took) for pair in compared)


def ranks(count: int, share: float, miss: float) -> tuple[int, int] | None:
    """1-based ranks of sorted values between which their quantile lies, but for a share `miss`; None for too few."""
    below = 0.0
    low = 0
    for rank in range(1, count + 1):
        below += math.comb(count, rank - 1) * share ** (rank - 1) * (1 - share) ** (count - rank + 1)
        if below <= miss / 2:
            low = rank
        elif below >= 1 - miss / 2:
            return (low, rank) if low else None
    return None
