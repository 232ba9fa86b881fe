"""Metrics judged; ratios of times with their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Literal

from sim.files.plan import Metric
from sim.files.propagation import percentile
from sim.report import words
from sim.rollout.ratio_interval import LEAST_ROUNDS, RatioInterval, ratio_interval
from sim.rollout.stretch import Figures, PauseCost, saved


class MetricOutcome(StrEnum):
    """How a metric or a step ended, in Argo Rollouts' words."""

    SUCCESSFUL = "successful"
    FAILED = "failed"
    ERROR = "error"
    INCONCLUSIVE = "inconclusive"


_WORST_FIRST = (MetricOutcome.FAILED, MetricOutcome.ERROR, MetricOutcome.INCONCLUSIVE, MetricOutcome.SUCCESSFUL)


def worst(outcomes: Sequence[MetricOutcome]) -> MetricOutcome:
    """The one that decides; successful for none."""
    return min(outcomes, key=_WORST_FIRST.index, default=MetricOutcome.SUCCESSFUL)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One result, None where there was nothing to measure, and what its conditions say of it.

    A ratio lies between `low` and `high`, as its `interval` of rounds says; `why` says what is missing to conclude.
    """

    value: float | None
    outcome: MetricOutcome
    low: float | None = None
    high: float | None = None
    why: str = ""
    interval: RatioInterval | None = None


@dataclass(frozen=True, slots=True)
class MetricResult:
    """All measurements of a metric in one analysis; `outcome` by its limits, `why` in words."""

    metric: Metric
    measurements: tuple[Measurement, ...]
    outcome: MetricOutcome
    why: str

    @property
    def value(self) -> float | None:
        """The last result."""
        return self.measurements[-1].value if self.measurements else None

    @property
    def counts(self) -> bool:
        """False where it is only reported."""
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
    "lost_at_checkpoint": lambda arms: len(arms.on.lost_at_checkpoint),
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
_RATIOS: Mapping[str, tuple[Took, int]] = {
    "copy_p50_ratio": ("copy_ms", 50),
    "copy_p95_ratio": ("copy_ms", 95),
    "blocked_p50_ratio": ("blocked_ms", 50),
    "blocked_p95_ratio": ("blocked_ms", 95),
    "cpu_ratio": ("cpu_seconds", 50),
}


def measure(metric: Metric, arms: Arms) -> Measurement:
    """One measurement; an error where there is nothing to measure."""
    if metric.name in _RATIOS:
        return _measured_ratio(metric, arms)
    value = _VALUES[metric.name](arms)
    if value is None:
        return Measurement(None, MetricOutcome.ERROR)
    return Measurement(float(value), judge(metric, float(value)))


def _measured_ratio(metric: Metric, arms: Arms) -> Measurement:
    """Conclusive where the whole interval is on one side of its conditions."""
    if arms.pairs is None:
        return Measurement(
            None, MetricOutcome.INCONCLUSIVE, why="the arms took no turns, so their times do not compare"
        )
    took, percent = _RATIOS[metric.name]
    found = ratio(arms.pairs, took, percent)
    known = found.interval
    if known is None:
        return Measurement(None, MetricOutcome.INCONCLUSIVE, why=found.why)
    low, high = known.low, known.high
    ends = {judge(metric, each) for each in (low, known.value, high)}
    clear = len(ends) == 1 and MetricOutcome.INCONCLUSIVE not in ends
    why = "" if clear else f"its interval is {low:.2f} to {high:.2f}: {interval_words(known)}"
    return Measurement(known.value, ends.pop() if clear else MetricOutcome.INCONCLUSIVE, low, high, why, known)


def interval_words(interval: RatioInterval) -> str:
    """`7 rounds, 95.3 %, lag-1 0.12`."""
    return f"{interval.rounds} rounds, {interval.level * 100:.1f} %, lag-1 {interval.lag1:.2f}"


def judge(metric: Metric, value: float) -> MetricOutcome:
    """By Argo Rollouts' rule: the failure condition first; with both, what meets neither is inconclusive."""
    success, failure = metric.success_condition, metric.failure_condition
    if failure is not None and failure.holds(value):
        return MetricOutcome.FAILED
    if success is None or success.holds(value):
        return MetricOutcome.SUCCESSFUL
    return MetricOutcome.FAILED if failure is None else MetricOutcome.INCONCLUSIVE


def concluded(metric: Metric, measurements: Sequence[Measurement]) -> MetricResult:
    """The outcome of the measurements, by the metric's limits."""
    failed, unclear = (
        sum(each.outcome is outcome for each in measurements)
        for outcome in (MetricOutcome.FAILED, MetricOutcome.INCONCLUSIVE)
    )
    errors = _consecutive_errors(measurements)
    outcome = MetricOutcome.SUCCESSFUL
    if 0 <= metric.failure_limit < failed:
        outcome = MetricOutcome.FAILED
    elif 0 <= metric.consecutive_error_limit < errors or (errors and errors == len(measurements)):
        outcome = MetricOutcome.ERROR
    elif 0 <= metric.inconclusive_limit < unclear:
        outcome = MetricOutcome.INCONCLUSIVE
    said = next((each.why for each in reversed(measurements) if each.outcome is outcome and each.why), "")
    return MetricResult(metric, tuple(measurements), outcome, said or _why(metric, outcome))


def _consecutive_errors(measurements: Sequence[Measurement]) -> int:
    most = now = 0
    for each in measurements:
        now = now + 1 if each.outcome is MetricOutcome.ERROR else 0
        most = max(most, now)
    return most


def _why(metric: Metric, outcome: MetricOutcome) -> str:
    if outcome is MetricOutcome.ERROR:
        return "there was nothing to measure"
    asked = metric.success_condition if metric.failure_condition is None else metric.failure_condition
    match outcome:
        case MetricOutcome.FAILED if metric.failure_condition is not None:
            return f"its failureCondition is met: {metric.failure_condition}"
        case MetricOutcome.FAILED:
            return f"its successCondition is not met: {asked}"
        case MetricOutcome.INCONCLUSIVE:
            return f"neither {metric.success_condition} nor {metric.failure_condition}"
    return f"{metric.success_condition}" if metric.success_condition else f"not {metric.failure_condition}"


Took = Literal["copy_ms", "blocked_ms", "cpu_seconds"]
LEAST_PAUSES = {50: 1, 95: 20}
"""Exposed pauses that a round needs to have such a percentile of its own."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The same pause in both arms."""

    on: PauseCost
    off: PauseCost


@dataclass(frozen=True, slots=True)
class Ratio:
    """`interval` of the rounds; None where `rounds` are too few, as `why` says."""

    rounds: int
    interval: RatioInterval | None = None
    why: str = ""


def pairs(on: Iterable[PauseCost], off: Iterable[PauseCost]) -> Iterator[Pair]:
    """Of the pauses that the flag was on for and that both arms finished."""
    others = {(each.sandbox, each.nth): each for each in off}
    for each in on:
        other = others.get((each.sandbox, each.nth))
        if each.on and other is not None:
            yield Pair(each, other)


def ratio(compared: Iterable[Pair], took: Took, percent: int) -> Ratio:
    """Over the rounds: the median of a round is of the ratios of its pairs; the 95th percentile of each arm's times."""
    rounds: dict[int, list[tuple[float, float]]] = {}
    for pair in compared:
        mine, other = getattr(pair.on, took), getattr(pair.off, took)
        if mine and other:
            rounds.setdefault(pair.on.nth, []).append((mine, other))
    least = LEAST_PAUSES[percent]
    enough = [times for _, times in sorted(rounds.items()) if len(times) >= least]
    interval = ratio_interval([_log_ratio(times, percent) for times in enough])
    if interval is None:
        each = "" if least == 1 else f" with {least} exposed pauses"
        return Ratio(len(enough), why=f"{words.plural(len(enough), 'exposed round')}{each}: it takes {LEAST_ROUNDS}")
    return Ratio(len(enough), interval)


def _log_ratio(times: Sequence[tuple[float, float]], percent: int) -> float:
    if percent == 50:
        return median(math.log(mine / other) for mine, other in times)
    mine, others = (sorted(column) for column in zip(*times, strict=True))
    return math.log(percentile(mine, percent) / percentile(others, percent))
