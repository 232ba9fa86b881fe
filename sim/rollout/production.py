"""In production's units; each way OFF may come; claims; totals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flags.file import POLL_SECONDS
from sim.files.figures import Figure, Known
from sim.files.fleet_file import Fleet, FleetGroup, assumptions, mean
from sim.files.fleet_scale import ScaledFleet
from sim.files.propagation import percentile
from sim.files.units import HUGE_PAGE, format_duration
from sim.report import judgements, words
from sim.rollout.delays import Delay, delay_of, fixed, last_of
from sim.rollout.results import Rehearsal, StageResult
from sim.rollout.shown import nodes_of
from sim.rollout.stretch import Figures, saved

_UNUSED = {"mass_eviction", "paused_for", "resident", "median"}
"""Of a fleet file: a forecast goes by them, a rehearsal does not."""


@dataclass(frozen=True, slots=True)
class ProductionStage:
    """One stage: `fleet` counts sandboxes of the whole fleet, `node` bytes of one node of it."""

    weight: float
    fleet: tuple[Figure, ...]
    node: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class ProductionFigures:
    """The fleet file's fleet; `assumed` is what it leaves out and counts, `notes` what its scale cannot show."""

    scaled: ScaledFleet
    stages: tuple[ProductionStage, ...]
    assumed: tuple[Figure, ...]
    notes: tuple[str, ...]


def production(found: Rehearsal) -> ProductionFigures | None:
    """None where the plan has a fleet of its own: its figures are the rehearsed fleet's."""
    scaled = found.plan.scaled
    if scaled is None:
        return None
    stages = tuple(
        ProductionStage(each.stage.weight, tuple(_fleet(scaled, each)), tuple(_node(found, scaled, each)))
        for each in found.stages
    )
    return ProductionFigures(scaled, stages, tuple(assumptions(scaled.fleet, without=_UNUSED)), scaled.notes)


def _fleet(scaled: ScaledFleet, each: StageResult) -> Iterator[Figure]:
    weight, whole = each.stage.weight, scaled.fleet.count
    yield Figure("exposed", round(whole * weight / 100), "", "derived", f"{weight:g} % of {whole:,}, given")
    yield scaled.in_sandboxes("punched", len(each.on.punched))
    for label, lost in (("discarded", each.on.discarded), ("lost because of the flag", len(each.lost_by_flag))):
        yield scaled.in_sandboxes(label, lost)


def _node(found: Rehearsal, scaled: ScaledFleet, each: StageResult) -> Iterator[Figure]:
    for arm, figures in (("off", each.off), ("on", each.on)):
        yield from _pools(scaled, arm, figures)
    concurrency, scale = found.plan.pacing.at_once, scaled.fleet.scale
    spared = saved(each.off, each.on, concurrency, scale)
    told = f"the {concurrency} largest pauses at once; chunks do not scale"
    yield Figure("saved at peak", spared, "bytes", "derived", told)
    yield scaled.in_bytes("freed", each.on.punched_bytes)


def _pools(scaled: ScaledFleet, arm: str, figures: Figures) -> Iterator[Figure]:
    pools = figures.pools
    if pools.samples == 0:
        yield Figure(f"peak, flag {arm}", None, "bytes", "measured", "no pause was sampled")
        return
    yield scaled.in_bytes(f"peak, flag {arm}", pools.both)
    if pools.hugetlb:
        yield scaled.in_bytes(f"of it 2 MiB pages, flag {arm}", pools.hugetlb)


SHOWN, STAND_IN, NOT_HERE = "SHOWN", "SHOWN ON A STAND-IN", "NOT SHOWABLE HERE"


def claims(found: Rehearsal) -> list[tuple[str, str]]:
    """(status, sentence), each about this rehearsal alone."""
    huge = any(each.page_size == HUGE_PAGE for each in found.plan.sandboxes())
    punched = sum(each.on.punched_pauses for each in found.stages)
    exact = next((e for e in judgements.invariants(found.on.view) if e.name == "bytes_exact"), None)
    made = []
    if punched:
        pages = SHOWN if huge else STAND_IN
        stand_in = "" if huge else " (4 KiB shmem for 2 MiB hugetlb)"
        made.append((pages, f"memory is freed while it is copied: {words.plural(punched, 'pause')} punched{stand_in}"))
    if exact is not None and exact.verdict == "held":
        made.append((SHOWN, f"what was paused comes back byte for byte: {exact.checked} comparisons"))
    source = found.plan.flag_source
    made.append(_source(source))
    if found.plan.time != "real":
        made.append((STAND_IN, "the kill switch is obeyed at once it is known; its way there is given"))
    origin = found.plan.propagation.origin
    way = f"the way from LaunchDarkly to your nodes: propagation is {origin}, never taken from this machine's loopback"
    made += [
        (NOT_HERE, way),
        (NOT_HERE, "a rate of failures: injected faults are coverage, no rate"),
        (NOT_HERE, "durability against power loss on the pause path"),
    ]
    return made


def _source(source: str) -> tuple[str, str]:
    match source:
        case "launchdarkly":
            return SHOWN, "cohorts and decisions, by LaunchDarkly's own flag and evaluator"
        case "relay":
            return STAND_IN, "cohorts by the LaunchDarkly SDK's evaluator; a relay on this machine serves it"
    return SHOWN, "cohorts, by the LaunchDarkly SDK's own evaluator"


USUAL_LEASE = 1.5
SHARES = (50.0, 95.0, 99.0, 100.0)
"""Percentiles that are printed; the last is the most that it takes."""


@dataclass(frozen=True, slots=True)
class Way:
    """`seconds` at each of SHARES, None where that was not given; no seconds at all where it is never obeyed."""

    name: str
    seconds: tuple[float | None, ...] | None
    known: Known
    note: str


def ways(found: Rehearsal) -> list[Way]:
    """Each way by which OFF may come, with its distribution, computed."""
    return list(_ways(found)) if found.stages else []


def _ways(found: Rehearsal) -> Iterator[Way]:
    plan = found.plan
    lease, given = (USUAL_LEASE, False) if plan.lease is None else (plan.lease, True)
    stream, origin = delay_of(plan.propagation), plan.propagation.origin
    yield Way("stream", _at_shares(stream), origin, "the plan's propagation, to one node")
    nodes = nodes_of(plan)
    if nodes > 1:
        yield Way("stream, last node", _at_shares(last_of(stream, nodes)), origin, f"the slowest of {nodes:,} nodes")
    looks = Delay(((0.0, 0.0), (1.0, POLL_SECONDS)))
    note = f"looked at every {format_duration(POLL_SECONDS)}, once it is on the node"
    yield Way("file", _at_shares(looks), "derived", note)
    yield Way("half-open", None, "given", "no lease: the SDK says VALID; every exposed sandbox is punched")
    said = f"its heartbeat is overdue then; lease {format_duration(lease)} {'given' if given else 'assumed'}"
    yield Way("half-open, leased", _at_shares(fixed(lease)), "derived", said)
    if plan.time == "real" and found.kill_switch_ms:
        took = sorted(each / 1e3 for each in found.kill_switch_ms)
        seconds = tuple(percentile(took, each) for each in SHARES)
        yield Way("stream, loopback", seconds, "measured", f"{len(took)} times here; in no incident clock")


def _at_shares(delay: Delay) -> tuple[float | None, ...]:
    return tuple(delay.quantile(each / 100) for each in SHARES)


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
