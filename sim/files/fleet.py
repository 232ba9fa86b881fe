"""The fleet as a scenario describes it: groups of identical sandboxes, their memory and their work."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    field_validator,
)

from engine.errors import UserError
from flags.context import (
    DEFAULTS,
    NAMES,
    OF_A_GROUP,
    Attribute,
    Contexts,
    Moment,
    SandboxAttributes,
    contexts_of,
    further_problem,
)
from sim.files.strict import Strict
from sim.files.units import Duration, Percent, Size, format_size, parse_size, show

PAGE_SIZES = (4 << 10, 2 << 20)


def _page_size(value: Any) -> Any:
    known = [format_size(size) for size in PAGE_SIZES]
    if value not in [*known, *PAGE_SIZES] or isinstance(value, float):
        raise ValueError(f"expected {' or '.join(known)}, got {show(value)}")
    return parse_size(value) if isinstance(value, str) else value


def _slug(name: str) -> str:
    """Names become file names and flag contexts' keys."""
    if not name or len(name) > 60 or name.strip("-.") != name or not set(name) <= _SLUG_CHARACTERS:
        raise ValueError(f'expected a short name of a-z, 0-9 and "-", got {show(name)}')
    return name


_SLUG_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")
Slug = Annotated[str, AfterValidator(_slug)]


def is_slug(name: str) -> bool:
    """Whether a sandbox or group can have that name."""
    try:
        _slug(name)
    except ValueError:
        return False
    return True


Pattern = Literal["scattered", "runs", "full", "hot", "zero", "same"]
PATTERNS: Mapping[Pattern, str] = MappingProxyType(
    {
        "scattered": "blocks all over memory, drawn once by the seed",
        "runs": "runs of up to 64 blocks that follow one another, at places drawn once",
        "full": "one run from the start of memory",
        "hot": "the first tick fills all of memory, later ones rewrite a scattered working set",
        "zero": "as scattered, and every second page is written with zeros",
        "same": "as scattered, and every second page is written with the bytes that it already has",
    }
)
"""Which blocks are in the working set, `dirty` of all; each tick rewrites it, so that much is dirty at a pause."""

GuestKind = Literal["process", "vm", "auto"]
"""What owns a sandbox's memory: a process, or a virtual machine in one; `auto`: a virtual machine where KVM works."""
PageSize = Annotated[int, BeforeValidator(_page_size, json_schema_input_type=Literal["4KiB", "2MiB"])]


def bare_version(value: str) -> str:
    """The version itself; ValueError where it is none."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+){0,2}([-+][0-9A-Za-z.+-]+)?", value):
        raise ValueError(f"expected a version such as 1.14.1, got {show(value)}")
    return value


Version = Annotated[str, AfterValidator(bare_version)]
"""A semantic version without a leading v, as LaunchDarkly's semVer operators take it."""


def _contexts(value: Any) -> Any:
    if isinstance(value, Contexts):
        return value
    try:
        return contexts_of(value)
    except UserError as error:
        raise ValueError(str(error).removeprefix("contexts: ")) from None


def _written(made: Contexts) -> Any:
    return made.written


_Preset = Literal["original", "all"]
ContextsKey = Annotated[
    Contexts,
    PlainValidator(_contexts, json_schema_input_type=_Preset | dict[Moment, list[str]]),
    PlainSerializer(_written),
]
"""`original`, `all`, or the kinds of each moment that differs."""


class NodeSpec(Strict):
    """One machine: its memory budget in bytes, and what holds the caches.

    `budgets` are those of simulated nodes, by name, that are all on it: a pause is admitted by its own node's.
    `spill` is a folder, or tmpfs, for the rest of a stranded build whose cache has no space (`on_copy_failure:
    salvage`). It must be there; a relative one starts where snapdrill is started.
    """

    memory: Size = 1 << 30
    budgets: dict[Slug, Size] = Field(default_factory=dict)
    cache: Literal["disk", "tmpfs"] = "disk"
    spill: Annotated[str, Field(min_length=1, max_length=4096)] | None = None


class Workload(Strict):
    """`dirty` percent of the blocks are a working set, drawn once by `pattern`; each tick rewrites all of it.

    `threads` write it, each its own share of the pages: what memory holds does not depend on how many there are.
    With a `heartbeat` a thread of the guest writes down what the clock says, at that interval: a witness of its own.
    `program: ram` puts the program of a virtual machine into the first page of its memory instead of beside it.
    """

    dirty: Annotated[Percent, Field(gt=0)] = 40.0
    pattern: Pattern = "scattered"
    heartbeat: Duration | None = None
    threads: Annotated[int, Field(ge=1, le=16)] = 1
    program: Literal["beside", "ram"] = "beside"


_NEVER_ABSENT = ("sandbox", "team", "template")


def _absent(value: str) -> str:
    if value in _NEVER_ABSENT or value not in NAMES:
        raise ValueError(f"expected one of {', '.join(each for each in NAMES if each not in _NEVER_ABSENT)}")
    return value


Absent = Annotated[str, AfterValidator(_absent)]


class Group(Strict):
    """`count` identical sandboxes `<name>-0`, `<name>-1`, ...; sizes in bytes. `block_size` is the page size by
    default.

    With `exact` it is one sandbox of exactly that name. `guest: vm` runs each as a virtual machine (/dev/kvm).
    Flags are evaluated for what a group says of its sandboxes, for further `attributes` (`tier: gold`, `team.name:
    bank`) and without those that are `absent`, under the `key` of an exact one whose name cannot be that. `node` is one
    of the node's `budgets`.
    """

    name: Slug
    count: Annotated[int, Field(ge=1, le=10_000)] = 1
    exact: bool = False
    key: Annotated[str, Field(min_length=1)] | None = None
    page_size: PageSize = PAGE_SIZES[0]
    block_size: PageSize | None = None
    memory: Size
    template: str = "base"
    team: str = "default"
    cluster: str = DEFAULTS.cluster
    type: str = DEFAULTS.sandbox_type
    kernel_version: Version = DEFAULTS.kernel_version
    firecracker_version: Version = DEFAULTS.firecracker_version
    envd_version: Version = DEFAULTS.envd_version
    deployment: str = DEFAULTS.deployment
    service: str = DEFAULTS.service
    orchestrator: str = DEFAULTS.orchestrator
    commit: str = DEFAULTS.commit
    attributes: dict[str, Attribute] = Field(default_factory=dict)
    absent: Annotated[tuple[Absent, ...], Field(strict=False)] = ()
    node: Slug | None = None
    workload: Workload = Workload()
    guest: GuestKind = "process"

    @field_validator("attributes")
    @classmethod
    def _are_attributes(cls, attributes: dict[str, Attribute]) -> dict[str, Attribute]:
        for name, value in attributes.items():
            if (why := further_problem(name, value)) is not None:
                raise ValueError(f"{name}: {why}")
        return attributes

    @field_validator("exact")
    @classmethod
    def _is_one(cls, exact: bool, info: ValidationInfo) -> bool:
        if exact and info.data.get("count", 1) != 1:
            raise ValueError("exact names one sandbox; remove count")
        return exact

    @field_validator("key")
    @classmethod
    def _is_of_one(cls, key: str | None, info: ValidationInfo) -> str | None:
        if key is not None and not info.data.get("exact"):
            raise ValueError("a key is that of one sandbox; add exact: true")
        return key

    @field_validator("memory")
    @classmethod
    def _whole_pages(cls, memory: int, info: ValidationInfo) -> int:
        unit = max(info.data.get("page_size") or 1, info.data.get("block_size") or 1)
        if memory == 0 or memory % unit:
            raise ValueError(f"expected a multiple of {format_size(unit)}, got {format_size(memory)}")
        return memory


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """One sandbox, as its group describes it; sizes in bytes."""

    name: str
    group: str
    memory: int
    page_size: int
    block_size: int
    template: str
    team: str
    cluster: str
    workload: Workload
    guest: GuestKind = "process"
    sandbox_type: str = DEFAULTS.sandbox_type
    kernel_version: str = DEFAULTS.kernel_version
    firecracker_version: str = DEFAULTS.firecracker_version
    envd_version: str = DEFAULTS.envd_version
    deployment: str = DEFAULTS.deployment
    service: str = DEFAULTS.service
    orchestrator: str = DEFAULTS.orchestrator
    commit: str = DEFAULTS.commit
    absent: tuple[str, ...] = ()
    others: tuple[tuple[str, Attribute], ...] = ()
    node: str = ""
    key: str = ""

    def attributes(self) -> SandboxAttributes:
        """What flags are evaluated for."""
        return SandboxAttributes(
            sandbox=self.key or self.name,
            template=self.template,
            team=self.team,
            cluster=self.cluster,
            absent=self.absent,
            others=self.others,
            **{name: getattr(self, name) for name in OF_A_GROUP},
        )


MOST_SANDBOXES = 100_000
"""Of one fleet, in all of its groups: each is an object here long before it is a process."""


def sandbox_specs(fleet: Iterable[Group]) -> list[SandboxSpec]:
    """Every sandbox of the fleet, in the order of the groups."""
    return [_spec(group, index) for group in fleet for index in range(group.count)]


def _spec(group: Group, index: int) -> SandboxSpec:
    return SandboxSpec(
        name=group.name if group.exact else f"{group.name}-{index}",
        group=group.name,
        memory=group.memory,
        page_size=group.page_size,
        block_size=group.block_size or group.page_size,
        template=group.template,
        team=group.team,
        cluster=group.cluster,
        workload=group.workload,
        guest=group.guest,
        sandbox_type=group.type,
        absent=tuple(NAMES[each] for each in group.absent),
        others=tuple(group.attributes.items()),
        node=group.node or "",
        key=group.key or "",
        **{name: getattr(group, name) for name in OF_A_GROUP if name != "sandbox_type"},
    )
