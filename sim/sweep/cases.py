"""The cases of a sweep: every fault point that a clean run passed, with every kind of fault that it can have."""

from __future__ import annotations

import fnmatch
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from sim import cluster
from sim.fault_catalogue import CATALOGUE, KINDS, Kind
from sim.places import FaultPoint

_POINTS = {point: place for place, point in enumerate(CATALOGUE)}
_KINDS = {kind: place for place, kind in enumerate(KINDS)}


@dataclass(frozen=True, slots=True)
class Point:
    """A fault point as a run passed it: whose, which, at which chunk, the n-th time; `step` is 0-based."""

    sandbox: str
    fault: FaultPoint
    chunk: int | None
    nth: int
    step: int

    @property
    def of_resume(self) -> bool:
        """True where it is passed in the sandbox's n-th incarnation; else it is in its n-th pause or checkpoint."""
        return CATALOGUE[self.fault].of_resume

    @property
    def occasion(self) -> str:
        """`web-0.p1`, its first pause or checkpoint; `web-0.i2`, its second incarnation."""
        return f"{self.sandbox}.{'i' if self.of_resume else 'p'}{self.nth}"

    def __str__(self) -> str:
        return "/".join([self.occasion, self.fault, *([] if self.chunk is None else [str(self.chunk)])])


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of fault at one point."""

    point: Point
    kind: Kind

    @property
    def name(self) -> str:
        """`web-0.p1/copy.write/3/errno`, unique in a sweep."""
        return f"{self.point}/{self.kind}"


def points_of(passed: Iterable[cluster.Point], steps: int) -> tuple[Point, ...]:
    """What a traced run passed in its first `steps` steps, each point once, in the order of its ledger.

    The start of a first incarnation is left out: it comes before any step could arm a fault.
    """
    found: dict[str, Point] = {}
    for each in passed:
        point = Point(each.sandbox, cast("FaultPoint", each.fault), each.chunk, each.nth, each.step)
        if point.step < steps and not (point.of_resume and point.nth == 1):
            found.setdefault(str(point), point)
    return tuple(found.values())


def cases_of(points: Iterable[Point]) -> list[Case]:
    """Every kind that the catalogue allows at each point, what a short budget should cover first: in each round one
    case of every point and kind, the first chunks before the later ones."""
    cases = [Case(point, kind) for point in points for kind in CATALOGUE[point.fault].kinds]
    cases.sort(key=lambda each: (each.point.chunk or 0, each.point.nth, each.point.sandbox))
    seen: Counter[tuple[str, str]] = Counter()
    ranked = []
    for case in cases:
        group = (case.point.fault, case.kind)
        ranked.append((seen[group], _POINTS[case.point.fault], _KINDS[case.kind], case))
        seen[group] += 1
    return [case for *_, case in sorted(ranked, key=lambda each: each[:3])]


def only(cases: Iterable[Case], globs: Sequence[str]) -> list[Case]:
    """Those whose name, or its end from any `/` on, matches one of the globs; all where there is none."""
    if not globs:
        return list(cases)
    patterns = [pattern for glob in globs for pattern in (glob, f"*/{glob}")]
    return [each for each in cases if any(fnmatch.fnmatchcase(each.name, pattern) for pattern in patterns)]


def shard(cases: Sequence[Case], index: int, count: int) -> list[Case]:
    """The part `index` (from 1) of `count`, in order. The parts share no case, and together they are all; each is a
    mixture, because the cases are dealt by a hash of their names."""
    dealt = sorted(cases, key=lambda each: hashlib.sha256(each.name.encode()).digest())
    mine = {each.name for each in dealt[index - 1 :: count]}
    return [each for each in cases if each.name in mine]
