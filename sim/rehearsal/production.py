"""What a rehearsal of a fleet file came to, in production's units: each stage, every figure with how it is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sim.figures import Figure
from sim.fleet_file import assumptions
from sim.fleet_scale import ScaledFleet
from sim.rehearsal.figures import Figures, saved
from sim.rehearsal.results import Rehearsal, StageResult

_RULE_OF_THREE = 3
_UNUSED = {"mass_eviction", "paused_for", "resident", "median"}
"""Of a fleet file: a forecast goes by them, a rehearsal does not."""


@dataclass(frozen=True, slots=True)
class ProductionStage:
    """One stage: `fleet` counts sandboxes of the whole fleet, `node` bytes of one node of it."""

    weight: float
    fleet: tuple[Figure, ...]
    node: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Production:
    """The fleet file's fleet; `assumed` is what it leaves out and counts, `notes` what its scale cannot show."""

    scaled: ScaledFleet
    stages: tuple[ProductionStage, ...]
    assumed: tuple[Figure, ...]
    notes: tuple[str, ...]


def production(found: Rehearsal) -> Production | None:
    """None where the plan has a fleet of its own: its figures are the rehearsed fleet's."""
    scaled = found.plan.scaled
    if scaled is None:
        return None
    stages = tuple(
        ProductionStage(each.stage.weight, tuple(_fleet(scaled, each)), tuple(_node(found, scaled, each)))
        for each in found.stages
    )
    assumed = tuple(each for each in assumptions(scaled.fleet) if not _UNUSED & set(each.label.split(".")))
    return Production(scaled, stages, assumed, scaled.notes)


def _fleet(scaled: ScaledFleet, each: StageResult) -> Iterator[Figure]:
    weight, whole = each.stage.weight, scaled.fleet.count
    yield Figure("exposed", round(whole * weight / 100), "", "derived", f"{weight:g} % of {whole:,}, given")
    yield scaled.in_sandboxes("punched", len(each.on.punched))
    for label, lost, of in (
        ("discarded", each.on.discarded, each.on.asked),
        ("lost because of the flag", len(each.lost_by_flag), each.on.punched_pauses),
    ):
        figure = scaled.in_sandboxes(label, lost)
        yield figure if lost or not of else _at_most(figure, scaled, of)


def _at_most(none: Figure, scaled: ScaledFleet, of: int) -> Figure:
    """None seen: what they may yet be at 95 % confidence (about 3 of n)."""
    bound = min(1.0, _RULE_OF_THREE / of) * scaled.fleet.count
    note = f"{none.note}; at 95 % fewer than {bound:,.0f}: only {of} were tried"
    return Figure(none.label, none.value, none.unit, none.known, note)


def _node(found: Rehearsal, scaled: ScaledFleet, each: StageResult) -> Iterator[Figure]:
    for arm, figures in (("off", each.off), ("on", each.on)):
        yield from _pools(scaled, arm, figures)
    concurrency, scale = found.plan.pacing.concurrency, scaled.fleet.scale
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
