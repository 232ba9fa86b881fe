"""What a go of a plan must show, the concerns that it accepts, and how long an incident of its rollout takes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from sim.files.strict import Strict
from sim.files.units import Duration, Percent, show

_BOUND = re.compile(r"<\s*([0-9]+(?:\.[0-9]+)?)\s*%\s+at\s+([0-9]+(?:\.[0-9]+)?)\s*%")


@dataclass(frozen=True, slots=True)
class Bound:
    """Fewer than this share (0 to 1) at this confidence (0 to 1)."""

    share: float
    confidence: float

    def __str__(self) -> str:
        return f"< {self.share * 100:g} % at {self.confidence * 100:g} %"


def parse_bound(text: Any) -> Bound:
    """`< 0.5 % at 95 %`; ValueError for anything else, and for shares and confidences that no run can show."""
    found = _BOUND.fullmatch(text.strip()) if isinstance(text, str) and len(text) < 60 else None
    if found is None:
        raise ValueError(f'expected a bound such as "< 0.5 % at 95 %", got {show(text)}')
    share, confidence = (round(float(each) / 100, 12) for each in found.groups())
    if not 1e-6 <= share < 1:
        raise ValueError(f"expected a share from 0.0001 % to less than 100 %, got {found[1]} %")
    if not 0.5 <= confidence <= 0.9999:
        raise ValueError(f"expected a confidence from 50 % to 99.99 %, got {found[2]} %")
    return Bound(share, confidence)


def _bound(value: Any) -> Any:
    return value if isinstance(value, Bound) else parse_bound(value)


WrittenBound = Annotated[Bound, BeforeValidator(_bound, json_schema_input_type=str)]


def _percent(value: Any) -> Any:
    return float(value.removesuffix("%")) if isinstance(value, str) and value.endswith("%") else value


class Demand(Strict):
    """What a go must show by the stage with the weight `at` (percent): a bound on exposed sandboxes that are lost.

    A sandbox counts once, however often it is paused. A rehearsal that shows less is inconclusive.
    """

    lost_because_of_the_flag: WrittenBound
    at: Annotated[float, BeforeValidator(_percent, json_schema_input_type=float | str), Field(gt=0, le=100)] = 100.0


class DurationSpan(Strict):
    """Seconds that vary: percentiles, a list of measured times, or always the same (`5m`)."""

    always: Duration | None = None
    p50: Duration | None = None
    p95: Duration | None = None
    p99: Duration | None = None
    most: Duration | None = None
    measured: Annotated[tuple[Duration, ...], Field(strict=False, min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_a_duration(cls, value: Any) -> Any:
        return {"always": value} if isinstance(value, str | int | float) else value

    @model_validator(mode="after")
    def _says_one_thing_and_rises(self) -> Self:
        ways = [self.always is not None, self.measured is not None, any(each is not None for _, each in self._given())]
        if sum(ways) != 1:
            raise ValueError("write a duration, percentiles or measured times: exactly one of these")
        known = [each for _, each in self.points()]
        if known != sorted(known):
            raise ValueError("a higher percentile is less than a lower one")
        return self

    def _given(self) -> list[tuple[float, float | None]]:
        return [(0.5, self.p50), (0.95, self.p95), (0.99, self.p99), (1.0, self.most)]

    @property
    def origin(self) -> Literal["measured", "given"]:
        """How it is known."""
        return "given" if self.measured is None else "measured"

    def points(self) -> list[tuple[float, float]]:
        """(share, seconds), rising from share 0."""
        if self.always is not None:
            return [(0.0, self.always), (1.0, self.always)]
        if self.measured is not None:
            known = sorted(self.measured)
            known = known * 2 if len(known) == 1 else known
            return [(at / (len(known) - 1), each) for at, each in enumerate(known)]
        return [(0.0, 0.0), *((share, each) for share, each in self._given() if each is not None)]


class Incident(Strict, alias_generator=to_camel, populate_by_name=False):
    """How long it takes until OFF is sent and obeyed once a stage goes wrong; values left out are assumed.

    `detection` from the harm to the alarm, `decision` from the alarm to OFF, `common` the part of OFF's way that all
    nodes share (`propagation` is each node's own), `inFlight` how long a pause that was decided before still punches.
    `lossRate` is the share lost of the sandboxes that are punched until then.
    """

    detection: DurationSpan | None = None
    decision: DurationSpan | None = None
    common: DurationSpan | None = None
    in_flight: DurationSpan | None = None
    loss_rate: Percent | None = None


ConcernName = Literal[
    "flag", "jump", "bake", "nobody", "one-team", "one-cluster", "no-metrics", "all-dry-run", "no-critical",
    "unwatched", "cannot-fire", "must-fire", "continues", "too-few-rounds", "too-small", "half-open",
    "no-drill", "disarmed",
]  # fmt: skip
Reason = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Accepted = dict[ConcernName, Reason]
"""Concerns that a plan accepts, each with the reason why."""
