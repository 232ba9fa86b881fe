"""What a forecast starts from: a fleet file, or a plan with its fleet and stages."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from flags.context import has_memfd
from flags.document import DocumentError
from sim.files.figures import Figure
from sim.files.fleet import Group
from sim.files.fleet_file import MOST_AT_ONCE, Fleet, FleetGroup, FleetNode, PausesPerHour, load_text
from sim.files.plan import Plan, SetWeight, checkpoints_a_pause, load_plan_text, table_of
from sim.files.sources import kind_of, read_text
from sim.files.units import HUGE_PAGE
from sim.files.yaml import parse
from sim.rollout.exposure import can_punch
from sim.rollout.virtual_fleet import VirtualFleet

STAGES = (0.0, 1.0, 10.0, 50.0, 100.0)


@dataclass(frozen=True, slots=True)
class FlagStages:
    """What is compared: `on` says by arms and sandboxes who has the flag on. The first arm has it off."""

    labels: tuple[str, ...]
    weights: tuple[float, ...]
    on: NDArray[np.bool_]


def arms_of(fleet: VirtualFleet, weights: Sequence[float]) -> FlagStages:
    """Of a bare rollout at these weights, percent; of a drawn fleet 0 % is the flag off."""
    made = tuple(weights) if tuple(weights[:1]) == (0.0,) else (0.0, *weights)
    return FlagStages(tuple(f"{each:g} %" for each in made), made, fleet.is_on(made, np.arange(fleet.count)))


@dataclass(frozen=True, slots=True)
class RowFleet:
    """A table's rows as they are, with the arms that the SDK's answers for every row make, and the table's sums."""

    fleet: VirtualFleet
    arms: FlagStages
    totals: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class ForecastSource:
    """A fleet, the weights to look at (percent), and what a rollout goes by; `stages_given` where a plan says them.

    `rows` are of a plan over a table; `fleet` is then only its node and what applies to all.
    """

    fleet: Fleet
    weights: tuple[float, ...] = STAGES
    by: str = "sandbox"
    stages_given: bool = False
    said: str = "fleet file"
    rows: RowFleet | None = None
    notes: tuple[str, ...] = ()


def source(path: pathlib.Path) -> ForecastSource | Plan:
    """What the file says, a plan over a table as it is; DocumentError with every mistake."""
    text = read_text(path)
    document = parse(text)
    match kind_of(document):
        case "plan":
            plan = load_plan_text(text, path)
            return of_plan(plan) if table_of(plan) is None else plan
        case "fleet" | None:
            return ForecastSource(load_text(text, path))
    what = 'expected "fleet" or "plan"; a forecast starts from nothing else'
    raise DocumentError(path, [document.mistake(("kind",), what)])


def of_plan(plan: Plan) -> ForecastSource:
    """The stages of a plan, and its fleet: that of its fleet file as it is, else its own in production's numbers where
    it gives them; a node is then the rehearsed one."""
    stages = {step.weight for step in plan.steps if isinstance(step, SetWeight)}
    weights = tuple(sorted({0.0, *stages})) if stages else STAGES
    bare = f"{plan.flag} is taken as a bare rollout by {plan.by}: of a fleet from a table its own rules are asked"
    notes = () if plan.flag_file is None else (bare,)
    if plan.scaled is not None:
        fleet = plan.scaled.fleet.model_copy(update={"propagation": plan.propagation, "contexts": plan.contexts})
        return ForecastSource(fleet, weights, plan.by, stages_given=bool(stages), notes=notes)
    rehearsed = sum(group.count for group in plan.fleet)
    per_minute, count = plan.pacing.pauses_per_minute, rehearsed
    checkpoints = checkpoints_a_pause(plan)
    if plan.production is not None:
        per_minute, count = plan.production.pauses_per_minute, plan.production.sandboxes
    rate = per_minute * 60 / count
    groups = _groups(plan, count, PausesPerHour(median=rate), checkpoints * rate)
    huge = sum(group.memory * group.count for group in plan.fleet if group.page_size == HUGE_PAGE)
    node = FleetNode(
        memory=plan.node.memory,
        hugetlb=huge,
        cache=plan.node.cache,
        sandboxes=rehearsed,
        concurrency=min(MOST_AT_ONCE, plan.pacing.concurrency),
        burst=None if plan.pacing.burst is None else min(MOST_AT_ONCE, plan.pacing.burst),
    )
    fleet = Fleet(
        kind="fleet", name=plan.name, node=node, groups=groups, propagation=plan.propagation, contexts=plan.contexts
    )
    return ForecastSource(fleet, weights, plan.by, stages_given=bool(stages), said="plan", notes=notes)


def _groups(plan: Plan, count: int, rate: PausesPerHour, checkpoints: float) -> tuple[FleetGroup, ...]:
    """So many sandboxes in the plan's shares; a group is one team, as in a scenario."""
    upto = [0, *accumulate(group.count for group in plan.fleet)]
    cuts = [count * each // upto[-1] for each in upto]
    able = can_punch(plan)
    return tuple(
        FleetGroup(
            name=group.name,
            count=high - low,
            memory=group.memory,
            dirty=group.workload.dirty,
            resident=group.workload.dirty,
            page_size=group.page_size,
            template=group.template,
            team_size=high - low,
            pauses_per_hour=rate,
            checkpoints_per_hour=checkpoints,
            firecracker_version=group.firecracker_version,
            use_memfd=_share(group, able) if has_memfd(group.firecracker_version) else 100.0,
        )
        for group, low, high in zip(plan.fleet, cuts, cuts[1:], strict=False)
        if high > low
    )


def _share(group: Group, able: AbstractSet[str]) -> float:
    """Percent of the group's sandboxes that have `use-memfd` on at a resume."""
    return 100 * sum(f"{group.name}-{number}" in able for number in range(group.count)) / group.count
