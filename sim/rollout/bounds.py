"""How rare a loss may yet be after so many tries: exact one-sided binomial bounds. Pure.

The unit is the distinct sandbox that was exposed, lost at least once or not at all: pauses of one sandbox are no
independent tries. How many there are is fixed before the first of them is paused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
_PRECISION = 1e-12
_LARGEST = 100_000_000


def upper_bound(lost: int, exposed: int, confidence: float = CONFIDENCE) -> float:
    """The loss rate (0 to 1) that `lost` of `exposed` rule out with this confidence.

    It is 1 where all are lost, or none is exposed.
    """
    if lost >= exposed:
        return 1.0
    if lost == 0:
        return -math.expm1(math.log1p(-confidence) / exposed)
    return _largest(lambda rate: at_most(lost, exposed, rate) > 1 - confidence, 1.0)


def at_most(lost: int, exposed: int, rate: float) -> float:
    """How likely no more than `lost` of `exposed` are lost where each is lost with this rate."""
    if rate <= 0 or lost >= exposed:
        return 1.0
    if rate >= 1:
        return 0.0
    kept, gone = math.log1p(-rate), math.log(rate)
    whole = math.lgamma(exposed + 1)
    terms = (
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(exposed - k + 1) + k * gone + (exposed - k) * kept)
        for k in range(lost + 1)
    )
    return min(1.0, math.fsum(terms))


def needed(lost: int, rate: float, confidence: float = CONFIDENCE) -> int:
    """Distinct exposed sandboxes that rule out this rate although `lost` of them are lost.

    For 0.5 % at 95 %: 598, 947 and 1,258 with 0, 1 and 2 losses. ValueError for a rate outside (0, 1).
    """
    if not 0 < rate < 1:
        raise ValueError(f"expected a rate between 0 and 1, got {rate:g}")
    low, high = lost, lost + 1
    while at_most(lost, high, rate) > 1 - confidence:
        low, high = high, high * 2
        if high > _LARGEST:
            raise ValueError(f"a rate of {rate:g} takes more than {_LARGEST:,} sandboxes")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at_most(lost, middle, rate) > 1 - confidence else (low, middle)
    return high


@dataclass(frozen=True, slots=True)
class Stratum:
    """`share` is its part (0 to 1) of what the bound is about; `exposed` were tried, `lost` of them lost."""

    share: float
    exposed: int
    lost: int = 0


def stratified_bound(strata: Sequence[Stratum], confidence: float = CONFIDENCE) -> float:
    """The bound on the loss rate of the whole, whichever stratum the losses belong to.

    In equal proportions it is the binomial one. Otherwise the losses expected are at most the Poisson limit (3.0 for
    none), all of them in the stratum with the worst share / exposed. A stratum without a try may be lost as a whole.
    """
    tried = [each for each in strata if each.exposed]
    untried = math.fsum(each.share for each in strata if not each.exposed)
    if not tried:
        return 1.0
    lost, exposed = sum(each.lost for each in tried), sum(each.exposed for each in tried)
    worst = max(each.share / each.exposed for each in tried)
    least = min(each.share / each.exposed for each in tried)
    if worst - least <= _PRECISION:
        return min(1.0, untried + upper_bound(lost, exposed, confidence) * (1 - untried))
    return min(1.0, untried + worst * poisson_limit(lost, confidence))


def poisson_limit(lost: int, confidence: float = CONFIDENCE) -> float:
    """Expected losses that `lost` seen ones rule out: 3.00, 4.74, 6.30 at 95 % for 0, 1, 2."""

    def not_ruled_out(mean: float) -> bool:
        terms = (math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(lost + 1))
        return math.fsum(terms) > 1 - confidence

    return _largest(not_ruled_out, 20.0 + 4 * lost) if lost else -math.log1p(-confidence)


def _largest(holds: Callable[[float], bool], high: float) -> float:
    """By halving, from 0 to `high`: the end of what holds."""
    low = 0.0
    while high - low > _PRECISION * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return high
