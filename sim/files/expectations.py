"""What a scenario expects of its whole run: invariants, bounds on metrics, states at the end, or a violation."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from sim.files.steps import Eventually, StateExpectation
from sim.files.strict import Strict
from sim.files.units import Duration, parse_size, show

Invariant = Literal[
    "never_resumed",
    "failed_copy_discards",
    "rollback_intact",
    "bytes_exact",
    "peak_bounded",
    "decision_pinned",
    "no_leaks",
    "legal_transitions",
    "no_unpublished",
    "off_arrives",
    "deaths_explained",
    "dirty_agrees",
]
Metric = Literal[
    "peak_over", "peak_ratio", "copy_ms", "blocked_ms", "dirty_bytes", "punched_bytes", "pauses", "punched_after_kill"
]
METRICS: Mapping[Metric, tuple[str, str]] = MappingProxyType(
    {
        "peak_over": ("size, such as 8MiB", "the most that guest and cache held during the pause, beyond the guest"),
        "peak_ratio": ("ratio", "the same most, as a multiple of what the guest held when it was frozen"),
        "copy_ms": ("milliseconds", "from the first chunk to the finished build"),
        "blocked_ms": ("milliseconds", "from the request to the answer"),
        "dirty_bytes": ("size", "what was dirty, and copied"),
        "punched_bytes": ("size", "what the kernel says was freed from the memfd"),
        "pauses": ("number of pauses", "how many pauses the filter selects"),
        "punched_after_kill": ("number of pauses", "decided to punch later than `within` after the kill switch"),
    }
)
"""The unit of `min` and `max`, and what is measured: of each pause, or, for a number, over all of them."""
PROPAGATION_SECONDS = 1.0
IN_BYTES = frozenset({"peak_over", "dirty_bytes", "punched_bytes"})


class InvariantExpectation(Strict):
    """The invariant holds and the run exercised it. `eventually` allows further ticks for the run to exercise it."""

    invariant: Invariant
    eventually: Eventually | None = None


class PauseFilter(Strict):
    """Selects the pauses that a metric covers: those that match every field given."""

    punch: bool | None = None
    path: Literal["process", "memfd", "memfd-background", "dedup", "in-place"] | None = None
    sandboxes: str = "*"
    outcome: Literal["finished", "rolled-back", "discarded"] | None = None


class MetricExpectation(Strict):
    """The metric lies in [min, max] for every pause that passes the filter; `pauses` is the number of such pauses.

    `punched_after_kill` is how many of them punched although they were decided more than `within` seconds after the
    kill switch was thrown at its source; the kill switch is the punch flag turned off for every sandbox. Sizes are in
    bytes, times in milliseconds. The run is inconclusive if no pause passes, or none was decided late enough after a
    kill switch, unless `allow_empty` is true.
    """

    metric: Metric
    where: PauseFilter = PauseFilter()
    min: float | None = None
    max: float | None = None
    within: Duration = PROPAGATION_SECONDS
    allow_empty: bool = False
    eventually: Eventually | None = None

    @field_validator("within")
    @classmethod
    def _goes_with_the_kill_switch(cls, within: float, info: ValidationInfo) -> float:
        if info.data.get("metric", "punched_after_kill") != "punched_after_kill":
            raise ValueError("within goes with metric: punched_after_kill; remove it")
        return within

    @field_validator("min", "max", mode="before", json_schema_input_type=float | str | None)
    @classmethod
    def _bound(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str):
            return value
        if info.data.get("metric", "peak_over") not in IN_BYTES:
            raise ValueError(f"expected a number, got {show(value)}")
        return float(parse_size(value))

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a metric without a bound expects nothing; add min or max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is greater than max, so no value can match; lower min or raise max")
        return self


class ViolationExpectation(Strict):
    """A canary: the run passes only if it is caught violating this. `eventually` allows further ticks for that.

    With `verdict: inconclusive` an invariant must be left without evidence instead.
    """

    verdict: Literal["violated", "inconclusive"]
    invariant: Invariant | None = None
    metric: Metric | None = None
    eventually: Eventually | None = None

    @model_validator(mode="after")
    def _names_one_culprit(self) -> Self:
        if (self.invariant is None) == (self.metric is None):
            raise ValueError("a canary names what must be violated; add either invariant or metric")
        if self.verdict == "inconclusive" and self.metric is not None:
            raise ValueError("only an invariant can be left without evidence; name an invariant, or use violated")
        return self

    @property
    def subject(self) -> str:
        """The subject that must be violated, as judgements name it."""
        return f"invariant:{self.invariant}" if self.invariant else f"metric:{self.metric}"


Expectation = InvariantExpectation | MetricExpectation | StateExpectation | ViolationExpectation
_BY_KEY: dict[str, type[Expectation]] = {
    "verdict": ViolationExpectation,
    "metric": MetricExpectation,
    "invariant": InvariantExpectation,
    "state": StateExpectation,
    "counts": StateExpectation,
}


def _expectation(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, Mapping):
        return value
    for key, model in _BY_KEY.items():
        if key in value:
            return model.model_validate(value, context=info.context)
    raise ValueError("expected one of invariant, metric, state, counts or verdict")


AnyExpectation = Annotated[
    Expectation, Field(union_mode="left_to_right"), BeforeValidator(_expectation, json_schema_input_type=Expectation)
]
