"""The rollout plan file, its steps and what the command line changes."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import (
    AliasGenerator,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from engine.errors import UserError
from flags import lint
from flags.catalog import PUNCH, did_you_mean
from flags.inline import RolloutKind
from sim.files.engine_key import Engine
from sim.files.expectations import Invariant
from sim.files.flag_values import FlagKey, ServedFlags
from sim.files.fleet import Group, Node, SandboxSpec, Slug, sandbox_specs
from sim.files.metrics import MEASURES, WrittenCondition
from sim.files.propagation import Propagation
from sim.files.scenario import FlagFile, Flags, FlagSource, source_of
from sim.files.sources import ScenarioError, read_text, refuse_another_kind
from sim.files.steps import Clear, Inject, Outage
from sim.files.strict import Finding, Strict, finding, findings
from sim.files.units import Duration, format_duration, format_size, parse_duration, parse_percent, show
from sim.files.yaml import Document, Origin, Path, parse

if TYPE_CHECKING:
    from sim.files.fleet_scale import ScaledFleet

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
Limit = Annotated[int, Field(ge=-1)]
Action = Literal["abort", "wait", "continue"]


def _measure(name: str) -> str:
    if name not in MEASURES:
        raise ValueError(f"unknown metric {show(name)}; {did_you_mean(name, MEASURES)}")
    return name


class Metric(Camel):
    """One measure and what is asked of it. A limit is how many results of a kind are borne; -1 bears any number.

    With both conditions a result that meets neither is inconclusive. `on_failure` is what happens when a limit is
    passed: abort (go back to the safe variation), wait (stop at this weight, for a person), continue. A `critical`
    metric means no-go whatever happens then; a `dry_run` one is only told.
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
            raise ValueError("nothing is asked of it; add successCondition or failureCondition")
        return self


class Pacing(Camel):
    """The load: fleet-wide pauses a virtual minute, at most `concurrency` at once.

    A stretch of time becomes so many rounds of pausing and resuming everybody, `most_rounds` at most.
    """

    pauses_per_minute: Annotated[float, Field(gt=0)] = 10.0
    concurrency: Annotated[int, Field(ge=1)] = 4
    most_rounds: Annotated[int, Field(ge=1, le=100)] = 2


class Production(Camel):
    """The fleet that the plan is for; blast radii are told in its units. The rehearsed one unless given."""

    sandboxes: Annotated[int, Field(ge=1)]
    pauses_per_minute: Annotated[float, Field(gt=0)]


def _lease(value: Any) -> Any:
    return None if value == "none" else value


Lease = Annotated[Duration | None, BeforeValidator(_lease, json_schema_input_type=str)]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a plan was read, and the fleet of the file that it names."""

    path: pathlib.Path = pathlib.Path("-")
    text: str = ""
    document: Document = field(default_factory=Document)
    scaled: ScaledFleet | None = None
    fleet_file: str | None = None


class Plan(Camel):
    """One rollout plan. Only kind, name, fleet and steps are required.

    `by` is the randomization unit; `safe` the variation that a rollback serves. `time: virtual` turns hours into
    rounds of pauses; `real` waits, over the sockets of the flag source. `flags` are as a scenario has them, but for
    the flag that is rolled out, whose weight the steps set, and for the lease.
    """

    version: Literal[1] = 1
    kind: Literal["plan"]
    name: Slug
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    flag: FlagKey = PUNCH
    safe: bool = False
    by: RolloutKind = "sandbox"
    time: Literal["virtual", "real"] = "virtual"
    lease: Lease = None
    propagation: Propagation = Propagation()
    pacing: Pacing = Pacing()
    production: Production | None = None
    node: Node = Node()
    engine: Engine = Engine()
    fleet: Annotated[tuple[Group, ...], Field(strict=False, min_length=1)]
    flags: Flags = Field(default_factory=dict)
    metrics: Annotated[tuple[Metric, ...], Field(strict=False)] = ()
    steps: Annotated[tuple[AnyPlanStep, ...], Field(strict=False, min_length=1)]
    _source: Source = PrivateAttr(default_factory=Source)

    def model_post_init(self, context: Any, /) -> None:
        if isinstance(context, Source):
            self._source = context

    @property
    def path(self) -> pathlib.Path:
        """The file it was read from."""
        return self._source.path

    @property
    def source_text(self) -> str:
        """The text of that file."""
        return self._source.text

    @property
    def document(self) -> Document:
        """The file as data, with positions."""
        return self._source.document

    @property
    def scaled(self) -> ScaledFleet | None:
        """The fleet file's fleet at its scale; None where the plan has a fleet of its own."""
        return self._source.scaled

    @property
    def fleet_file(self) -> str | None:
        """The fleet file as the plan names it; None where the plan has a fleet of its own."""
        return self._source.fleet_file

    @property
    def flag_source(self) -> FlagSource:
        """Where the node has its flags from."""
        return source_of(self.flags)

    def origin(self, path: Path) -> Origin:
        """Where a part is written."""
        return self._source.document.origin(path)

    def place(self, path: Path) -> str:
        """`plan.yaml:12:5`."""
        origin = self.origin(path)
        return f"{self.path}:{origin.line}:{origin.column}"

    def sandboxes(self) -> list[SandboxSpec]:
        """Every sandbox of the fleet, in order."""
        return sandbox_specs(self.fleet)


def load_plan(path: pathlib.Path) -> Plan:
    """Read and check a plan; ScenarioError with every mistake."""
    return load_plan_text(read_text(path), path)


def load_plan_text(text: str, path: pathlib.Path) -> Plan:
    """Check the text of a plan; `path` names it in messages."""
    from sim.files.checks import plan_checks
    from sim.files.strict import Finding

    document = parse(text)
    refuse_another_kind("plan", document, path)
    found = {Finding(*each.position, "", each.message) for each in document.problems}
    plan = None
    if not found or document.data is not None:
        scaled, wrong_fleet = fleet_of(document, path.parent)
        fleet_file = document.data["fleet"] if scaled is not None else None
        if scaled is not None:
            put(document, scaled)
        found |= {*wrong_fleet, *plan_checks(document, path.parent)}
        try:
            plan = Plan.model_validate(document.data, context=Source(path, text, document, scaled, fleet_file))
        except ValidationError as error:
            found |= {each for each in findings(error, document) if not (wrong_fleet and each.path == "fleet")}
    if found or plan is None:
        raise ScenarioError("\n".join(f"{path}:{each}" for each in sorted(found)))
    if wrong := _flag_file_mistakes(plan):
        raise ScenarioError("\n".join(wrong))
    return plan


def flag_file(plan: Plan) -> pathlib.Path | None:
    """The flag file, relative to the working directory; None where there is none."""
    return plan.path.parent / plan.flags.file if isinstance(plan.flags, FlagFile) else None


def _flag_file_mistakes(plan: Plan) -> list[str]:
    file = flag_file(plan)
    if file is None:
        return []
    _, found = lint.check(read_text(file))
    return [each.text(str(file)) for each in found if each.severity == "error"]


def changed(plan: Plan, *, lease: str | None = None, mend: Sequence[str] = (), source: str | None = None) -> Plan:
    """The plan with another lease (`none`, `1s`), with weaknesses mended, or following LaunchDarkly's own flag.

    UserError for what it cannot have.
    """
    if source is not None:
        plan = _following(plan)
    if lease is not None:
        plan = _with_lease(plan, lease)
    return _mended(plan, mend) if mend else plan


def _following(plan: Plan) -> Plan:
    """The real flag, in real time; an outage of LaunchDarkly is not ours to make."""
    if wrong := [index for index, step in enumerate(plan.steps) if isinstance(step, Outage)]:
        place = plan.place(("steps", wrong[0]))
        raise UserError(f"{place}: error: LaunchDarkly is not ours to break; remove the outage, or --source")
    return plan.model_copy(update={"flags": ServedFlags(source="launchdarkly"), "time": "real"})


def _with_lease(plan: Plan, lease: str) -> Plan:
    try:
        seconds = None if lease == "none" else parse_duration(lease)
    except ValueError as error:
        raise UserError(f"--lease: {error}, or none") from None
    if seconds is not None and plan.flag_source not in {"relay", "launchdarkly"}:
        raise UserError(f"--lease: {plan.path} has no flag service whose heartbeat a lease could watch; use none")
    return plan.model_copy(update={"lease": seconds})


def _mended(plan: Plan, names: Sequence[str]) -> Plan:
    known = plan.engine
    said = {**known.model_dump(), "mended": [*known.mended, *names]}
    try:
        engine = Engine.model_validate(said)
    except ValidationError as error:
        raise UserError(f"--mend: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    return plan.model_copy(update={"engine": engine})


def fleet_of(document: Document, folder: pathlib.Path) -> tuple[ScaledFleet | None, list[Finding]]:
    """The fleet of the file that a plan names, at its scale; None without one. Its mistakes are told as they are."""
    from sim.files.fleet_file import load
    from sim.files.fleet_scale import at_scale

    data = document.data
    if not isinstance(data, dict) or not isinstance(data.get("fleet"), str):
        return None, []
    try:
        return at_scale(load(folder / data["fleet"])), []
    except UserError as error:
        lines = str(error).splitlines()
        return None, [finding(document, ("fleet",), f"its file is not sound: {line}") for line in lines]


def put(document: Document, scaled: ScaledFleet) -> None:
    """What the fleet file says, in its place in the plan; what the plan says itself stays."""
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
    workload = {"dirty": f"{group.workload.dirty:g}%", "pattern": group.workload.pattern}
    names = {"template": group.template, "team": group.team, "cluster": group.cluster}
    return {**made, **names, "workload": workload}


def _said(scaled: ScaledFleet) -> dict[str, Any]:
    """What a plan may say too: production's pauses are those of the day's peak, and so are the rehearsed node's."""
    fleet, node = scaled.fleet, scaled.node
    pauses = sum(each.count * each.pauses_per_hour.top for each in fleet.groups) / 60
    share = pauses * scaled.sandboxes / fleet.count
    said: dict[str, Any] = {
        "node": {"memory": format_size(node.memory), "cache": node.cache},
        "production": {"sandboxes": fleet.count, "pausesPerMinute": pauses},
        "pacing": {"pausesPerMinute": share, "concurrency": fleet.node.concurrency},
    }
    if fleet.propagation.origin != "assumed":
        written = fleet.propagation.model_dump(exclude_none=True)
        said["propagation"] = {
            key: [format_duration(v) for v in value] if isinstance(value, tuple | list) else format_duration(value)
            for key, value in written.items()
        }
    return said
