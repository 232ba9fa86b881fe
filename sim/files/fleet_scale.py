"""A fleet at its scale: the groups that one machine rehearses, and the way back to production's units. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby

import numpy as np

from sim.files import fleet_file
from sim.files.figures import Figure, Known
from sim.files.fleet import Group, NodeSpec, Workload
from sim.files.fleet_file import Fleet, FleetGroup

CHUNK = 2 << 20
_FEW_CHUNKS = 8
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class ScaledFleet:
    """What is rehearsed: scenario groups and a node budget, sizes divided as the fleet's scale says (bytes).

    `notes` say what the scale cannot show.
    """

    fleet: Fleet
    groups: tuple[Group, ...]
    node: NodeSpec
    notes: tuple[str, ...] = ()

    @property
    def sandboxes(self) -> int:
        """How many are rehearsed."""
        return sum(group.count for group in self.groups)

    def in_bytes(self, label: str, size: float, known: Known = "measured") -> Figure:
        """Bytes of the rehearsal as bytes of one node in production.

        Not for `peak_over` of a pause that punches: a chunk has the same size at every scale.
        """
        if self.fleet.scale == 1:
            return Figure(label, int(size), "bytes", known)
        note = f"{known} at {_text(self.fleet.scale)}"
        return Figure(label, int(Fraction(int(size)) / self.fleet.scale), "bytes", "derived", note)

    def in_sandboxes(self, label: str, number: float, known: Known = "measured") -> Figure:
        """A number of rehearsed sandboxes or pauses as a number of the whole fleet's."""
        whole = number * self.fleet.count / self.sandboxes
        note = f"{known} {number:g} of {self.sandboxes} rehearsed"
        return Figure(label, round(whole), "", "derived", note)


def at_scale(fleet: Fleet, sandboxes: int | None = None) -> ScaledFleet:
    """So many sandboxes of the fleet, one node's unless given: each group in its share, sizes as they spread."""
    count = sandboxes or min(fleet.node.sandboxes, fleet.count)
    groups = tuple(made for group, share in shares(fleet, count) for made in _scaled(group, share, fleet.scale))
    whole = (fleet.node.memory + fleet.node.hugetlb) * fleet.scale * count / fleet.node.sandboxes
    node = NodeSpec(memory=int(whole), cache=fleet.node.cache)
    return ScaledFleet(fleet, groups, node, tuple(_notes(fleet, groups, count)))


def shares(fleet: Fleet, count: int) -> list[tuple[FleetGroup, int]]:
    """`count` sandboxes dealt to the groups by their size, by largest remainder; a group may get none."""
    exact = [Fraction(group.count * count, fleet.count) for group in fleet.groups]
    dealt = [int(each) for each in exact]
    by_remainder = sorted(range(len(exact)), key=lambda at: dealt[at] - exact[at])
    for at in by_remainder[: count - sum(dealt)]:
        dealt[at] += 1
    return list(zip(fleet.groups, dealt, strict=True))


def _scaled(group: FleetGroup, count: int, scale: Fraction) -> Iterator[Group]:
    """Adjacent sandboxes of the same sizes become one group of the scenario."""
    dealt = list(zip(_sizes(group, count, scale), _dirty(group, count), _teams(group, count), strict=True))
    for number, (like, same) in enumerate(groupby(dealt)):
        memory, dirty, team = like
        yield Group(
            name=f"{group.name}-{number}",
            count=len(list(same)),
            memory=memory,
            page_size=group.page_size,
            guest=group.guest,
            template=group.template,
            team=f"{group.name}-{team}",
            firecracker_version=group.firecracker_version,
            workload=Workload(dirty=dirty, pattern="full" if dirty == 100 else "scattered"),
        )


def _sizes(group: FleetGroup, count: int, scale: Fraction) -> list[int]:
    """Whole pages, at least one."""
    values = fleet_file.evenly(group.memory, count).tolist()
    return [max(1, int(Fraction(int(size)) * scale / group.page_size)) * group.page_size for size in values]


def _dirty(group: FleetGroup, count: int) -> list[float]:
    """Whole percent, at least one; spread over the sizes, not rising with them."""
    found = fleet_file.at(group.dirty, _spread(count))
    return [float(max(1, round(each))) for each in found.tolist()]


def _teams(group: FleetGroup, count: int) -> list[int]:
    """The number of each sandbox's team; teams are as large as in production, the last one cut off."""
    sizes = fleet_file.at(group.team_size, _spread(count))
    numbers: list[int] = np.repeat(np.arange(count), np.maximum(1, sizes).astype(int))[:count].tolist()
    return numbers


def _spread(count: int) -> fleet_file.Floats:
    """Shares that cover 0 to 1 evenly, however many are taken; not sorted."""
    shares: fleet_file.Floats = (np.arange(count, dtype=np.float64) + 0.5) * _GOLDEN % 1
    return shares


def _notes(fleet: Fleet, groups: tuple[Group, ...], count: int) -> Iterator[str]:
    small = [each for each in groups if each.memory < _FEW_CHUNKS * CHUNK]
    if fleet.scale != 1 and small:
        least = min(each.memory for each in small)
        chunks = -(-least // CHUNK)
        yield (
            f"at {_text(fleet.scale)} guests of {len(small)} of {len(groups)} groups have few chunks (least: {chunks});"
            " chunks do not scale, so punching seems to save less"
        )
    missing = [group.name for group, share in shares(fleet, count) if share == 0]
    if missing:
        yield f"{count} sandboxes are too few to include every group: none of {', '.join(missing)}"


def _text(scale: Fraction) -> str:
    return f"{scale.numerator}/{scale.denominator}"
