"""What a plan can measure and ask."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from sim.files.steps import COMPARISONS
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
    Measure("pause_success_rate", "pauses that finished, of those that were asked for", "share", "measured"),
    Measure("discards", "sandboxes discarded because a copy failed", "count", "measured"),
    Measure("lost", "sandboxes discarded or killed", "count", "measured"),
    Measure("lost_because_of_the_flag", "lost here and not with the flag off", "count", "derived", compared=True),
    Measure("corrupted_resumes", "snapshots and resumed guests with a wrong byte", "count", "measured"),
    Measure(
        "copy_p50_ratio",
        "copy time of exposed pauses against the same pauses with the flag off, since the plan began: the median",
        "ratio",
        "derived",
        compared=True,
    ),
    Measure("copy_p95_ratio", "95th percentile of it, of each arm for itself", "ratio", "derived", compared=True),
    Measure("blocked_p50_ratio", "time until a pause answers, as copy_p50_ratio", "ratio", "derived", compared=True),
    Measure("blocked_p95_ratio", "95th percentile of it, as copy_p95_ratio", "ratio", "derived", compared=True),
    Measure("budget_used", "node peak of guests and caches, of its budget", "share", "measured"),
    Measure(
        "bytes_saved",
        "what the largest pauses at once need beyond their guests: with the flag off, less with it on",
        "bytes",
        "derived",
        compared=True,
    ),
    Measure("punched_share", "pauses that freed memory, of those that were decided to", "share", "measured"),
    Measure("decision_errors", "decisions that the evaluator could not make", "count", "measured"),
    Measure(
        "stale_decisions", "decisions from a source that was not VALID, or without its heartbeat", "count", "measured"
    ),
    Measure(
        "flag_staleness", "how long after a change the old value was still decided on, at most", "seconds", "measured"
    ),
    Measure("punched_after_kill", "pauses that punched after the kill switch had had its time", "count", "measured"),
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
