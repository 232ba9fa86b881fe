"""A quantity that differs between sandboxes, as a document gives it: one value, values with weights, or percentiles."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator, Field, Tag, model_validator

from sim.strict import Strict
from sim.units import Percent, Size

T = TypeVar("T", bound=float)
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_PERCENTS = {"min": 0, "p10": 10, "p25": 25, "p50": 50, "p75": 75, "p90": 90, "p95": 95, "p99": 99, "max": 100}


class Weighted(Strict, Generic[T]):
    """One of several values; `weight` is its share among them all."""

    value: T
    weight: Annotated[float, Field(gt=0)] = 1.0


class Percentiles(Strict, Generic[T]):
    """Straight lines between the percentiles that are given, flat outside them."""

    min: T | None = None
    p10: T | None = None
    p25: T | None = None
    p50: T
    p75: T | None = None
    p90: T | None = None
    p95: T | None = None
    p99: T | None = None
    max: T | None = None

    @model_validator(mode="after")
    def _rises(self) -> Percentiles[T]:
        values = [value for _, value in self.points()]
        if values != sorted(values):
            raise ValueError("a percentile is smaller than one before it; give them in rising order")
        return self

    def points(self) -> list[tuple[float, float]]:
        """(share of the sandboxes, value), rising."""
        given = ((percent / 100, getattr(self, name)) for name, percent in _PERCENTS.items())
        return [(place, float(value)) for place, value in given if value is not None]


def _form(value: Any) -> str:
    if isinstance(value, dict | Percentiles):
        return "percentiles"
    return "list" if isinstance(value, list | tuple) else "one"


Listed = Field(strict=False, min_length=1)
Count = Annotated[int, Field(ge=1)]
Sizes = Annotated[
    Annotated[Size, Tag("one")]
    | Annotated[tuple[Weighted[Size], ...], Listed, Tag("list")]
    | Annotated[Percentiles[Size], Tag("percentiles")],
    Discriminator(_form),
]
"""Bytes."""
Shares = Annotated[
    Annotated[Percent, Tag("one")]
    | Annotated[tuple[Weighted[Percent], ...], Listed, Tag("list")]
    | Annotated[Percentiles[Percent], Tag("percentiles")],
    Discriminator(_form),
]
"""Percent, 0 to 100."""
Counts = Annotated[
    Annotated[Count, Tag("one")]
    | Annotated[tuple[Weighted[Count], ...], Listed, Tag("list")]
    | Annotated[Percentiles[Count], Tag("percentiles")],
    Discriminator(_form),
]
"""Whole numbers from 1."""
Distribution = float | tuple[Weighted[Any], ...] | Percentiles[Any]


def at(distribution: Distribution, shares: Floats) -> Floats:
    """The values at these shares of the population (0 to 1), so that uniform draws give its distribution."""
    if isinstance(distribution, Percentiles):
        places, values = zip(*distribution.points(), strict=True)
        between: Floats = np.interp(shares, places, values)
        return between
    if isinstance(distribution, tuple):
        upto = np.cumsum([each.weight for each in distribution])
        index = np.searchsorted(upto / upto[-1], shares, side="right")
        values_of: Floats = np.array([float(each.value) for each in distribution])
        return values_of[np.minimum(index, len(distribution) - 1)]
    return np.full(len(shares), float(distribution))


def evenly(distribution: Distribution, count: int) -> Floats:
    """`count` values that stand for the whole distribution, ascending: one from the middle of each equal part."""
    return np.sort(at(distribution, (np.arange(count) + 0.5) / count))


def mean(distribution: Distribution) -> float:
    """The mean; of percentiles, by the straight lines."""
    return float(evenly(distribution, 1 if isinstance(distribution, int | float) else 10_000).mean())
