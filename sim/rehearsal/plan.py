"""The plan file: its strict schema, read with every mistake at its line and column."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, field_validator, model_validator

from flags import lint
from flags.catalog import PUNCH, did_you_mean
from flags.inline import RolloutKind
from sim.flag_values import FlagKey
from sim.fleet_spec import Group, Node, SandboxSpec, Slug, sandbox_specs
from sim.mutants.spec import Engine
from sim.rehearsal.conditions import WrittenCondition
from sim.rehearsal.measures import MEASURES
from sim.rehearsal.plan_steps import AnyPlanStep, Camel
from sim.rehearsal.propagation import Propagation
from sim.scenario import FlagFile, Flags, FlagSource, source_of
from sim.scenario_sources import ScenarioError, read_text, refuse_another_kind
from sim.strict import findings
from sim.units import Duration, show
from sim.yaml_positions import Document, Origin, Path, parse

if TYPE_CHECKING:
    from sim.fleet_scale import ScaledFleet

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
    from sim.rehearsal.plan_checks import plan_checks
    from sim.rehearsal.plan_fleet import fleet_of, put
    from sim.strict import Finding

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
