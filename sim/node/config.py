"""The configuration of a node process, a JSON file in the run folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flags.context import DEFAULTS, OF_A_GROUP, Attribute, SandboxAttributes
from sim.node.guest import GuestSpec
from sim.record.owner import OWNER_FILE


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """One sandbox of the fleet; sizes in bytes, `dirty` a share of 1, `heartbeat` seconds (0: none).

    `guest` is process or vm; `program` beside its memory, or ram; `node` the simulated node that it is on, `key` what
    flags know it by. `absent` and `others` as in SandboxAttributes.
    """

    name: str
    memory: int
    page_size: int
    block_size: int
    template: str
    team: str
    cluster: str
    dirty: float
    pattern: str
    sandbox_type: str = DEFAULTS.sandbox_type
    kernel_version: str = DEFAULTS.kernel_version
    firecracker_version: str = DEFAULTS.firecracker_version
    envd_version: str = DEFAULTS.envd_version
    deployment: str = DEFAULTS.deployment
    service: str = DEFAULTS.service
    orchestrator: str = DEFAULTS.orchestrator
    commit: str = DEFAULTS.commit
    absent: tuple[str, ...] = ()
    others: dict[str, Attribute] = field(default_factory=dict)
    node: str = ""
    key: str = ""
    heartbeat: float = 0.0
    threads: int = 1
    guest: str = "process"
    program: str = "beside"

    def attributes(self) -> SandboxAttributes:
        """What flags are evaluated for."""
        return SandboxAttributes(
            sandbox=self.key or self.name,
            template=self.template,
            team=self.team,
            cluster=self.cluster,
            absent=tuple(self.absent),
            others=tuple(self.others.items()),
            **{name: getattr(self, name) for name in OF_A_GROUP},
        )


@dataclass(frozen=True, slots=True)
class OpenPause:
    """A pause that a crash cut off, as far as the ledger knows it."""

    id: str
    path: str | None
    punch: bool
    punch_reason: str | None
    punch_code: str | None
    dirty_bytes: int | None
    blocked_ms: float | None
    successor: str | None = None
    salvage: str | None = None  # once it is recovered: `whole`, or why its copy could not be salvaged


@dataclass(frozen=True, slots=True)
class Ended:
    """How the pause ended, settled by now, that a sandbox was last sent into; `consumed`: its guest was to end."""

    pause: str
    outcome: str
    consumed: bool


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger says of a sandbox when a crashed node is started again."""

    state: str
    reason: str
    build: str | None
    incarnations: int
    pauses: int
    open_pause: OpenPause | None
    guest: str = ""  # the newest that it ran with
    ended: Ended | None = None  # None too where it was sent into a pause since that has no line yet

    @property
    def outcome(self) -> str | None:
        """How its latest pause ended, as far as that is recorded."""
        return self.ended.outcome if self.ended is not None else None


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """`began` is CLOCK_MONOTONIC at the run's start.

    `mutant`, or `profile` without its `mended` weaknesses, is a wrong engine; both are None for the sound one.
    Flags come from one of `inline_flags` (LaunchDarkly's JSON by key), `flag_file` (a path), `relay` (a URI) and
    LaunchDarkly itself; `lease` in seconds. A flag with a dangerous mistake is
    obeyed with `obey_unsafe` alone. With `trace` every fault point that is passed is recorded. `readers` is the share
    of pauses that are resumed at once, 0 to 1. `budgets` are those of simulated nodes, by name: bytes.
    """

    run: str
    run_dir: str
    builds: str
    socket_dir: str
    seed: int
    began: float
    budget: int
    grace: float
    cgroup: str | None
    mutant: str | None
    sandboxes: list[SandboxConfig]
    inline_flags: dict[str, dict[str, Any]] | None = None
    flag_file: str | None = None
    relay: str | None = None
    launchdarkly: bool = False
    lease: float | None = None
    obey_unsafe: bool = False
    contexts: Any = "original"
    tick: int = 0
    trace: bool = False
    profile: str | None = None
    mended: list[str] = field(default_factory=list)
    verify: str = "off"
    on_copy_failure: str = "discard"
    spill: str | None = None
    readers: float = 0.0
    budgets: dict[str, int] = field(default_factory=dict)
    known: dict[str, Known] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """What node, zygote and guests print."""
        return Path(self.run_dir) / "node.log"

    @property
    def owner_file(self) -> str:
        """The file that the runner holds a lock on."""
        return str(Path(self.run_dir) / OWNER_FILE)

    def write(self, path: Path) -> None:
        """Put it where the node will read it."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> NodeConfig:
        """The config that `write` wrote."""
        content = json.loads(path.read_text())
        sandboxes = [SandboxConfig(**each | {"absent": tuple(each["absent"])}) for each in content.pop("sandboxes")]
        known = {name: _known(each) for name, each in content.pop("known").items()}
        return cls(**content, sandboxes=sandboxes, known=known)

    def is_read(self, sandbox: str, number: int) -> bool:
        """Whether the sandbox is resumed right after this pause has its answer."""
        return is_read(self.readers, self.seed, sandbox, number)

    def guest_spec(self, sandbox: SandboxConfig, incarnation: str) -> GuestSpec:
        """What a new guest of this sandbox is started with."""
        return GuestSpec(
            run=self.run,
            sandbox=sandbox.name,
            incarnation=incarnation,
            seed=self.seed,
            memory=sandbox.memory,
            page_size=sandbox.page_size,
            block_size=sandbox.block_size,
            dirty=sandbox.dirty,
            pattern=sandbox.pattern,
            heartbeat=sandbox.heartbeat,
            threads=sandbox.threads,
            guest=sandbox.guest,
            program=sandbox.program,
        )


def _known(content: dict[str, Any]) -> Known:
    pause, ended = content.pop("open_pause"), content.pop("ended")
    return Known(**content, open_pause=OpenPause(**pause) if pause else None, ended=Ended(**ended) if ended else None)


def is_read(share: float, seed: int, sandbox: str, number: int) -> bool:
    """Whether the sandbox's pause of that number, from 1, is read at once; the same for the same seed."""
    if not share:
        return False
    key = hashlib.blake2b(f"{seed}:immediate reader:{sandbox}:{number}".encode(), digest_size=8).digest()
    return int.from_bytes(key, "big") / (1 << 64) < share
