"""The rollout plan file, its steps and what the command line changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    AliasGenerator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from engine.errors import UserError
from flags.catalog import PUNCH, did_you_mean
from flags.context import DEFAULTS, ORIGINAL
from flags.document import DocumentError
from flags.inline import RolloutKind
from sim.files import fleet_file
from sim.files.checks import plan_checks
from sim.files.demand import Accepted, Demand, Incident
from sim.files.engine_key import Engine
from sim.files.expectations import Invariant
from sim.files.flag_values import NO_LEASE, FlagKey, Flags, Lease, ServedFlags, lease_seconds
from sim.files.fleet import ContextsKey, Group, NodeSpec, Slug
from sim.files.fleet_file import Scale
from sim.files.fleet_scale import ScaledFleet, at_scale
from sim.files.fleet_table import PRODUCTION, SUFFIXES, SandboxTable, read_table
from sim.files.loader import Drilled, Expanded, Form
from sim.files.metrics import MEASURES, WrittenCondition
from sim.files.prometheus_query import OrAsked
from sim.files.propagation import Propagation
from sim.files.readers import Readers
from sim.files.sources import Source
from sim.files.steps import Clear, Inject, Outage
from sim.files.strict import Strict, mistakes, one_key
from sim.files.units import Duration, format_duration, format_size, parse_duration, parse_percent, show
from sim.files.user_table import as_group, production, user_sandbox
from sim.files.yaml import Document

AtLeastOne = Annotated[int, Field(ge=1, le=1_000_000)]


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
    """Serve the destructive variation to `weight` percent of the randomization units. A stage begins.

    For a flag in a flag file it edits the default rule, or the rule with that id; the rest of the flag stays.
    """

    kind: Literal["setWeight"] = "setWeight"
    weight: Weight
    rule: Annotated[str, Field(strict=True, min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_settings(cls, value: Any) -> Any:
        """`setWeight: {weight: 5, rule: ID}` as `setWeight: 5` is written."""
        written = value.get("weight") if isinstance(value, Mapping) else None
        if not isinstance(written, Mapping):
            return value
        return {**{key: each for key, each in written.items() if key != "kind"}, "kind": "setWeight"}


class PlanWait(Camel):
    """Let the load run for `for`, then require that `minimumContexts` were exposed (by default 1 if the weight is not
    0)."""

    kind: Literal["wait"] = "wait"
    duration: Duration = Field(alias="for")
    minimum_contexts: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = None


class Analysis(Camel):
    """Measure `metrics` (all unless named) `count` times; the load runs for `interval` between two measurements."""

    kind: Literal["analysis"] = "analysis"
    metrics: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None
    count: AtLeastOne = 1
    interval: Duration = 60.0


class KillSwitch(Camel):
    """The `percentile` of propagation is at most `max_propagation` seconds; after that time nothing may punch."""

    max_propagation: Duration = 5.0
    percentile: Annotated[float, Field(gt=0, le=100)] = 99.0


class KillSwitchDrill(Camel):
    """Throw the kill switch, check that the load obeys it, and restore the weight."""

    kind: Literal["drill"] = "drill"
    kill_switch: KillSwitch


class Assert(Camel):
    """The invariant has held so far, and was exercised."""

    kind: Literal["assert"] = "assert"
    invariant: Invariant


class Approve(Camel):
    """Stop here until a person has read the page; `rehearse --continue RUN` goes on with the next stage."""

    kind: Literal["approve"] = "approve"


PlanStep = SetWeight | PlanWait | Analysis | KillSwitchDrill | Assert | Approve | Inject | Outage | Clear
PLAN_STEPS: dict[str, type[PlanStep]] = {each.model_fields["kind"].default: each for each in get_args(PlanStep)}


PLAN_BODIES = {"setWeight": "weight"}
"""Steps that are written as one value, and the field that holds it."""
AnyPlanStep = Annotated[
    Annotated[PlanStep, Field(discriminator="kind")], one_key(PLAN_STEPS, PLAN_BODIES, "setWeight: 10%")
]
Limit = Annotated[int, Field(ge=-1)]
Action = Literal["abort", "wait", "continue"]


def _measure(name: str) -> str:
    if name not in MEASURES:
        raise ValueError(f"unknown metric {show(name)}; {did_you_mean(name, MEASURES)}")
    return name


class Metric(Camel):
    """One measure with its conditions. A limit is how many results of its kind are tolerated; -1: any number.

    With both conditions a result that meets neither is inconclusive. `onFailure` is what to do when a limit is
    exceeded: abort (go back to the safe variation), wait (stop at this weight, for a person), continue. A failed
    `critical` metric always means no-go; a `dryRun` metric is only reported.
    """

    name: Annotated[str, Field(strict=True)]
    success_condition: WrittenCondition | None = None
    failure_condition: WrittenCondition | None = None
    failure_limit: Limit = 0
    consecutive_error_limit: Limit = 4
    inconclusive_limit: Limit = 0
    on_failure: Action = "abort"
    critical: bool = False
    dry_run: bool = False

    _is_known = field_validator("name")(_measure)

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if self.success_condition is None and self.failure_condition is None:
            raise ValueError("the metric has no condition; add successCondition or failureCondition")
        return self


class Pacing(Camel):
    """The load: fleet-wide pauses a virtual minute, at most `concurrency` at once, or `burst` where that is given.

    A stretch of time becomes rounds in which every sandbox is paused and resumed, at most `mostRounds`. Checkpoints
    come with them: by default as many for each pause as in production, in a round at most four of a sandbox.
    """

    pauses_per_minute: Annotated[float, Field(gt=0), OrAsked()] = 10.0
    checkpoints_per_minute: Annotated[float, Field(ge=0), OrAsked()] | None = None
    concurrency: AtLeastOne = 4
    burst: AtLeastOne | None = None
    most_rounds: Annotated[int, Field(ge=1, le=100)] = 2

    @property
    def at_once(self) -> int:
        """How many pauses may be in flight."""
        return self.concurrency if self.burst is None else self.burst


class Production(Camel):
    """The production fleet that the plan is for; results are also given in its units. By default the rehearsed
    fleet."""

    sandboxes: Annotated[int, Field(ge=1, le=1_000_000_000)]
    pauses_per_minute: Annotated[float, Field(gt=0), OrAsked()]
    checkpoints_per_minute: Annotated[float, Field(ge=0), OrAsked()] = 0.0
    nodes: AtLeastOne | None = None


@dataclass(frozen=True, slots=True)
class _WithFleetFile(Source):
    """Of a plan that names a fleet file: that name, and the fleet at its scale."""

    fleet_file: str = ""
    scaled: ScaledFleet | None = None


@dataclass(frozen=True, slots=True)
class _WithTable(Source):
    """Of a plan that names a table of sandboxes: that name, and the table."""

    file: str = ""
    table: SandboxTable = field(default_factory=lambda: SandboxTable([]))


class Plan(Camel, Drilled):
    """One rollout plan. Only kind, name, fleet and steps are required.

    `by` is the randomization unit; `safe` the variation that a rollback serves. `time: virtual` turns hours into rounds
    of pauses; `real` waits, over the sockets of the flag source. `flags` are as in a scenario, except for the lease and
    for the flag that is rolled out, whose weight the steps set. Of a table of sandboxes a `sample` is rehearsed at this
    `scale` of its memory, on so many simulated `nodes`, each with `node.memory` as its budget. `salvageArm` runs it a
    third time, with `on_copy_failure: salvage`.
    """

    version: Literal[1] = 1
    kind: Literal["plan"]
    name: Slug
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    flag: FlagKey = PUNCH
    safe: bool = False
    by: RolloutKind = "sandbox"
    time: Literal["virtual", "real"] = "virtual"
    written_lease: Lease = Field(default=None, alias="lease")
    propagation: Annotated[Propagation, OrAsked()] = Propagation()
    pacing: Pacing = Pacing()
    production: Production | None = None
    demand: Demand | None = None
    incident: Incident = Incident()
    accept: Accepted = Field(default_factory=dict)
    turn_on: bool = False
    salvage_arm: bool = False
    sample: Annotated[int, Field(ge=1, le=10_000)] = 120
    scale: Scale = Fraction(1)
    nodes: Annotated[int, Field(ge=1, le=1000)] | None = None
    takes_flags_as_they_are: ClassVar[bool] = True
    node: NodeSpec = NodeSpec()
    engine: Engine = Engine()
    fleet: Annotated[tuple[Group, ...], Field(strict=False, min_length=1)]
    flags: Flags = Field(default_factory=dict)
    contexts: ContextsKey = ORIGINAL
    readers: Readers = Readers()
    metrics: Annotated[tuple[Metric, ...], Field(strict=False)] = ()
    steps: Annotated[tuple[AnyPlanStep, ...], Field(strict=False, min_length=1)]

    @property
    def scaled(self) -> ScaledFleet | None:
        """The fleet file's fleet at its scale; None where the plan has a fleet of its own."""
        return self._source.scaled if isinstance(self._source, _WithFleetFile) else None

    @property
    def fleet_file(self) -> str | None:
        """The fleet file as the plan names it; None where the plan has a fleet of its own."""
        if isinstance(self._source, _WithTable):
            return self._source.file
        return self._source.fleet_file if isinstance(self._source, _WithFleetFile) else None

    @property
    def lease(self) -> float | None:
        """Seconds for which the last heartbeat allows punching; None if there is no lease."""
        return lease_seconds(self.written_lease, self.flag_source)


def changed(plan: Plan, *, lease: str | None = None, mend: Sequence[str] = (), source: str | None = None) -> Plan:
    """The plan with another lease (`none`, `1s`), with weaknesses mended, or following LaunchDarkly's own flag.

    UserError if the plan cannot have it.
    """
    if source is not None:
        plan = _following(plan)
    if lease is not None:
        plan = _with_lease(plan, lease)
    return _mended(plan, mend) if mend else plan


def _following(plan: Plan) -> Plan:
    """The plan with the real flag, in real time; it cannot have an outage of LaunchDarkly."""
    if wrong := [index for index, step in enumerate(plan.steps) if isinstance(step, Outage)]:
        what = "a plan cannot break LaunchDarkly itself; remove the outage, or --source"
        raise DocumentError(plan.path, [plan.document.mistake(("steps", wrong[0]), what)])
    return plan.model_copy(update={"flags": ServedFlags(source="launchdarkly"), "time": "real"})


def _with_lease(plan: Plan, lease: str) -> Plan:
    try:
        seconds = NO_LEASE if lease == "none" else parse_duration(lease)
    except ValueError as error:
        raise UserError(f"--lease: {error}, or none") from None
    if seconds and plan.flag_source == "inline":
        raise UserError(f"--lease: {plan.path} has no flag service whose heartbeat a lease could watch; use none")
    return plan.model_copy(update={"written_lease": seconds})


def _mended(plan: Plan, names: Sequence[str]) -> Plan:
    known = plan.engine
    said = {**known.model_dump(), "mended": [*known.mended, *names]}
    try:
        engine = Engine.model_validate(said)
    except ValidationError as error:
        raise UserError(f"--mend: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    return plan.model_copy(update={"engine": engine})


def _with_fleet(source: Source, _given: Mapping[str, str]) -> Expanded:
    """The plan with the fleet of the file that it names, at its scale; the mistakes of that file are the plan's."""
    document = source.document
    file = document.data.get("fleet") if isinstance(document.data, dict) else None
    if not isinstance(file, str):
        return [source], []
    if file.endswith(SUFFIXES):
        return _with_table(source, file)
    try:
        scaled = at_scale(fleet_file.load(source.path.parent / file))
    except DocumentError as error:
        wrong = [document.mistake(("fleet",), f"the fleet file has a mistake: {each}") for each in error.mistakes]
        return [replace(source, broken=frozenset({document.origin(("fleet",))}))], wrong
    _put(document, scaled)
    document.asked.extend(scaled.fleet.document.asked)
    return [_WithFleetFile(source.path, source.text, document, source.kind, fleet_file=file, scaled=scaled)], []


def _put(document: Document, scaled: ScaledFleet) -> None:
    """The plan's document with the fleet file's values; values of the plan itself win."""
    said, data = _said(scaled), document.data
    if isinstance(data.get("pacing"), dict):
        said["pacing"] |= data["pacing"]
        data.pop("pacing")
    data.update({key: value for key, value in said.items() if key not in data})
    data["fleet"] = [_group(each) for each in scaled.groups]


def _group(group: Group) -> dict[str, Any]:
    made: dict[str, Any] = {"name": group.name, "count": group.count, "memory": format_size(group.memory)}
    made["page_size"] = format_size(group.page_size)
    if group.block_size is not None:
        made["block_size"] = format_size(group.block_size)
    if group.guest != "process":
        made["guest"] = group.guest
    workload = {"dirty": f"{group.workload.dirty:g}%", "pattern": group.workload.pattern}
    names = {"template": group.template, "team": group.team, "cluster": group.cluster}
    if group.firecracker_version != DEFAULTS.firecracker_version:
        names["firecracker_version"] = group.firecracker_version
    return {**made, **names, "workload": workload}


def _said(scaled: ScaledFleet) -> dict[str, Any]:
    """The fleet file's values as a plan writes them: pauses are those of the day's peak, in production and
    rehearsal."""
    fleet, node = scaled.fleet, scaled.node
    pauses = sum(each.count * each.pauses_per_hour.top for each in fleet.groups) / 60
    share = pauses * scaled.sandboxes / fleet.count
    said: dict[str, Any] = {
        "node": {"memory": format_size(node.memory), "cache": node.cache},
        "production": {"sandboxes": fleet.count, "pausesPerMinute": pauses},
        "pacing": {"pausesPerMinute": share, "concurrency": fleet.node.concurrency},
    }
    if fleet.node.burst is not None:
        said["pacing"]["burst"] = fleet.node.burst
    if checkpoints := sum(each.count * each.checkpoints_per_hour for each in fleet.groups) / 60:
        said["production"]["checkpointsPerMinute"] = checkpoints
    if "contexts" in fleet.model_fields_set:
        said["contexts"] = fleet.contexts.written
    if fleet.propagation.origin != "assumed":
        written = fleet.propagation.model_dump(exclude_none=True)
        said["propagation"] = {
            key: [format_duration(v) for v in value] if isinstance(value, tuple | list) else format_duration(value)
            for key, value in written.items()
        }
    return said


def checkpoints_a_pause(plan: Plan) -> float:
    """How many checkpoints there are for each pause: of the pacing, else of production."""
    if plan.pacing.checkpoints_per_minute is not None:
        return plan.pacing.checkpoints_per_minute / plan.pacing.pauses_per_minute
    of = plan.production
    return 0.0 if of is None else of.checkpoints_per_minute / of.pauses_per_minute


def table_of(plan: Plan) -> SandboxTable | None:
    """The table that the plan names as its fleet; None if it names none."""
    source = plan._source  # noqa: SLF001 - the plan's own module
    return source.table if isinstance(source, _WithTable) else None


def with_groups(plan: Plan, groups: Sequence[Mapping[str, Any]], node: Mapping[str, Any]) -> Plan:
    """The same plan over these groups on this node; DocumentError if they do not fit."""
    source = plan._source  # noqa: SLF001 - the plan's own module
    data = {**source.document.data, "fleet": [dict(each) for each in groups]}
    data["node"] = {**(data.get("node") or {}), **node}
    document = replace(source.document, data=data)
    try:
        return Plan.model_validate(data, context=replace(source, document=document))
    except ValidationError as error:
        raise DocumentError(plan.path, mistakes(error, document)) from None


def _with_table(source: Source, file: str) -> Expanded:
    """A plan over a table: a sample of its rows, until it is known which sandboxes are exposed."""
    document = source.document
    try:
        table = read_table(source.path.parent / file, PRODUCTION)
    except DocumentError as error:
        return [replace(source, broken=frozenset({document.origin(("fleet",))}))], error.mistakes
    data, rows = document.data, [user_sandbox(each) for each in table.rows]
    size = data.get("sample", 120)
    step = max(1, len(rows) // size) if isinstance(size, int) and size > 0 else len(rows)
    data["fleet"] = [as_group(each, Fraction(1, 1 << 20)) for each in rows[::step]]
    data.setdefault("production", production(rows))
    return [_WithTable(source.path, source.text, document, source.kind, file=file, table=table)], []


PLAN = Form("plan", Plan, expand=_with_fleet, check=plan_checks, asks=True)
load_plan, load_plan_text = PLAN.load, PLAN.load_text
