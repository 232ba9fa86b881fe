"""What a forecast starts from: a fleet file, or a rollout plan with its stages and its fleet."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from itertools import accumulate

from engine.errors import UserError
from sim.fleet_file import Fleet, FleetGroup, FleetNode, PausesPerHour, is_fleet, load
from sim.rehearsal.plan import Plan, load_plan
from sim.rehearsal.plan_steps import SetWeight
from sim.scenario_sources import read_text
from sim.units import HUGE_PAGE
from sim.yaml_positions import parse

STAGES = (0.0, 1.0, 10.0, 50.0, 100.0)


@dataclass(frozen=True, slots=True)
class Source:
    """A fleet, the weights to look at (percent), and what a rollout goes by; `stages_given` where a plan says them."""

    fleet: Fleet
    weights: tuple[float, ...] = STAGES
    by: str = "sandbox"
    stages_given: bool = False
    said: str = "fleet file"


def source(path: pathlib.Path) -> Source:
    """What the file says; ScenarioError with every mistake, UserError for a file that is neither."""
    data = parse(read_text(path)).data
    kind = data.get("kind") if isinstance(data, dict) else None
    if kind == "plan":
        return of_plan(load_plan(path))
    if is_fleet(data) or kind is None:
        return Source(load(path))
    raise UserError(f'{path}:1:1: error: kind: expected "fleet" or "plan"; a forecast starts from nothing else')


def of_plan(plan: Plan) -> Source:
    """The stages of a plan, and its fleet in production's numbers where it gives them; a node is the rehearsed one."""
    rehearsed = sum(group.count for group in plan.fleet)
    per_minute, count = plan.pacing.pauses_per_minute, rehearsed
    if plan.production is not None:
        per_minute, count = plan.production.pauses_per_minute, plan.production.sandboxes
    groups = _groups(plan, count, PausesPerHour(median=per_minute * 60 / count))
    huge = sum(group.memory * group.count for group in plan.fleet if group.page_size == HUGE_PAGE)
    node = FleetNode(
        memory=plan.node.memory,
        hugetlb=huge,
        cache=plan.node.cache,
        sandboxes=rehearsed,
        concurrency=min(64, plan.pacing.concurrency),
    )
    fleet = Fleet(kind="fleet", name=plan.name, node=node, groups=groups, propagation=plan.propagation)
    stages = {step.weight for step in plan.steps if isinstance(step, SetWeight)}
    weights = tuple(sorted({0.0, *stages})) if stages else STAGES
    return Source(fleet, weights, plan.by, stages_given=bool(stages), said="plan")


def _groups(plan: Plan, count: int, rate: PausesPerHour) -> tuple[FleetGroup, ...]:
    """So many sandboxes in the plan's shares; a group is one team, as in a scenario."""
    upto = [0, *accumulate(group.count for group in plan.fleet)]
    cuts = [count * each // upto[-1] for each in upto]
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
        )
        for group, low, high in zip(plan.fleet, cuts, cuts[1:], strict=False)
        if high > low
    )
