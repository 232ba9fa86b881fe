"""A plan's table as a fleet to forecast: every row on its own node, exposed as the SDK serves it at each stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from flags.catalog import flag
from flags.cohort import Member, with_memfd
from flags.context import has_memfd
from flags.sdk_logs import silence_sdk_logs
from sim.files.figures import Figure
from sim.files.fleet_file import MOST_AT_ONCE, Fleet, FleetGroup, FleetNode, Floats, Ints, PausesPerHour
from sim.files.fleet_scale import CHUNK
from sim.files.plan import Plan, SetWeight, table_of
from sim.files.units import HUGE_PAGE
from sim.files.user_table import UserSandbox, assumed, user_sandbox
from sim.rollout.forecast_source import FlagStages, ForecastSource, RowFleet
from sim.rollout.row_exposure import numbered, stage_exposures
from sim.rollout.stage_flags import Edit, stage_sections
from sim.rollout.user_fleet import contexts_of, warnings_of
from sim.rollout.virtual_fleet import VirtualFleet, stream

PAUSED_FOR = 600.0
_ON_A_NODE = 40
_MOST_AWAY = 0.95
"""Of its time a sandbox is paused at most so much, whatever the table says of its pauses."""


def row_source(
    plan: Plan,
    weights: Sequence[float] | None,
    *,
    node_memory: int = 0,
    paused_for: float | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> ForecastSource:
    """Of a plan over a table; `weights` (percent, of the default rule) instead of the plan's stages; bytes of a node, 0
    where that is not known, and seconds for which a sandbox is paused."""
    silence_sdk_logs()
    table = table_of(plan)
    rows = [user_sandbox(each) for each in table.rows] if table is not None else []
    edits = _edits(plan, weights)
    stages = [(weight, stage_sections(plan, edits[: number + 1])) for number, (weight, _) in enumerate(edits)]
    exposures = stage_exposures(stages, flag(plan.flag), contexts_of(plan, rows), progress)
    node, dealt = _nodes(rows, plan.seed)
    order = np.argsort(node, kind="stable")
    sections = stages[-1][1] if stages else stage_sections(plan, [(0.0, None)])
    able = with_memfd(sections, [Member(each.attributes) for each in rows], plan.contexts)
    away = PAUSED_FOR if paused_for is None else paused_for
    fleet = _fleet(rows, node, order, [each.attributes.sandbox in able for each in rows], away)
    on = np.stack([np.zeros(len(rows), np.bool_), *(each.on for each in exposures)])[:, order]
    labels = ("off", *(_label(edit) for edit in edits))
    arms = FlagStages(labels, (0.0, *(weight for weight, _ in edits)), on)
    warned = [] if table is None else [*warnings_of(plan, table, sections), *assumed(table.rows), *_notes(rows, away)]
    return ForecastSource(
        _file(plan, rows, node, node_memory, paused_for),
        arms.weights,
        plan.by,
        stages_given=weights is None,
        said=plan.fleet_file or "table",
        rows=RowFleet(fleet, arms, tuple(_totals(rows, fleet, dealt))),
        notes=tuple(warned),
    )


def _edits(plan: Plan, weights: Sequence[float] | None) -> list[Edit]:
    if weights is not None:
        return [(weight, None) for weight in weights]
    return [(step.weight, step.rule) for step in plan.steps if isinstance(step, SetWeight)]


def _label(edit: Edit) -> str:
    weight, rule = edit
    return f"{weight:g} %" if rule is None else f"{weight:g} % of {rule}"


def _nodes(rows: Sequence[UserSandbox], seed: int) -> tuple[Ints, int]:
    """The node of each row, from 0, and how many rows name none: those are dealt to nodes of the usual number."""
    node = numbered([each.node for each in rows])
    none = np.flatnonzero(node < 0)
    if len(none):
        named = Counter(node[node >= 0].tolist())
        usual = max(1, round(sum(named.values()) / len(named))) if named else _ON_A_NODE
        place = stream(seed, "nodes of rows that name none").permutation(len(none)) // usual
        node[none] = len(named) + place
    return node, len(none)


def _fleet(
    rows: Sequence[UserSandbox], node: Ints, order: Ints, has_memory: Sequence[bool], paused_for: float
) -> VirtualFleet:
    def column(of: Callable[[UserSandbox], float]) -> Floats:
        return np.array([of(each) for each in rows], np.float64)[order]

    memory, dirty = column(lambda each: each.memory), column(lambda each: each.dirty / 100)
    resident = memory * np.maximum(column(lambda each: each.resident / 100), dirty)
    pauses = column(lambda each: each.pauses_per_hour)
    able = [has and has_memfd(each.attributes.firecracker_version) for has, each in zip(has_memory, rows, strict=True)]
    return VirtualFleet(
        groups=(),
        nodes=int(node.max()) + 1,
        node=node[order],
        resident=resident,
        dirty=memory * dirty,
        chunks=np.ceil(np.maximum(memory, CHUNK) / CHUNK),
        huge=column(lambda each: each.page_size) == HUGE_PAGE,
        bucket=np.zeros(len(rows)),
        memfd=np.array(able)[order],
        checkpoints=column(lambda each: each.checkpoints_per_hour),
        rates=pauses / (1 - np.minimum(_MOST_AWAY, pauses * paused_for / 3600)),
    )


def _file(plan: Plan, rows: Sequence[UserSandbox], node: Ints, memory: int, paused_for: float | None) -> Fleet:
    """What applies to all rows; its one group stands for the table, and nothing of it is used."""
    at_once = min(MOST_AT_ONCE, plan.pacing.concurrency)
    burst = None if plan.pacing.burst is None else min(MOST_AT_ONCE, plan.pacing.burst)
    machine = FleetNode(
        memory=memory,
        hugetlb=0,
        cache=plan.node.cache,
        sandboxes=int(np.bincount(node).max()),
        concurrency=at_once,
        burst=burst,
    )
    group = FleetGroup(
        name="table",
        count=len(rows),
        memory=4096,
        dirty=0.0,
        resident=0.0,
        page_size=4096,
        guest="process",
        team_size=1,
        pauses_per_hour=PausesPerHour(median=1.0, peak=1.0),
        checkpoints_per_hour=0.0,
    )
    made = Fleet(
        kind="fleet",
        name=plan.name,
        node=machine,
        groups=(group,),
        propagation=plan.propagation,
        contexts=plan.contexts,
    )
    return made if paused_for is None else made.model_copy(update={"paused_for": paused_for})


def _totals(rows: Sequence[UserSandbox], fleet: VirtualFleet, dealt: int) -> list[Figure]:
    """Of the table, by adding up."""
    where = f"{dealt:,} rows name none, dealt (assumed)" if dealt else ""
    found = [
        Figure("sandboxes", len(rows), "", "measured"),
        Figure("nodes", fleet.nodes, "", "measured", where),
        Figure("memory", float(sum(each.memory for each in rows)), "bytes", "measured"),
        Figure("guest memory", float(fleet.resident.sum()), "bytes", "derived", "all guests at once"),
        Figure("dirty", float(fleet.dirty.sum()), "bytes", "measured"),
        Figure("pauses an hour", round(sum(each.pauses_per_hour for each in rows), 3), "", "measured"),
    ]
    if fleet.checkpoints.any():
        found.append(Figure("checkpoints an hour", round(float(fleet.checkpoints.sum()), 3), "", "measured"))
    return found


def _notes(rows: Sequence[UserSandbox], paused_for: float) -> list[str]:
    """A sandbox that is paused so often cannot be away for so long each time."""
    often = sum(each.pauses_per_hour * paused_for / 3600 > _MOST_AWAY for each in rows)
    even = "pauses an hour are over the whole day and come at an even rate"
    said = f"{often:,} rows pause more often than pauses of {paused_for:g} s allow: fewer are simulated"
    return [even, *([said] if often else [])]
