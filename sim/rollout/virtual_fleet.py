"""Its sandboxes as arrays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flags.catalog import PUNCH, USE_MEMFD
from flags.context import has_memfd
from flags.launchdarkly_fleet import bucket_of
from sim.files import fleet_file
from sim.files.fleet_file import Fleet, FleetGroup, Floats, Ints
from sim.files.fleet_scale import CHUNK, shares
from sim.files.units import HUGE_PAGE

UNITS = ("sandbox", "team", "template", "cluster")
CLUSTER = "local"
_ALL = 100_000  # a rollout's weights are thousandths of a percent


@dataclass(frozen=True, slots=True)
class VirtualGroup:
    """Which entries are of one group; pauses an hour of each that runs."""

    name: str
    members: Ints
    median: float
    peak: float


@dataclass(frozen=True, slots=True)
class VirtualFleet:
    """One entry a sandbox: `resident` and `dirty` in bytes, `bucket` from 0 to 1, `node` from 0.

    Entries of one node lie together. `memfd`: it has one, so it can punch. `checkpoints` an hour are not in place.
    `rates` are pauses an hour while it runs, the same all day, beside those of its group: of a fleet from a table.
    """

    groups: tuple[VirtualGroup, ...]
    nodes: int
    node: Ints
    resident: Floats
    dirty: Floats
    chunks: Floats
    huge: NDArray[np.bool_]
    bucket: Floats
    memfd: NDArray[np.bool_]
    checkpoints: Floats
    rates: Floats

    @property
    def count(self) -> int:
        """Sandboxes."""
        return len(self.node)

    def is_on(self, weights: tuple[float, ...], who: Ints) -> NDArray[np.bool_]:
        """Weights (percent) by these sandboxes: True where the flag is on at that weight.

        As in a scenario's rollout the safe variation is listed first: it is served below the rest of the weight.
        """
        off = np.array([(_ALL - round(weight * 1000)) / _ALL for weight in weights])
        on: NDArray[np.bool_] = self.bucket[who] >= off[:, None]
        return on

    def punches(self, weights: tuple[float, ...], who: Ints) -> NDArray[np.bool_]:
        """The same, and it has a memfd."""
        punches: NDArray[np.bool_] = self.is_on(weights, who) & self.memfd[who]
        return punches


def virtual_fleet(fleet: Fleet, count: int, seed: int, by: str = "sandbox") -> VirtualFleet:
    """`count` sandboxes in the fleet's shares, drawn from its distributions and dealt to its nodes.

    Rollouts go by LaunchDarkly's own buckets of the sandboxes' names (`web-0` and on, as in a scenario) or teams. Of a
    kind that no context has at a pause, production's SDK takes bucket 0.
    """
    parts = [(group, share) for group, share in shares(fleet, count) if share]
    drawn = [_drawn(group, share, seed, by) for group, share in parts]
    nodes = -(-count // fleet.node.sandboxes)
    node = (stream(seed, "placement").permutation(count) % nodes).astype(np.int64)
    by_node = np.argsort(node, kind="stable")
    is_known = by in fleet.contexts.shapes["pause"]
    resident, dirty, chunks, bucket, memfd = (np.concatenate(each)[by_node] for each in zip(*drawn, strict=True))
    of_group = np.repeat(np.arange(len(parts)), [share for _, share in parts])[by_node]
    return VirtualFleet(
        groups=tuple(_group(group, np.flatnonzero(of_group == at)) for at, (group, _) in enumerate(parts)),
        nodes=nodes,
        node=node[by_node],
        resident=resident,
        dirty=dirty,
        chunks=chunks,
        huge=np.array([group.page_size == HUGE_PAGE for group, _ in parts])[of_group],
        bucket=bucket if is_known else np.zeros(count),
        memfd=memfd > 0,
        checkpoints=np.array([group.checkpoints_per_hour for group, _ in parts])[of_group],
        rates=np.zeros(count),
    )


def _group(group: FleetGroup, members: Ints) -> VirtualGroup:
    return VirtualGroup(group.name, members, group.pauses_per_hour.median, group.pauses_per_hour.top)


def _drawn(group: FleetGroup, count: int, seed: int, by: str) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Resident bytes, dirty bytes (whole pages of what is resident), chunks, buckets, and 1 where it has a memfd."""
    draw = stream(seed, f"group {group.name}")
    memory = _pages(fleet_file.at(group.memory, draw.random(count)), group.page_size)
    share = fleet_file.at(group.dirty, draw.random(count)) / 100
    resident = _pages(np.maximum(memory * group.resident / 100, memory * share), group.page_size)
    dirty = _pages(memory * share, group.page_size)
    chunks = np.ceil(np.maximum(memory, CHUNK) / CHUNK)
    return resident, dirty, chunks, _buckets(group, count, draw, by), _memfds(group, count)


def _pages(sizes: Floats, page: int) -> Floats:
    """Whole pages, at least one."""
    rounded: Floats = np.maximum(1.0, np.floor(sizes / page)) * page
    return rounded


def _buckets(group: FleetGroup, count: int, draw: np.random.Generator, by: str) -> Floats:
    """By one hash each: of the sandbox's name, or of what it shares with others."""
    if by == "sandbox":
        return np.fromiter((bucket_of(PUNCH, PUNCH, f"{group.name}-{n}") for n in range(count)), float, count)
    if by == "team":
        numbers = _teams(group, count, draw)
        found = [bucket_of(PUNCH, PUNCH, f"{group.name}-{team}") for team in range(int(numbers[-1]) + 1)]
        return np.array(found)[numbers]
    return np.full(count, bucket_of(PUNCH, PUNCH, group.template if by == "template" else CLUSTER))


def _memfds(group: FleetGroup, count: int) -> Floats:
    """1 where `use-memfd` is on by a rollout of its share by sandbox, whose safe variation, on, comes first; and where
    Firecracker can do it."""
    if not has_memfd(group.firecracker_version) or group.use_memfd == 100:
        return np.full(count, float(has_memfd(group.firecracker_version)))
    on = group.use_memfd / 100
    names = (f"{group.name}-{n}" for n in range(count))
    return np.fromiter((bucket_of(USE_MEMFD, USE_MEMFD, name) < on for name in names), float, count)


def _teams(group: FleetGroup, count: int, draw: np.random.Generator) -> Ints:
    """The number of each sandbox's team."""
    numbers: list[Ints] = []
    teams = dealt = 0
    while dealt < count:
        sizes = np.maximum(1, fleet_file.at(group.team_size, draw.random(1024))).astype(np.int64)
        numbers.append(np.repeat(np.arange(teams, teams + len(sizes)), sizes))
        teams, dealt = teams + len(sizes), dealt + int(sizes.sum())
    return np.concatenate(numbers)[:count]


def stream(seed: int, purpose: str) -> np.random.Generator:
    """The same numbers for the same seed and purpose, whatever else was drawn."""
    key = hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
