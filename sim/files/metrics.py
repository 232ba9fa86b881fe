"""The metrics and conditions of a plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from sim.files.counts import COMPARISONS
from sim.files.units import show

Origin = Literal["measured", "given", "derived", "assumed"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing to measure since the stage began. `compared`: against the same stage with the flag off."""

    name: str
    sentence: str
    unit: Literal["share", "count", "ratio", "bytes", "seconds"]
    origin: Origin
    compared: bool = False


def _by_name(*measures: Measure) -> dict[str, Measure]:
    return {each.name: each for each in measures}


MEASURES: Mapping[str, Measure] = _by_name(
    Measure("pause_success_rate", "share of requested pauses that finished", "share", "measured"),
    Measure("discards", "sandboxes discarded because a copy failed", "count", "measured"),
    Measure("lost", "sandboxes discarded or killed", "count", "measured"),
    Measure(
        "lost_at_checkpoint", "sandboxes discarded although they were to go on after a checkpoint", "count", "measured"
    ),
    Measure(
        "lost_because_of_the_flag",
        "sandboxes lost here but not with the flag off",
        "count",
        "derived",
        compared=True,
    ),
    Measure("corrupted_resumes", "snapshots and resumed guests with a wrong byte", "count", "measured"),
    Measure(
        "copy_p50_ratio",
        "copy time of exposed pauses relative to the same pauses with the flag off, since the plan began: median",
        "ratio",
        "derived",
        compared=True,
    ),
    Measure("copy_p95_ratio", "the same, by the 95th percentile of each arm", "ratio", "derived", compared=True),
    Measure(
        "blocked_p50_ratio",
        "time until a pause answers, as in copy_p50_ratio",
        "ratio",
        "derived",
        compared=True,
    ),
    Measure("blocked_p95_ratio", "the same, compared as in copy_p95_ratio", "ratio", "derived", compared=True),
    Measure(
        "cpu_ratio",
        "CPU seconds of a pause's own threads, compared as in copy_p50_ratio",
        "ratio",
        "derived",
        compared=True,
    ),
    Measure("budget_used", "peak of guests and caches, as a share of the node's budget", "share", "measured"),
    Measure(
        "bytes_saved",
        "memory that the largest pauses at once need beyond their guests: with the flag off, minus with it on",
        "bytes",
        "derived",
        compared=True,
    ),
    Measure("punched_share", "share of the pauses decided to punch that freed memory", "share", "measured"),
    Measure("decision_errors", "flag evaluations that failed", "count", "measured"),
    Measure(
        "stale_decisions", "decisions from a source that was not VALID, or without its heartbeat", "count", "measured"
    ),
    Measure(
        "flag_staleness", "longest time after a change at which a pause still used the old value", "seconds", "measured"
    ),
    Measure(
        "punched_after_kill",
        "pauses that punched when the kill switch had to be obeyed",
        "count",
        "measured",
    ),
)
_FORM = re.compile(r"\s*result\s*(>=|<=|==|!=|>|<)\s*(-?[0-9]+(?:\.[0-9]+)?)\s*")


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of a metric's result with a number."""

    operator: str
    bound: float

    def holds(self, result: float) -> bool:
        """Whether the result meets it."""
        return bool(COMPARISONS[self.operator](result, self.bound))

    def __str__(self) -> str:
        return f"result {self.operator} {self.bound:g}"


def parse_condition(text: Any) -> Condition:
    """ValueError for anything but one comparison of `result` with a number."""
    found = _FORM.fullmatch(text) if isinstance(text, str) and len(text) < 60 else None
    if found is None:
        raise ValueError(f'expected a comparison such as "result >= 0.99", got {show(text)}')
    return Condition(found[1], float(found[2]))


def _condition(value: Any) -> Any:
    return value if isinstance(value, Condition) else parse_condition(value)


WrittenCondition = Annotated[Condition, BeforeValidator(_condition, json_schema_input_type=str)]
"""A condition as a plan writes it."""
