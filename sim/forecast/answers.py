"""What a simulated fleet answers: for each weight of the flag, memory, savings, losses, and what cannot be undone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.distributions import Floats
from sim.fleet_file import Fleet
from sim.forecast.simulation import Demand, Simulated
from sim.forecast.virtual_fleet import VirtualFleet

YEAR_HOURS = 365 * 24
_AT = (50, 90, 99, 100)


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles over the nodes; bytes."""

    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Blast:
    """What punches between a kill switch and the last node that obeys it, `seconds` later: cannot be undone.

    Sandboxes and bytes of guest memory, on average over the time, and in its worst moment.
    """

    seconds: float
    sandboxes: float
    worst_sandboxes: float
    worst_bytes: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one weight, percent. `peak` is of a node's 4 KiB pages; `over_memory` is the share of nodes that pass them.

    `saved` is what all nodes together need less at their peaks than with the flag off. `fit` is how many pauses find
    room at once on a node in the middle with all its guests, `fit_p99` on one of the fullest hundredth. `lost` and
    `rolled_back` are sandboxes a year whose copy fails when they are condemned, or are not yet. `freed_early` is bytes
    of guest memory a day that came back while copies ran, not after them.
    """

    weight: float
    exposed: int
    punched_pauses: int
    peak: Spread
    over_memory: float
    saved: float
    fit: int
    fit_p99: int
    lost: float
    rolled_back: float
    freed_early: float
    blast: tuple[Blast, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked beside the fleet: percent, hours, and the share of pauses whose copy fails.

    In the `background` a copy goes on after its pause has answered, past the point of no return with the flag off too.
    """

    weights: tuple[float, ...]
    hours: float
    failure_rate: float
    background: bool = False


def answers(fleet: VirtualFleet, file: Fleet, asks: Demand, found: Simulated, question: Question) -> tuple[Answer, ...]:
    """One a weight, in the order asked; the first simulated weight is 0, the flag off."""
    off = found.peak[0].sum()
    return tuple(_answer(fleet, file, asks, found, question, arm, float(off)) for arm in range(len(question.weights)))


def _answer(
    fleet: VirtualFleet, file: Fleet, asks: Demand, found: Simulated, question: Question, arm: int, off: float
) -> Answer:
    weight, peak = question.weights[arm], found.peak[arm]
    pauses = int(found.pauses.sum())
    a_year = YEAR_HOURS / question.hours * question.failure_rate
    failures = pauses * a_year
    losable = (found.losable_if_all if question.background else float(found.losable[arm])) * a_year
    on = fleet.is_on((weight,), np.arange(fleet.count))[0]
    extra = np.where(on, asks.extra_on, asks.extra_off).mean()
    return Answer(
        weight=weight,
        exposed=int(on.sum()),
        punched_pauses=int(found.punched[:, arm].sum()),
        peak=spread(peak),
        over_memory=float((peak > file.node.memory).mean()),
        saved=off - float(peak.sum()),
        fit=_fit(file.node.memory, found.everybody, 50, extra),
        fit_p99=_fit(file.node.memory, found.everybody, 99, extra),
        lost=losable,
        rolled_back=failures - losable,
        freed_early=float(found.punched_bytes[:, arm].sum()) * 24 / question.hours,
        blast=tuple(_blast(found, arm, seconds) for seconds in propagation_times(file)),
    )


def spread(values: Floats) -> Spread:
    """Over the nodes."""
    return Spread(*(float(each) for each in np.percentile(values, _AT)))


def propagation_times(file: Fleet) -> tuple[float, ...]:
    """Median, 95th percentile and most, seconds."""
    return tuple(round(file.propagation.quantile(share), 6) for share in (0.5, 0.95, 1.0))


def _fit(memory: int, guests: Floats, percentile: float, extra: float) -> int:
    free = memory - float(np.percentile(guests, percentile))
    return max(0, int(free / max(extra, 1.0)))


def _blast(found: Simulated, arm: int, seconds: float) -> Blast:
    """Inside a step the rate is taken as even."""
    hours = len(found.pauses) * found.step
    return Blast(
        seconds=seconds,
        sandboxes=float(found.punched[:, arm].sum()) / hours * seconds,
        worst_sandboxes=_worst(found.punched[:, arm].astype(float), seconds / found.step),
        worst_bytes=_worst(found.punched_bytes[:, arm], seconds / found.step),
    )


def _worst(by_step: Floats, steps: float) -> float:
    """The largest sum over so many neighbouring steps, which need not be whole."""
    whole = min(max(1, int(np.ceil(steps))), len(by_step))
    sums = np.convolve(by_step, np.ones(whole), mode="valid")
    return float(sums.max()) * min(1.0, steps / whole)
