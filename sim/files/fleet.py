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
from flags.context import DEFAULTS, OF_A_GROUP, Contexts, Moment, SandboxAttributes, contexts_of
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


def _version(value: str) -> str:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+){0,2}([-+][0-9A-Za-z.+-]+)?", value):
        raise ValueError(f"expected a version such as 1.14.1, got {show(value)}")
    return value


Version = Annotated[str, AfterValidator(_version)]
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
    """One machine: its memory budget in bytes, and what holds the caches."""

    memory: Size = 1 << 30
    cache: Literal["disk", "tmpfs"] = "disk"


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


class Group(Strict):
    """`count` identical sandboxes `<name>-0`, `<name>-1`, ...; sizes in bytes. `block_size` is the page size by
    default.

    With `exact` it is one sandbox of exactly that name. `guest: vm` runs each as a virtual machine (/dev/kvm).
    """

    name: Slug
    count: Annotated[int, Field(ge=1, le=10_000)] = 1
    exact: bool = False
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
    workload: Workload = Workload()
    guest: GuestKind = "process"

    @field_validator("exact")
    @classmethod
    def _is_one(cls, exact: bool, info: ValidationInfo) -> bool:
        if exact and info.data.get("count", 1) != 1:
            raise ValueError("exact names one sandbox; remove count")
        return exact

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

    def attributes(self) -> SandboxAttributes:
        """What flags are evaluated for."""
        return SandboxAttributes(
            sandbox=self.name,
            template=self.template,
            team=self.team,
            cluster=self.cluster,
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
        kernel_version=group.kernel_version,
        firecracker_version=group.firecracker_version,
        envd_version=group.envd_version,
    )
