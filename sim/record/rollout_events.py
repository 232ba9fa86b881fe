"""What happens in the rehearsal of a plan, in the ledger of its arm with the flag on: frozen, past-tense facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.events import Event


@dataclass(frozen=True, slots=True)
class PlanBegan(Event):
    """The run is the arm of a plan with the flag on; `by` is the kind of context that is rolled out.

    `steps` are the plan's, in words. Each of `stages` has its `weight` (percent), `first` (its setWeight, 0-based),
    and of the rehearsed sandboxes how many are `exposed`, of how many (`of`), and `able` to punch.
    """

    plan: str
    flag: str
    by: str
    steps: list[str]
    stages: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class PlanStepEnded(Event):
    """A step of the plan (0-based) was concluded; `at` and `took` are seconds of the plan's own clock.

    `outcome`: successful, failed, error or inconclusive. `stopped`: abort, wait or approve; the plan went no further.
    """

    step: int
    label: str
    weight: float
    outcome: str
    detail: str
    at: float
    took: float
    stopped: str | None = None


@dataclass(frozen=True, slots=True)
class StageMeasured(Event):
    """What a stage (counted from 1) has shown so far: counts of its pauses with the flag on.

    `lost_by_flag`: lost here and not with the flag off. Of all stages so far: the loss `rate` (0 to 1) that `tried`
    distinct sandboxes rule out at this `confidence`. The incident clock: seconds until OFF is `obeyed` (p50, p99),
    sandboxes `reached` by then (p50, p99) of the `at_stake` that production exposes, and how likely `any` is; each of
    `parts` has `name`, `p50`, `p99`, `known`. None where it is not known.
    """

    stage: int
    weight: float
    exposed: int
    pauses: int
    punched: int
    discarded: int
    lost: int
    lost_by_flag: int
    complete: bool
    rate: float
    tried: int
    confidence: float
    demanded: str | None = None
    met: bool = True
    obeyed: list[float | None] | None = None
    reached: list[int | None] | None = None
    at_stake: int | None = None
    any: float | None = None
    parts: list[dict[str, Any]] | None = None
