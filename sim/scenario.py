"""The scenario file: its strict schema, read with every mistake at its line and column."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from engine.errors import UserError
from flags import lint
from flags.catalog import did_you_mean
from flags.inline import InlineValue
from sim.expectations import (
    AnyExpectation,
    Expectation,
    InvariantExpectation,
    MetricExpectation,
    PauseFilter,
    ViolationExpectation,
)
from sim.flag_values import SETTINGS, FlagValues, ServedFlags, served
from sim.fleet_spec import Group, Node, SandboxSpec, Slug, Workload, sandbox_specs
from sim.scenario_checks import cross_checks
from sim.steps import (
    BODIES,
    STEPS,
    AnyStep,
    Checkpoint,
    Clear,
    Comparison,
    Crash,
    CrashPoint,
    Expect,
    FlagStep,
    Inject,
    Kill,
    Outage,
    Pause,
    Restart,
    Resume,
    Selection,
    StateExpectation,
    Step,
    Tick,
    Wait,
)
from sim.strict import Finding, Strict, findings
from sim.yaml_positions import Document, Path, Position, parse

__all__ = [
    "Checkpoint",
    "Clear",
    "Comparison",
    "Crash",
    "CrashPoint",
    "Expect",
    "Expectation",
    "FlagFile",
    "FlagStep",
    "Group",
    "Inject",
    "InvariantExpectation",
    "Kill",
    "MetricExpectation",
    "Node",
    "Outage",
    "Pause",
    "PauseFilter",
    "Restart",
    "Resume",
    "SandboxSpec",
    "Scenario",
    "ScenarioError",
    "Selection",
    "ServedFlags",
    "StateExpectation",
    "Step",
    "Tick",
    "ViolationExpectation",
    "Wait",
    "Workload",
    "discover",
    "json_schema",
    "load",
    "load_text",
]


class ScenarioError(UserError):
    """A scenario that cannot be run: one `file:line:column: error: path: message` line a mistake."""


@dataclass(frozen=True, slots=True)
class _Source:
    path: pathlib.Path = pathlib.Path("-")
    text: str = ""
    document: Document = field(default_factory=Document)


class FlagFile(Strict):
    """A file in LaunchDarkly's JSON form, beside the scenario; it is watched while the scenario runs."""

    file: str

    @field_validator("file")
    @classmethod
    def _is_there(cls, file: str, info: ValidationInfo) -> str:
        if isinstance(info.context, _Source) and not (info.context.path.parent / file).is_file():
            raise ValueError(f'no file "{file}" beside the scenario; the path is relative to the scenario\'s folder')
        return file


_INLINE_FLAGS: TypeAdapter[Mapping[str, Any]] = TypeAdapter(FlagValues)


def _flags(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, FlagFile | ServedFlags):
        return value
    if isinstance(value, Mapping) and "file" in value:
        return FlagFile.model_validate(value, context=info.context)
    if isinstance(value, Mapping) and SETTINGS & value.keys():
        return ServedFlags.model_validate(served(value), context=info.context)
    return _INLINE_FLAGS.validate_python(value, strict=True, context=info.context)


def _mutant(name: str) -> str:
    from sim.mutants import NAMES

    if name not in NAMES:
        raise ValueError(f'unknown mutant "{name}"; {did_you_mean(name, NAMES)}')
    return name


class Engine(Strict):
    """A wrong engine on purpose: the scenario must catch it."""

    mutant: Annotated[str, AfterValidator(_mutant)] | None = None


_FlagForms = FlagFile | ServedFlags | FlagValues
Flags = Annotated[_FlagForms, PlainValidator(_flags, json_schema_input_type=_FlagForms)]
Listed = Field(strict=False)  # a document's list becomes a tuple
Requirement = Literal["hugetlb", "cgroup", "write_protect_scan", "root"]


class Scenario(Strict):
    """One scenario. Only name, fleet and steps are required."""

    version: Literal[1] = 1
    name: Slug
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    node: Node = Node()
    engine: Engine = Engine()
    requires: Annotated[tuple[Requirement, ...], Listed] = ()
    fleet: Annotated[tuple[Group, ...], Field(strict=False, min_length=1)]
    flags: Flags = Field(default_factory=dict)
    steps: Annotated[tuple[AnyStep, ...], Field(strict=False, min_length=1)]
    expect: Annotated[tuple[AnyExpectation, ...], Listed] = ()
    _source: _Source = PrivateAttr(default_factory=_Source)

    def model_post_init(self, context: Any, /) -> None:
        if isinstance(context, _Source):
            self._source = context

    @property
    def path(self) -> pathlib.Path:
        """The file it was read from; `-` for one made in code."""
        return self._source.path

    @property
    def source_text(self) -> str:
        """The file's text."""
        return self._source.text

    @property
    def flag_file(self) -> pathlib.Path | None:
        """The flag file, relative to the working directory; None where the flags are inline."""
        return self.path.parent / self.flags.file if isinstance(self.flags, FlagFile) else None

    @property
    def flag_source(self) -> Literal["file", "inline", "relay", "launchdarkly"]:
        """Where the node has its flags from."""
        if isinstance(self.flags, FlagFile):
            return "file"
        return self.flags.source if isinstance(self.flags, ServedFlags) else "inline"

    @property
    def flag_values(self) -> Mapping[str, InlineValue]:
        """The values that the scenario itself gives."""
        if isinstance(self.flags, FlagFile):
            return {}
        return self.flags.values if isinstance(self.flags, ServedFlags) else self.flags

    @property
    def claims_digest(self) -> bool:
        """False where a pause is not waited for: it races with what follows, so the order of events is not promised."""
        return all(each.until == "settled" for each in self.steps if isinstance(each, Pause))

    def where(self, path: Path) -> Position:
        """1-based (line, column) of a part, such as `("steps", 3)` or `("expect", 0, "max")`; else of its parent."""
        return self._source.document.where(path)

    def sandboxes(self) -> list[SandboxSpec]:
        """Every sandbox of the fleet, in order."""
        return sandbox_specs(self.fleet)


def load(path: pathlib.Path) -> Scenario:
    """Read and check one scenario file; ScenarioError with every mistake."""
    return load_text(_read(path), path)


def load_text(text: str, path: pathlib.Path) -> Scenario:
    """Check the text of a scenario; `path` names it in messages and is where its flag file is looked for."""
    document = parse(text)
    found = [Finding(*problem.position, "", problem.message) for problem in document.problems]
    if document.data is None and found:  # its syntax is broken: nothing else can be said
        raise _mistakes(path, found)
    found += cross_checks(document)
    try:
        scenario = Scenario.model_validate(document.data, context=_Source(path, text, document))
    except ValidationError as error:
        raise _mistakes(path, [*found, *findings(error, document)]) from None
    if found:
        raise _mistakes(path, found)
    _check_flag_file(scenario)
    return scenario


def _mistakes(path: pathlib.Path, found: Iterable[Finding]) -> ScenarioError:
    return ScenarioError("\n".join(f"{path}:{finding}" for finding in sorted(set(found))))


def _check_flag_file(scenario: Scenario) -> None:
    if scenario.flag_file is None:
        return
    _, found = lint.check(_read(scenario.flag_file))
    errors = [finding.text(str(scenario.flag_file)) for finding in found if finding.severity == "error"]
    if errors:
        raise ScenarioError("\n".join(errors))


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ScenarioError(f"{path}:1:1: error: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}:1:1: error: not UTF-8 at byte {error.start}; save it as UTF-8") from None


def discover(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """The scenario files meant by `paths`: files as they are, folders by their `*.yaml` that are no plan, sorted.

    UserError for a path that does not exist.
    """
    found: dict[pathlib.Path, None] = {}
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        found.update(dict.fromkeys(_scenarios_in(path) if path.is_dir() else [path]))
    return list(found)


def _scenarios_in(folder: pathlib.Path) -> list[pathlib.Path]:
    files = (path for path in sorted(folder.glob("*.yaml")) if not path.name.startswith("."))
    return [path for path in files if path.is_file() and not _is_plan(path)]


def _is_plan(path: pathlib.Path) -> bool:
    data = parse(path.read_text(encoding="utf-8-sig", errors="replace")).data
    return isinstance(data, dict) and data.get("kind") == "plan"


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors; sizes, shares and durations are strings with a pattern."""
    schema = Scenario.model_json_schema()
    forms = [_step_form(kind, schema["$defs"]) for kind in STEPS]
    schema["properties"]["steps"]["items"] = {"oneOf": forms}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _step_form(kind: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """A step as it is written: one key and its settings."""
    name = STEPS[kind].__name__
    definitions[name]["properties"].pop("kind")
    body = {"$ref": f"#/$defs/{name}"}
    if kind in BODIES:
        body = definitions.pop(name)["properties"][BODIES[kind]]
    return {"type": "object", "properties": {kind: body}, "required": [kind], "additionalProperties": False}
