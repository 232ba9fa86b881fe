"""How long a kill switch takes to be obeyed, as a distribution. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sim.files.strict import Strict
from sim.files.units import Duration


class Propagation(Strict):
    """Seconds from OFF at its source to a node that obeys: percentiles, or a list of what was measured out there.

    Between percentiles it lies on a straight line. What is given nowhere is assumed: p50 200ms, p95 1s, p99 5s,
    30s at most. What this machine measures over loopback is never in it: the way to LaunchDarkly is longer.
    """

    p50: Duration | None = None
    p95: Duration | None = None
    p99: Duration | None = None
    most: Duration | None = None
    measured: Annotated[tuple[Duration, ...], Field(strict=False, min_length=1)] | None = None

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.measured is not None and self._given():
            raise ValueError("percentiles and what was measured say the same; remove one of them")
        known = [each for _, each in self.points()]
        if known != sorted(known):
            raise ValueError("a higher percentile is less than a lower one")
        return self

    def _given(self) -> bool:
        return any(each is not None for each in (self.p50, self.p95, self.p99, self.most))

    @property
    def origin(self) -> Literal["measured", "given", "assumed"]:
        """What the figures that follow from it rest on."""
        if self.measured is not None:
            return "measured"
        return "given" if self._given() else "assumed"

    def points(self) -> list[tuple[float, float]]:
        """(share, seconds), from 0 to 1."""
        if self.measured is not None:
            known = sorted(self.measured)
            return [(index / max(1, len(known) - 1), each) for index, each in enumerate(known)] or [(0.0, 0.0)]
        if not self._given():
            return [(0.0, 0.0), (0.5, 0.2), (0.95, 1.0), (0.99, 5.0), (1.0, 30.0)]
        pairs = ((0.5, self.p50), (0.95, self.p95), (0.99, self.p99), (1.0, self.most))
        return [(0.0, 0.0), *((share, each) for share, each in pairs if each is not None)]

    def quantile(self, share: float) -> float:
        """Seconds; beyond the last point its seconds."""
        points = self.points()
        for (low, fast), (high, slow) in pairwise(points):
            if share <= high:
                return fast + (slow - fast) * (share - low) / (high - low)
        return points[-1][1]


def percentile(values: Sequence[float], percent: float) -> float:
    """By nearest rank, of sorted values; ValueError for none."""
    if not values:
        raise ValueError("no values")
    rank = max(1, -(-int(percent * 1000) * len(values) // 100_000))
    return values[min(rank, len(values)) - 1]
