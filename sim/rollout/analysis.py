"""Metrics judged, ratios with their noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from sim.files.plan import Metric
from sim.files.propagation import percentile
from sim.report import words
from sim.rollout.stretch import Figures, PauseCost, saved


class Outcome(StrEnum):
    """What a metric or a step came to, in Argo Rollouts' words."""

    SUCCESSFUL = "successful"
    FAILED = "failed"
    ERROR = "error"
    INCONCLUSIVE = "inconclusive"


_WORST_FIRST = (Outcome.FAILED, Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.SUCCESSFUL)


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """The one that decides; successful for none."""
    return min(outcomes, key=_WORST_FIRST.index, default=Outcome.SUCCESSFUL)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One result, None where there was nothing to measure, and what its conditions say of it.

    A ratio has a noise band from `low` to `high`; `why` says what it wants to be conclusive.
    """

    value: float | None
    outcome: Outcome
    low: float | None = None
    high: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class MetricResult:
    """All measurements of a metric in one analysis; `outcome` by its limits, `why` in words."""

    metric: Metric
    measurements: tuple[Measurement, ...]
    outcome: Outcome
    why: str

    @property
    def value(self) -> float | None:
        """The last result."""
        return self.measurements[-1].value if self.measurements else None

    @property
    def counts(self) -> bool:
        """False where it is only told."""
        return not self.metric.dry_run


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


@dataclass(frozen=True, slots=True)
class Arms:
    """A stage with the flag on, the same one with it off, the node's budget in bytes, and pauses at once.

    `pairs` are the same pauses in both arms since the plan began; None where the arms took no turns.
    """

    on: Figures
    off: Figures
    budget: int
    concurrency: int = 4
    pairs: tuple[Pair, ...] | None = ()


_VALUES: Mapping[str, Callable[[Arms], float | None]] = {
    "pause_success_rate": lambda arms: _share(arms.on.finished, arms.on.asked),
    "discards": lambda arms: arms.on.discarded,
    "lost": lambda arms: len(arms.on.lost),
    "lost_because_of_the_flag": lambda arms: len(set(arms.on.lost) - set(arms.off.lost)),
    "corrupted_resumes": lambda arms: arms.on.corrupted,
    "budget_used": lambda arms: _share(arms.on.pools.both, arms.budget),
    "bytes_saved": lambda arms: saved(arms.off, arms.on, arms.concurrency),
    "punched_share": lambda arms: _share(arms.on.punched_pauses, arms.on.decided_on),
    "decision_errors": lambda arms: arms.on.decision_errors,
    "stale_decisions": lambda arms: arms.on.stale_decisions,
    "flag_staleness": lambda arms: arms.on.stalest,
    "punched_after_kill": lambda arms: arms.on.late,
}
_RATIOS: Mapping[str, tuple[Took, float]] = {
    "copy_p50_ratio": ("copy_ms", 50),
    "copy_p95_ratio": ("copy_ms", 95),
    "blocked_p50_ratio": ("blocked_ms", 50),
    "blocked_p95_ratio": ("blocked_ms", 95),
}


def measure(metric: Metric, arms: Arms) -> Measurement:
    """One measurement; an error where there is nothing to measure."""
    if metric.name in _RATIOS:
        return _measured_ratio(metric, arms)
    value = _VALUES[metric.name](arms)
    if value is None:
        return Measurement(None, Outcome.ERROR)
    return Measurement(float(value), judge(metric, float(value)))


def _measured_ratio(metric: Metric, arms: Arms) -> Measurement:
    """Conclusive where the whole noise band is on one side of its conditions."""
    if arms.pairs is None:
        return Measurement(None, Outcome.INCONCLUSIVE, why="the arms took no turns, so their times do not compare")
    took, percent = _RATIOS[metric.name]
    found = ratio(arms.pairs, took, percent)
    if found.value is None or found.low is None or found.high is None:
        return Measurement(None, Outcome.INCONCLUSIVE, why=found.why)
    ends = {judge(metric, each) for each in (found.low, found.value, found.high)}
    clear = len(ends) == 1 and Outcome.INCONCLUSIVE not in ends
    why = "" if clear else f"its noise band is {found.low:.2f} to {found.high:.2f}, of {found.pauses} pauses"
    return Measurement(found.value, ends.pop() if clear else Outcome.INCONCLUSIVE, found.low, found.high, why)


def judge(metric: Metric, value: float) -> Outcome:
    """By Argo Rollouts' rule: the failure condition first; with both, what meets neither is inconclusive."""
    success, failure = metric.success_condition, metric.failure_condition
    if failure is not None and failure.holds(value):
        return Outcome.FAILED
    if success is None or success.holds(value):
        return Outcome.SUCCESSFUL
    return Outcome.FAILED if failure is None else Outcome.INCONCLUSIVE


def concluded(metric: Metric, measurements: Sequence[Measurement]) -> MetricResult:
    """What the measurements come to, by the metric's limits."""
    failed, unclear = (
        sum(each.outcome is outcome for each in measurements) for outcome in (Outcome.FAILED, Outcome.INCONCLUSIVE)
    )
    errors = _consecutive_errors(measurements)
    outcome = Outcome.SUCCESSFUL
    if 0 <= metric.failure_limit < failed:
        outcome = Outcome.FAILED
    elif 0 <= metric.consecutive_error_limit < errors or (errors and errors == len(measurements)):
        outcome = Outcome.ERROR
    elif 0 <= metric.inconclusive_limit < unclear:
        outcome = Outcome.INCONCLUSIVE
    said = next((each.why for each in reversed(measurements) if each.outcome is outcome and each.why), "")
    return MetricResult(metric, tuple(measurements), outcome, said or _why(metric, outcome))


def _consecutive_errors(measurements: Sequence[Measurement]) -> int:
    most = now = 0
    for each in measurements:
        now = now + 1 if each.outcome is Outcome.ERROR else 0
        most = max(most, now)
    return most


def _why(metric: Metric, outcome: Outcome) -> str:
    if outcome is Outcome.ERROR:
        return "there was nothing to measure"
    asked = metric.success_condition if metric.failure_condition is None else metric.failure_condition
    match outcome:
        case Outcome.FAILED if metric.failure_condition is not None:
            return f"its failureCondition is met: {metric.failure_condition}"
        case Outcome.FAILED:
            return f"its successCondition is not met: {asked}"
        case Outcome.INCONCLUSIVE:
            return f"neither {metric.success_condition} nor {metric.failure_condition}"
    return f"{metric.success_condition}" if metric.success_condition else f"not {metric.failure_condition}"


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
