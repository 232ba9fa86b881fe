"""The scenario file: its strict schema, read with every mistake at its line and column."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
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
from flags.context import ORIGINAL
from flags.inline import InlineValue
from sim.files.checks import cross_checks
from sim.files.engine_key import Engine
from sim.files.expectations import (
    AnyExpectation,
)
from sim.files.flag_values import SETTINGS, FlagValues, Lease, ServedFlags, lease_seconds, served
from sim.files.fleet import ContextsKey, Group, Node, SandboxSpec, Slug, sandbox_specs
from sim.files.sources import ScenarioError, read_source, read_text, refuse_another_kind
from sim.files.steps import (
    AnyStep,
    Pause,
)
from sim.files.strict import Finding, Strict, findings
from sim.files.swarm import Swarm, check_memory
from sim.files.variables import UNRESOLVED, Draft, Matrix, Scalar, Variables, expand, title
from sim.files.yaml import Document, Origin, Path, Position, parse, scenario_text


@dataclass(frozen=True, slots=True)
class _Source:
    path: pathlib.Path = pathlib.Path("-")
    text: str = ""
    document: Document = field(default_factory=Document)
    title: str | None = None
    chosen: Mapping[str, Scalar] = field(default_factory=dict)
    variables: Mapping[str, Scalar] = field(default_factory=dict)


class FlagFile(Strict):
    """A file in LaunchDarkly's JSON form, beside the scenario; it is watched while the scenario runs.

    Nothing punches where it was not read whole for the time of its `lease`, 5 s unless given. A flag with a mistake
    that punches more than anybody wrote serves its safe value, unless `obey_unsafe`.
    """

    file: str
    lease: Lease = None
    obey_unsafe: bool = False

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


_FlagForms = FlagFile | ServedFlags | FlagValues
Flags = Annotated[_FlagForms, PlainValidator(_flags, json_schema_input_type=_FlagForms)]
Listed = Field(strict=False)  # a document's list becomes a tuple
Requirement = Literal["hugetlb", "cgroup", "write_protect_scan", "root"]
FlagSource = Literal["file", "inline", "relay", "launchdarkly"]


def source_of(flags: _FlagForms) -> FlagSource:
    """Where a node has such flags from."""
    if isinstance(flags, FlagFile):
        return "file"
    return flags.source if isinstance(flags, ServedFlags) else "inline"


class Scenario(Strict):
    """One scenario. Only name, fleet and steps are required.

    `extends`, `vars` and `matrix` are as the file has them; all else is what they came to for this one scenario.
    """

    version: Literal[1] = 1
    name: Slug
    extends: str | None = None
    vars: Variables = Field(default_factory=dict)
    matrix: Matrix = Matrix()
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    node: Node = Node()
    engine: Engine = Engine()
    requires: Annotated[tuple[Requirement, ...], Listed] = ()
    fleet: Annotated[tuple[Group, ...], Field(strict=False, min_length=1)]
    flags: Flags = Field(default_factory=dict)
    contexts: ContextsKey = ORIGINAL
    steps: Annotated[tuple[AnyStep, ...], Field(strict=False, min_length=1)]
    expect: Annotated[tuple[AnyExpectation, ...], Listed] = ()
    swarm: Swarm | None = None
    _source: _Source = PrivateAttr(default_factory=_Source)

    @field_validator("swarm")
    @classmethod
    def _fits_the_node(cls, swarm: Swarm | None, info: ValidationInfo) -> Swarm | None:
        if swarm is not None and {"fleet", "node"} <= info.data.keys():
            check_memory(swarm, info.data["fleet"], info.data["node"])
        return swarm

    def model_post_init(self, context: Any, /) -> None:
        if isinstance(context, _Source):
            self._source = context

    @property
    def path(self) -> pathlib.Path:
        """The file it was read from; `-` for one made in code."""
        return self._source.path

    @property
    def source_text(self) -> str:
        """The file's text; where it extends, has a matrix or refers to anything, the text of what that came to."""
        return self._source.text

    @property
    def title(self) -> str:
        """Its name for people, with what its matrix chose: `cache[punch=0%,cache=disk]`."""
        return self._source.title or self.name

    @property
    def chosen(self) -> Mapping[str, Scalar]:
        """What the matrix chose for this scenario, by name."""
        return self._source.chosen

    @property
    def variables(self) -> Mapping[str, Scalar]:
        """The variables that it uses, with their values."""
        return self._source.variables

    @property
    def flag_file(self) -> pathlib.Path | None:
        """The flag file, relative to the working directory; None where the flags are inline."""
        return self.path.parent / self.flags.file if isinstance(self.flags, FlagFile) else None

    @property
    def flag_source(self) -> FlagSource:
        """Where the node has its flags from."""
        return source_of(self.flags)

    @property
    def lease(self) -> float | None:
        """Seconds for which news of the flags is good; None where there is no lease."""
        given = None if isinstance(self.flags, Mapping) else self.flags.lease
        return lease_seconds(given, self.flag_source)

    @property
    def obeys_unsafe(self) -> bool:
        """True where a flag with a dangerous mistake is obeyed, as in production."""
        return not isinstance(self.flags, Mapping) and self.flags.obey_unsafe

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

    def origin(self, path: Path) -> Origin:
        """The same with the file that says it, where that is one which this scenario extends."""
        return self._source.document.origin(path)

    def sandboxes(self) -> list[SandboxSpec]:
        """Every sandbox of the fleet, in order."""
        return sandbox_specs(self.fleet)


def load(path: pathlib.Path) -> Scenario:
    """Read and check a file of one scenario; ScenarioError with every mistake."""
    return load_text(read_text(path), path)


def load_text(text: str, path: pathlib.Path) -> Scenario:
    """Check the text of one scenario; `path` names it in messages, and names in it start at its folder."""
    made = _scenarios(text, path, {})
    if len(made) > 1:
        line, column = made[0].where(("matrix",))
        what = f"it stands for {len(made)} scenarios, here can be only one; run it, and take one's scenario.yaml"
        raise ScenarioError(f"{path}:{line}:{column}: error: matrix: {what} from its run folder")
    return made[0]


def from_document(document: Document, text: str, path: pathlib.Path) -> Scenario:
    """The scenario that a sound document of known positions stands for; ValidationError where it is not sound.

    `text` says the same; names in it start at the folder of `path`.
    """
    return Scenario.model_validate(document.data, context=_Source(path, text, document))


def load_all(path: pathlib.Path, given: Mapping[str, str] | None = None) -> list[Scenario]:
    """Every scenario of a file, one a combination of its matrix; ScenarioError with every mistake.

    `given` are values for `vars` as the command line has them; names that the file does not declare are passed over.
    """
    return _scenarios(read_text(path), path, given or {})


def _scenarios(text: str, path: pathlib.Path, given: Mapping[str, str]) -> list[Scenario]:
    source = read_source(text, path)
    if not source.readable:
        raise _mistakes(path, source.found)
    refuse_another_kind("scenario", source.document, path)
    drafts, mistakes = expand(source.document, given)
    found, made = {*source.found, *mistakes}, []
    for draft in drafts:
        scenario, wrong = _scenario(draft, text, path)
        found.update(wrong)
        made += [scenario] if scenario is not None else []
    if found:
        raise _mistakes(path, found)
    if wrong_flags := dict.fromkeys(line for each in made for line in _flag_file_mistakes(each)):
        raise ScenarioError("\n".join(wrong_flags))
    return made


def _scenario(draft: Draft, text: str, path: pathlib.Path) -> tuple[Scenario | None, set[Finding]]:
    """The scenario of a draft, and what is wrong with it but for what its broken references entail."""
    document, data = draft.resolved.document, draft.resolved.document.data
    if isinstance(data, dict) and UNRESOLVED & data.keys():
        text = _explicit_text(draft, path)
    found, scenario = cross_checks(document), None
    try:
        called = title(str(data["name"]), draft.chosen) if draft.chosen and "name" in data else None
        source = _Source(path, text, document, called, *_values(draft))
        scenario = Scenario.model_validate(data, context=source).model_copy(update={"name": draft.slug})
    except ValidationError as error:
        found = [*found, *findings(error, document)]
    return scenario, {each for each in found if Origin(each.line, each.column, each.file) not in draft.resolved.broken}


def _values(draft: Draft) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
    """What the matrix chose, and the variables that are in use."""
    chosen = {name.partition(".")[2]: each.value for name, each in draft.chosen.items()}
    used = [name for name in draft.values if name in draft.resolved.used and name not in draft.chosen]
    return chosen, {name.partition(".")[2]: draft.values[name].value for name in used}


def _explicit_text(draft: Draft, path: pathlib.Path) -> str:
    data = draft.resolved.document.data | {"name": draft.slug}
    explicit = {key: data[key] for key in [*Scenario.model_fields, *data] if key in data and key not in UNRESOLVED}
    used = {name: each.value for name, each in draft.values.items() if name in draft.resolved.used}
    made = ", ".join(f"{name.partition('.')[2]} = {value}" for name, value in used.items())
    return scenario_text(explicit, f"What {path.name} came to" + (f" with {made}." if made else "."))


def _mistakes(path: pathlib.Path, found: Iterable[Finding]) -> ScenarioError:
    """The scenario's own mistakes first, then those of each file that it extends."""
    in_order = sorted(set(found), key=lambda each: (each.file, each))
    return ScenarioError("\n".join(f"{each.file or path}:{each}" for each in in_order))


def _flag_file_mistakes(scenario: Scenario) -> list[str]:
    if scenario.flag_file is None:
        return []
    _, found = lint.check(read_text(scenario.flag_file), scenario.contexts)
    return [each.text(str(scenario.flag_file)) for each in found if each.severity == "error"]


def discover(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """The scenario files meant by `paths`: files as they are, folders by their `*.yaml` that are scenarios, sorted.

    UserError for a path that does not exist.
    """
    found: dict[pathlib.Path, None] = {}
    for path in paths:
        if not is_there(path):
            raise UserError(f"{path}: no such file or folder")
        found.update(dict.fromkeys(_scenarios_in(path) if path.is_dir() else [path]))
    return list(found)


def is_there(path: pathlib.Path) -> bool:
    """UserError where that cannot be told: its folder may not be searched, its name is too long."""
    try:
        return path.exists()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _scenarios_in(folder: pathlib.Path) -> list[pathlib.Path]:
    files = (path for path in sorted(folder.glob("*.yaml")) if not path.name.startswith("."))
    return [path for path in files if path.is_file() and is_scenario(path)]


def is_scenario(path: pathlib.Path) -> bool:
    """False for a file that says it is something else: `kind: plan`, `kind: fleet`."""
    try:
        data = parse(path.read_text(encoding="utf-8-sig", errors="replace")).data
    except OSError:
        return True  # why it cannot be read is told when it is loaded
    return not (isinstance(data, dict) and data.get("kind") in {"plan", "fleet"})


def step_form(kind: str, step: type[BaseModel], body_of: str | None, definitions: dict[str, Any]) -> dict[str, Any]:
    """A step as it is written: one key and its settings, or what its field `body_of` holds."""
    name = step.__name__
    definitions[name]["properties"].pop("kind")
    body = {"$ref": f"#/$defs/{name}"}
    if body_of is not None:
        body = definitions.pop(name)["properties"][body_of]
    return {"type": "object", "properties": {kind: body}, "required": [kind], "additionalProperties": False}
