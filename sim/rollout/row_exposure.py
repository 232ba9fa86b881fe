"""Who of a whole fleet a flag is on for at each stage: the SDK's evaluator over every row of its table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flags.catalog import Flag, is_on
from flags.cohort import Sections
from flags.decision import Evaluation
from flags.decode import uncollected
from flags.launchdarkly_fleet import FleetEvaluator
from sim.files.fleet_file import Floats, Ints

NEVER = -1
_TELL_EVERY = 2000
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rows:
    """The table by columns, one entry a row: bytes, pauses an hour with checkpoints among them, and numbers that stand
    for names (-1: none)."""

    memory: Floats
    dirty: Floats
    pauses_per_hour: Floats
    team: Ints
    node: Ints
    cluster: Ints

    @property
    def count(self) -> int:
        """Sandboxes."""
        return len(self.memory)


@dataclass(frozen=True, slots=True)
class Sums:
    """Of some rows: how many, bytes, pauses an hour, and how many different teams, nodes and clusters."""

    sandboxes: int
    memory: float
    dirty: float
    pauses_per_hour: float
    teams: int
    nodes: int
    clusters: int


@dataclass(frozen=True, slots=True)
class StageExposure:
    """`on` by row. `reasons` counts why the exposed ones are: `default rule`, `rule ID`, `target`, `off`.

    `failures` counts decisions that the evaluator could not make, and prerequisites that were not met, over all rows.
    """

    weight: float
    on: Mask
    reasons: Mapping[str, int]
    failures: Mapping[str, int]

    @property
    def count(self) -> int:
        """Sandboxes that are exposed."""
        return int(self.on.sum())

    def left(self, before: StageExposure) -> int:
        """How many had it on in the stage before and have it off now: 0 where the stage only adds."""
        return int((before.on & ~self.on).sum())


Progress = Callable[[float], None]


def stage_exposures(
    stages: Sequence[tuple[float, Sections]],
    known: Flag,
    contexts: Sequence[Any],
    progress: Progress = lambda _share: None,
) -> list[StageExposure]:
    """One a stage, in order; `contexts` are the SDK's, one a row. `progress` gets the share that is done."""
    found, fleet = [], FleetEvaluator(known, contexts)
    with uncollected():
        for number, (weight, sections) in enumerate(stages):
            part = _part(progress, number, len(stages))
            found.append(_exposed(weight, fleet.each(*sections), len(contexts), part))
    return found


def _part(progress: Progress, number: int, of: int) -> Progress:
    return lambda share: progress((number + share) / of)


def _exposed(weight: float, found: Iterable[Evaluation], count: int, progress: Progress) -> StageExposure:
    on = np.zeros(count, np.bool_)
    reasons: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for row, each in enumerate(found):
        if is_on(each.value):
            on[row] = True
            reasons[_why(each.reason, each.rule)] += 1
        if each.reason.startswith(("ERROR", "WRONG_TYPE", "PREREQUISITE_FAILED")):
            failures[each.reason] += 1
        if row % _TELL_EVERY == 0:
            progress(row / count)
    return StageExposure(weight, on, dict(reasons), dict(failures))


def _why(reason: str, rule: str | None) -> str:
    named = {"FALLTHROUGH": "default rule", "TARGET_MATCH": "target", "OFF": "off"}
    return f"rule {rule}" if rule is not None else named.get(reason, reason)


def first_stages(exposures: Sequence[StageExposure]) -> Ints:
    """By row the number of the first stage (from 0) that exposes it; NEVER where none does."""
    first = np.full(len(exposures[0].on) if exposures else 0, NEVER, np.int64)
    for number, each in enumerate(exposures):
        first[(first == NEVER) & each.on] = number
    return first


def sums(rows: Rows, of: Mask | None = None) -> Sums:
    """Of the rows of the mask, or of all."""
    mask = np.ones(rows.count, np.bool_) if of is None else of
    return Sums(
        sandboxes=int(mask.sum()),
        memory=float(rows.memory[mask].sum()),
        dirty=float(rows.dirty[mask].sum()),
        pauses_per_hour=float(rows.pauses_per_hour[mask].sum()),
        teams=_different(rows.team[mask]),
        nodes=_different(rows.node[mask]),
        clusters=_different(rows.cluster[mask]),
    )


def _different(codes: Ints) -> int:
    return len(np.unique(codes[codes >= 0]))


def numbered(names: Sequence[str | None]) -> Ints:
    """A number for each different name, in order of appearance; -1 for none."""
    seen: dict[str, int] = {}
    return np.array([NEVER if each is None else seen.setdefault(each, len(seen)) for each in names], np.int64)
