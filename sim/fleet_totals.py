"""What a fleet file comes to: sums over the fleet, one node of it, and what is rehearsed of it."""

from __future__ import annotations

from sim.distributions import mean
from sim.figures import Figure
from sim.fleet_file import Fleet, FleetGroup
from sim.fleet_scale import ScaledFleet
from sim.units import HUGE_PAGE


def totals(fleet: Fleet) -> list[Figure]:
    """Of the whole fleet; the mean of a distribution times the count."""
    rate = sum(group.count * group.pauses_per_hour.median for group in fleet.groups)
    top = sum(group.count * group.pauses_per_hour.top for group in fleet.groups)
    teams = sum(group.count / max(1.0, mean(group.team_size)) for group in fleet.groups)
    made = [
        Figure("sandboxes", fleet.count, "", "given"),
        Figure("nodes", fleet.nodes, "", "derived"),
        Figure("memory, 4 KiB pages", _memory(fleet, huge=False), "bytes", "derived"),
        Figure("memory, 2 MiB pages", _memory(fleet, huge=True), "bytes", "derived"),
        Figure(
            "dirty at a pause", sum(_of(group) * mean(group.dirty) / 100 for group in fleet.groups), "bytes", "derived"
        ),
        Figure("pauses an hour, median", rate, "", "derived", "if every sandbox ran"),
        Figure("pauses an hour, peak", top, "", "derived", "if every sandbox ran"),
        Figure("teams", round(teams), "", "derived"),
    ]
    if fleet.mass_eviction is not None:
        nodes = fleet.nodes * fleet.mass_eviction.nodes / 100
        told = f"{nodes:,.0f} nodes within {fleet.mass_eviction.within:g} s"
        made.append(Figure("mass eviction, pauses", round(nodes * fleet.node.sandboxes), "", "derived", told))
    return made


def per_node(fleet: Fleet) -> list[Figure]:
    """A node in the middle, and how far its memory reaches."""
    guests = _memory(fleet, huge=False) / fleet.nodes
    huge = _memory(fleet, huge=True) / fleet.nodes
    pause = sum(_of(group) * mean(group.dirty) / 100 for group in fleet.groups) / fleet.count
    free = fleet.node.memory - guests
    made = [
        Figure("sandboxes", fleet.node.sandboxes, "", "given"),
        Figure("memory of 4 KiB pages", fleet.node.memory, "bytes", "given"),
        Figure("guests in it", guests, "bytes", "derived", "on average"),
        Figure("a pause without the flag", pause, "bytes", "derived", "its dirty memory, on average"),
        Figure("such pauses that fit at once", max(0, int(free / pause)), "", "derived"),
    ]
    if huge:
        made += [
            Figure("pool of 2 MiB pages", fleet.node.hugetlb, "bytes", "given"),
            Figure("guests in the pool", huge, "bytes", "derived", "on average"),
        ]
    return made


def rehearsed(scaled: ScaledFleet) -> list[Figure]:
    """What one machine has at the fleet's scale."""
    scale = scaled.fleet.scale
    return [
        Figure("scale", f"{scale.numerator}/{scale.denominator}", "", "given"),
        Figure("sandboxes", scaled.sandboxes, "", "derived", "one node's"),
        Figure("guest memory", sum(group.memory * group.count for group in scaled.groups), "bytes", "derived"),
        Figure("node memory", scaled.node.memory, "bytes", "derived"),
    ]


def _of(group: FleetGroup) -> float:
    return group.count * mean(group.memory)


def _memory(fleet: Fleet, *, huge: bool) -> float:
    """Resident bytes of the groups with such pages."""
    return sum(_of(group) * group.resident / 100 for group in fleet.groups if (group.page_size == HUGE_PAGE) == huge)
