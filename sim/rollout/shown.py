"""What a rehearsal has shown: the loss bound of its exposed sandboxes, and the incident clock of each stage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sim.files.demand import Bound, Demand, DurationSpan
from sim.files.figures import Known, percent
from sim.files.fleet_file import Floats
from sim.files.plan import Analysis, Plan, checkpoints_a_pause
from sim.rollout.bounds import CONFIDENCE, needed, upper_bound
from sim.rollout.compiled import Stage, seconds_of
from sim.rollout.delays import Delay, delay_of, fixed, last_of
from sim.rollout.exposure import Exposure, can_punch
from sim.rollout.incident_clock import Part, StageIncident, incident

_FEW_LOSSES = 3
_ASSUMED: dict[str, DurationSpan] = {
    "detection": DurationSpan(p50=300.0, p99=900.0, most=1800.0),
    "decision": DurationSpan(p50=300.0, p99=1800.0, most=3600.0),
    "in flight": DurationSpan(always=1.0),
}


@dataclass(frozen=True, slots=True)
class LossBound:
    """Of distinct sandboxes that were exposed by the stage `at` that weight (percent), each counted once.

    `planned` were to be exposed, fixed before the start; `tried` were punched or lost; `lost` of them because of the
    flag. `rate` (0 to 1) is ruled out with this confidence: of the exposed, never of the fleet. `stratified`: of the
    exposed of a whole fleet, of which the tried are a sample; its worst stratum decides.
    """

    at: float
    planned: int
    tried: int
    lost: int
    confidence: float
    rate: float
    demanded: Bound | None = None
    stratified: bool = False

    @property
    def is_met(self) -> bool:
        """Whether what was demanded is shown; true where nothing was."""
        return self.demanded is None or self.rate <= self.demanded.share

    @property
    def text(self) -> str:
        """`< 18.1 % at 95 % (15 exposed, 0 lost)`."""
        how = ", stratified" if self.stratified else ""
        return f"< {percent(self.rate)} at {self.confidence * 100:g} % ({self.tried:,} exposed, {self.lost} lost{how})"

    @property
    def short(self) -> str:
        """What a demand that is not met still takes."""
        if self.demanded is None:
            return ""
        need = needed(self.lost, self.demanded.share, self.demanded.confidence)
        return f"demand {self.demanded}: needs {need:,} distinct exposed sandboxes, has {self.tried:,}: {self.text}"


def needs(bound: Bound) -> str:
    """`598, 947, 1,258 with 0, 1, 2 losses`."""
    counts = ", ".join(f"{needed(lost, bound.share, bound.confidence):,}" for lost in range(_FEW_LOSSES))
    return f"{counts} with {', '.join(map(str, range(_FEW_LOSSES)))} losses"


def loss_bound(
    demand: Demand | None, exposures: Iterable[Exposure], tried: Iterable[str], lost: Iterable[str]
) -> LossBound:
    """`tried` and `lost` are sandboxes by name, over all stages up to the demand's."""
    at = 100.0 if demand is None else demand.at
    planned = {name for each in exposures if each.weight <= at for name in each.sandboxes}
    gone = planned & set(lost)
    seen = planned & (set(tried) | gone)
    bound = None if demand is None else demand.lost_because_of_the_flag
    confidence = CONFIDENCE if bound is None else bound.confidence
    rate = upper_bound(len(gone), len(seen), confidence)
    return LossBound(at, len(planned), len(seen), len(gone), confidence, rate, bound)


def parts(plan: Plan, stage: Stage) -> list[Part]:
    """The incident clock of a stage, from its first pause until no pause punches any more."""
    given = plan.incident
    spans = {"detection": given.detection, "decision": given.decision, "in flight": given.in_flight}
    common = given.common
    return [
        Part("bake", fixed(bake(plan, stage)), "given"),
        *(_part(name, spans[name]) for name in ("detection", "decision")),
        Part("OFF, common", fixed(0.0) if common is None else _delay(common), _known(common)),
        Part("OFF, each node", delay_of(plan.propagation), plan.propagation.origin, per_node=True),
        _part("in flight", spans["in flight"]),
    ]


def _part(name: str, span: DurationSpan | None) -> Part:
    return Part(name, _delay(span or _ASSUMED[name]), _known(span))


def _delay(span: DurationSpan) -> Delay:
    return Delay(tuple(span.points()))


def _known(span: DurationSpan | None) -> Known:
    return "assumed" if span is None else span.origin


def bake(plan: Plan, stage: Stage) -> float:
    """Seconds of the plan from the stage's weight until its metrics are first read, or until it ends."""
    seconds = 0.0
    for index in stage.steps:
        if isinstance(plan.steps[index], Analysis):
            return seconds
        seconds += seconds_of(plan.steps[index])
    return seconds


def incidents(
    plan: Plan, stages: Sequence[Stage], rates: Sequence[Floats], nodes: int, loss_rate: float | None
) -> list[StageIncident]:
    """One a stage; `rates` are pauses a second of each sandbox that the stage exposes in production."""
    return [
        incident(stage.weight, of, parts(plan, stage), nodes=nodes, loss_rate=loss_rate)
        for stage, of in zip(stages, rates, strict=True)
    ]


def even_rates(plan: Plan, weight: float) -> Floats:
    """Of a fleet of which only its size and its pace are given: all alike, and `weight` percent of them exposed.

    Checkpoints count as pauses. The share of the rehearsed fleet that has no memfd is never punched: its rate is 0.
    """
    fleet = len(plan.sandboxes()) if plan.production is None else plan.production.sandboxes
    pace = (plan.production or plan.pacing).pauses_per_minute * (1 + checkpoints_a_pause(plan))
    rates = np.full(round(fleet * weight / 100), pace / 60 / fleet)
    rates[round(len(rates) * len(can_punch(plan)) / len(plan.sandboxes())) :] = 0.0
    return rates


def nodes_of(plan: Plan) -> int:
    """Machines that have to obey OFF in production; one where nothing says how many."""
    if plan.production is not None and plan.production.nodes is not None:
        return plan.production.nodes
    return 1 if plan.scaled is None else plan.scaled.fleet.nodes


def obeyed(plan: Plan) -> Delay:
    """From OFF at its source until the last node obeys."""
    return last_of(delay_of(plan.propagation), nodes_of(plan))


def count_words(p50: int | None, p99: int | None, any_at_all: float | None) -> str:
    """`p50 12, p99 31, any at all 98.2 %`."""
    shown = ["unknown" if each is None else f"{each:,}" for each in (p50, p99)]
    chance = "unknown" if any_at_all is None else f"{any_at_all * 100:.3g} %"
    return f"p50 {shown[0]}, p99 {shown[1]}, any at all {chance}"
