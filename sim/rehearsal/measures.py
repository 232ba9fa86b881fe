"""What a plan's metrics can measure: each by name, with its sentence, its unit and how it comes about. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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
