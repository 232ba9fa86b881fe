"""The scenario file: its strict schema, read with every mistake at its line and column."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from engine.errors import UserError
from engine.reading import read_regular
from flags.context import ORIGINAL
from sim.files.checks import cross_checks
from sim.files.engine_key import Engine
from sim.files.expectations import AnyExpectation
from sim.files.flag_values import Flags, lease_seconds
from sim.files.fleet import ContextsKey, Group, NodeSpec, Slug
from sim.files.loader import Drilled, Expanded, Form
from sim.files.original import ORIGINAL as ORIGINAL_PROFILE
from sim.files.readers import Readers
from sim.files.sources import Source, kind_of, read_scenario
from sim.files.steps import AnyStep, PauseStep
from sim.files.swarm import Swarm, check_memory
from sim.files.variables import UNRESOLVED, Draft, Matrix, Scalar, Variables, expand, title
from sim.files.yaml import Document, parse, scenario_text

Listed = Field(strict=False)  # a document's list becomes a tuple
Requirement = Literal["hugetlb", "cgroup", "write_protect_scan", "kvm", "root"]


class Scenario(Drilled):
    """One scenario. Only name, fleet and steps are required.

    `extends`, `vars` and `matrix` are kept as written; every other field has their values applied.
    """

    version: Literal[1] = 1
    name: Slug
    extends: str | None = None
    vars: Variables = Field(default_factory=dict)
    matrix: Matrix = Matrix()
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    node: NodeSpec = NodeSpec()
    engine: Engine = Engine()
    requires: Annotated[tuple[Requirement, ...], Listed] = ()
    fleet: Annotated[tuple[Group, ...], Field(strict=False, min_length=1)]
    flags: Flags = Field(default_factory=dict)
    contexts: ContextsKey = ORIGINAL
    readers: Readers = Readers()
    steps: Annotated[tuple[AnyStep, ...], Field(strict=False, min_length=1)]
    expect: Annotated[tuple[AnyExpectation, ...], Listed] = ()
    swarm: Swarm | None = None

    @field_validator("swarm")
    @classmethod
    def _fits_the_node(cls, swarm: Swarm | None, info: ValidationInfo) -> Swarm | None:
        if swarm is not None and {"fleet", "node"} <= info.data.keys():
            check_memory(swarm, info.data["fleet"], info.data["node"])
        return swarm

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
    def lease(self) -> float | None:
        """Seconds for which news of the flags is good; None where there is no lease."""
        given = None if isinstance(self.flags, Mapping) else self.flags.lease
        return lease_seconds(given, self.flag_source)

    def facts(self) -> dict[str, Any]:
        """Of its node and its flags, what a ledger begins with."""
        node: dict[str, Any] = {"budget": self.node.memory, "cache": self.node.cache}
        node |= {"spill": self.node.spill} if self.node.spill is not None else {}
        node |= {"known_as": ORIGINAL_PROFILE} if self.engine.profile == ORIGINAL_PROFILE else {}
        flags = {"flag_source": self.flag_source, "lease": self.lease, "obey_unsafe": self.obeys_unsafe}
        return {**node, **flags, "contexts": self.contexts.written, "guest": self.asked_guest}

    def node_settings(self) -> dict[str, Any]:
        """Of its engine, memory and readers, what a node is started with."""
        budgets = {"budget": self.node.memory, "budgets": dict(self.node.budgets)}
        return {**self.engine.choice(), **budgets, "readers": self.readers.share}

    @property
    def obeys_unsafe(self) -> bool:
        """True where a flag with a dangerous mistake is obeyed, as in production."""
        return not isinstance(self.flags, Mapping) and self.flags.obey_unsafe

    @property
    def claims_digest(self) -> bool:
        """False if a step does not wait for its pauses: they race with later steps, so event order may differ."""
        return all(each.until == "settled" for each in self.steps if isinstance(each, PauseStep))


def from_document(document: Document, text: str, path: pathlib.Path) -> Scenario:
    """The scenario of a document with known positions; ValidationError if the document has a mistake.

    `text` says the same; names in it start at the folder of `path`.
    """
    return Scenario.model_validate(document.data, context=Source(path, text, document))


def _expand(source: Source, given: Mapping[str, str]) -> Expanded:
    """One source for each combination of the matrix, without references."""
    drafts, mistakes = expand(source.document, given)
    return [_made(source, draft) for draft in drafts], mistakes


def _made(source: Source, draft: Draft) -> Source:
    document, used = draft.resolved.document, draft.resolved.used
    made = replace(
        source,
        document=document,
        chosen={name.partition(".")[2]: each.value for name, each in draft.chosen.items()},
        variables={
            name.partition(".")[2]: each.value
            for name, each in draft.values.items()
            if name in used and name not in draft.chosen
        },
        broken=frozenset(draft.resolved.broken),
    )
    if isinstance(document.data, dict) and UNRESOLVED & document.data.keys():
        made = replace(made, text=_explicit_text(draft, source.path))
    if draft.chosen and "name" in document.data:
        made = replace(made, title=title(str(document.data["name"]), draft.chosen), slug=draft.slug)
    return made


def _explicit_text(draft: Draft, path: pathlib.Path) -> str:
    data = draft.resolved.document.data | {"name": draft.slug}
    explicit = {key: data[key] for key in [*Scenario.model_fields, *data] if key in data and key not in UNRESOLVED}
    used = {name: each.value for name, each in draft.values.items() if name in draft.resolved.used}
    made = ", ".join(f"{name.partition('.')[2]} = {value}" for name, value in used.items())
    return scenario_text(explicit, f"{path.name} expanded" + (f" with {made}." if made else "."))


SCENARIO = Form("scenario", Scenario, read_scenario, _expand, cross_checks)
load, load_text, load_all = SCENARIO.load, SCENARIO.load_text, SCENARIO.load_all


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
    """Whether the path exists; UserError if that cannot be found out: an unsearchable folder, too long a name."""
    try:
        return path.exists()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _scenarios_in(folder: pathlib.Path) -> list[pathlib.Path]:
    files = (path for path in sorted(folder.glob("*.yaml")) if not path.name.startswith("."))
    return [path for path in files if path.is_file() and is_scenario(path)]


def is_scenario(path: pathlib.Path) -> bool:
    """False for a file of another kind: `kind: plan`, `kind: fleet`."""
    try:
        document = parse(read_regular(path).decode("utf-8-sig", "replace"))
    except OSError:
        return True  # loading it reports why it cannot be read
    return kind_of(document) not in {"plan", "fleet"}
