"""The fleet file: production as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from fractions import Fraction
from typing import Annotated, Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from flags.context import DEFAULTS, ORIGINAL
from sim.files.figures import Figure
from sim.files.fleet import ContextsKey, GuestKind, PageSize, Slug, Version
from sim.files.loader import Form, Written
from sim.files.prometheus_query import OrAsked
from sim.files.propagation import Propagation
from sim.files.strict import Strict
from sim.files.units import HUGE_PAGE, Duration, Percent, Size, format_size, show

MOST = 100_000_000
MOST_AT_ONCE = 256
"""Pauses of one node."""
PerHour = Annotated[float, Field(gt=0)]


def _scale(value: Any) -> Any:
    if isinstance(value, Fraction):
        return value
    found = re.fullmatch(r"1/([1-9][0-9]{0,5})", value) if isinstance(value, str) else None
    if found is None and value != 1:
        raise ValueError(f"expected a scale such as 1/64, or 1, got {show(value)}")
    return Fraction(1, int(found[1])) if found else Fraction(1)


Scale = Annotated[Fraction, BeforeValidator(_scale, json_schema_input_type=str), Field(strict=False)]


class PausesPerHour(Strict):
    """Pauses per hour of each running sandbox: the day's median, and its peak (twice the median unless given)."""

    median: Annotated[PerHour, OrAsked()] = 1.0
    peak: Annotated[PerHour, OrAsked()] | None = None

    @field_validator("peak")
    @classmethod
    def _is_no_less(cls, peak: float | None, info: ValidationInfo) -> float | None:
        if peak is not None and peak < info.data.get("median", 0.0):
            raise ValueError(f"expected at least the median, {info.data['median']:g}, got {peak:g}")
        return peak

    @property
    def top(self) -> float:
        """The rate at the peak of the day."""
        return 2 * self.median if self.peak is None else self.peak


class MassEviction(Strict):
    """Once a day, at the time `at`, every sandbox on this share of the nodes is paused within `within`; seconds."""

    nodes: Percent
    within: Duration = 120.0
    at: Duration = 12 * 3600.0


class FleetGroup(Strict):
    """`count` sandboxes of one kind; bytes and percent. `resident` is the share of memory that is resident at a
    pause. Below Firecracker 1.14 a sandbox has no memfd, and is never punched; of the others `use_memfd` is the share
    that has the flag of that name on. `checkpoints_per_hour` are those of a running sandbox that are not in place: they
    consume its memory as a pause does."""

    name: Slug
    count: Annotated[int, Field(ge=1, le=MOST)]
    memory: Sizes
    dirty: Annotated[Shares, OrAsked()] = 40.0
    resident: Percent = 100.0
    page_size: PageSize = 4 << 10
    guest: GuestKind = "process"
    template: str = "base"
    team_size: Counts = 10
    pauses_per_hour: PausesPerHour = PausesPerHour()
    checkpoints_per_hour: Annotated[float, Field(ge=0), OrAsked()] = 0.0
    firecracker_version: Version = DEFAULTS.firecracker_version
    use_memfd: Percent = 100.0

    @field_validator("memory")
    @classmethod
    def _is_some(cls, memory: Any) -> Any:
        if smallest(memory) <= 0:
            raise ValueError("expected more than 0 bytes of memory")
        return memory


class FleetNode(Strict):
    """One of many equal machines; bytes. `memory` is for guests with 4 KiB pages and for the copies being made.

    `hugetlb` is the pool of 2 MiB pages; `concurrency` is how many pauses run at once. With `burst: 256` the pauses
    of a minute are asked for in one moment, as auto-pauses are, and so many run at once.
    """

    memory: Size
    hugetlb: Size = 0
    cache: Literal["disk", "tmpfs"] = "disk"
    sandboxes: Annotated[int, Field(ge=1, le=100_000)]
    concurrency: Annotated[int, Field(ge=1, le=MOST_AT_ONCE)] = 4
    burst: Annotated[int, Field(ge=1, le=MOST_AT_ONCE)] | None = None

    @property
    def at_once(self) -> int:
        """How many pauses may be in flight."""
        return self.concurrency if self.burst is None else self.burst


class Fleet(Written):
    """A whole fleet. `scale: 1/64` means that a rehearsal on one machine uses 1/64 of every size."""

    kind: Literal["fleet"]
    version: Literal[1] = 1
    name: Slug
    scale: Scale = Fraction(1)
    node: FleetNode
    groups: Annotated[tuple[FleetGroup, ...], Field(strict=False, min_length=1)]
    mass_eviction: MassEviction | None = None
    paused_for: Duration = 600.0
    propagation: Annotated[Propagation, OrAsked()] = Propagation()
    copy_failures: Percent | None = None
    contexts: ContextsKey = ORIGINAL

    @model_validator(mode="after")
    def _fits_together(self) -> Fleet:
        names = [group.name for group in self.groups]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two groups are named {show(twice[0])}; give each its own name")
        if self.node.hugetlb == 0 and any(group.page_size == HUGE_PAGE for group in self.groups):
            raise ValueError("a group has page_size: 2MiB; give node.hugetlb the size of its pool")
        return self

    @property
    def count(self) -> int:
        """Sandboxes in all."""
        return sum(group.count for group in self.groups)

    @property
    def nodes(self) -> int:
        """Machines that they need; all but the last are full."""
        return -(-self.count // self.node.sandboxes)


def smallest(distribution: Distribution) -> float:
    """The least value that it can give."""
    if isinstance(distribution, Percentiles):
        return distribution.points()[0][1]
    return min(each.value for each in distribution) if isinstance(distribution, tuple) else distribution


def assumptions(fleet: Fleet, without: AbstractSet[str] = frozenset()) -> list[Figure]:
    """Every figure that the file (or the plan) left out, with the value that is assumed for it.

    Those of the keys in `without`, and all below such a key, are not listed.
    """
    return [
        Figure(".".join(path), _with_unit(path[-1], value), "", "assumed", "not given")
        for path, value in _left_out(fleet)
        if not without & set(path)
    ]


_UNITS = {"dirty": "%", "resident": "%", "paused_for": "s", "within": "s", "at": "s"}


def _with_unit(name: str, value: Any) -> str:
    return f"{written(value)} {_UNITS.get(name, '')}".rstrip()


_UNIMPORTANT = {"version", "template", "scale", "copy_failures", "firecracker_version", "use_memfd"}


def _left_out(fleet: Fleet) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield from _defaults((), fleet)
    yield from _defaults(("node",), fleet.node)
    if fleet.propagation.origin == "assumed":
        yield (
            ("propagation",),
            ", ".join(f"p{share * 100:g} {seconds:g} s" for share, seconds in fleet.propagation.points()),
        )
    if fleet.mass_eviction is not None:
        yield from _defaults(("mass_eviction",), fleet.mass_eviction)
    for group in fleet.groups:
        yield from _defaults((group.name,), group)
        for path, value in _defaults((group.name, "pauses_per_hour"), group.pauses_per_hour):
            yield path, group.pauses_per_hour.top if path[-1] == "peak" else value


def _defaults(prefix: tuple[str, ...], model: BaseModel) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Of one mapping; a nested mapping is listed by its own members."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if name not in model.model_fields_set | _UNIMPORTANT and not isinstance(value, BaseModel):
            yield (*prefix, name), value


def written(value: Any) -> str:
    """A value as a report names it."""
    if isinstance(value, int) and value >= 4096 and value % 4096 == 0:
        return format_size(value)
    return f"{value:g}" if isinstance(value, int | float) else "none" if value is None else str(value)


T = TypeVar("T", bound=float)
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_PERCENTS = {"min": 0, "p10": 10, "p25": 25, "p50": 50, "p75": 75, "p90": 90, "p95": 95, "p99": 99, "max": 100}


class Weighted(Strict, Generic[T]):
    """One of several values; `weight` is its share among them all."""

    value: T
    weight: Annotated[float, Field(gt=0)] = 1.0


class Percentiles(Strict, Generic[T]):
    """Straight lines between the given percentiles, flat outside them."""

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
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
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


FLEET = Form("fleet", Fleet, asks=True)
load, load_text = FLEET.load, FLEET.load_text
