"""The steps of a rollout plan: Argo Rollouts' words for its flow, and a scenario's own for what goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AliasGenerator, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from flags.catalog import did_you_mean
from sim.expectations import Invariant
from sim.steps import Clear, Inject, Outage
from sim.strict import Strict
from sim.units import Duration, parse_percent, show

AtLeastOne = Annotated[int, Field(ge=1)]


def _weight(value: Any) -> Any:
    if isinstance(value, str):
        value = parse_percent(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise ValueError(f"expected a weight in percent, 0 to 100, got {show(value)}")
    if round(value * 1000) != value * 1000:
        raise ValueError(f"LaunchDarkly has weights in thousandths of a percent; {value:g} is finer")
    return float(value)


Weight = Annotated[float, BeforeValidator(_weight, json_schema_input_type=float | str)]
"""Percent; written as `10` or `10%`."""


class Camel(Strict):
    """A model whose file says `minimumContexts` for `minimum_contexts`."""

    model_config = ConfigDict(alias_generator=AliasGenerator(alias=to_camel), populate_by_name=False)


class SetWeight(Camel):
    """Serve the destructive variation to `weight` percent of the randomization units: a stage begins."""

    kind: Literal["setWeight"] = "setWeight"
    weight: Weight


class Wait(Camel):
    """Let the load run `for` so long, and demand that this many contexts were exposed (1 above 0 %, unless given)."""

    kind: Literal["wait"] = "wait"
    duration: Duration = Field(alias="for")
    minimum_contexts: Annotated[int, Field(ge=0)] | None = None


class Analysis(Camel):
    """Measure `metrics` (all unless named) `count` times; before each but the first the load runs for `interval`."""

    kind: Literal["analysis"] = "analysis"
    metrics: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None
    count: AtLeastOne = 1
    interval: Duration = 60.0


class KillSwitch(Camel):
    """The `percentile` of propagation must not exceed `max_propagation` seconds; once it has passed nobody punches."""

    max_propagation: Duration = 5.0
    percentile: Annotated[float, Field(gt=0, le=100)] = 99.0


class Drill(Camel):
    """Throw the kill switch, watch the load obey, and go back to the weight."""

    kind: Literal["drill"] = "drill"
    kill_switch: KillSwitch


class Assert(Camel):
    """The invariant has held so far, and was exercised."""

    kind: Literal["assert"] = "assert"
    invariant: Invariant


PlanStep = SetWeight | Wait | Analysis | Drill | Assert | Inject | Outage | Clear
PLAN_STEPS: dict[str, type[PlanStep]] = {each.model_fields["kind"].default: each for each in get_args(PlanStep)}


def _from_one_key(value: Any) -> Any:
    """`{wait: {...}}` as the fields of a Wait."""
    if isinstance(value, get_args(PlanStep)):
        return value
    if not isinstance(value, Mapping) or len(value) != 1:
        found = ", ".join(map(str, value)) if isinstance(value, Mapping) else show(value)
        raise ValueError(f"a step is one key and its settings, such as `setWeight: 10%`; found {found}")
    ((kind, body),) = value.items()
    if kind not in PLAN_STEPS:
        raise ValueError(f'unknown step "{kind}"; {did_you_mean(str(kind), PLAN_STEPS)}')
    if kind == "setWeight":
        return {"kind": kind, "weight": body}
    if not isinstance(body, Mapping):
        raise ValueError(f"{kind} takes settings; write `{kind}: {{}}` for the defaults")  # noqa: TRY004 - a finding
    if "kind" in body:
        raise ValueError(f'{kind} has no setting "kind"; remove it')
    return {**body, "kind": kind}


AnyPlanStep = Annotated[
    Annotated[PlanStep, Field(discriminator="kind")], BeforeValidator(_from_one_key, json_schema_input_type=PlanStep)
]
