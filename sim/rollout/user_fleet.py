"""The user's fleet: who of all its rows each stage exposes, and the sample of it that is rehearsed for real."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flags.catalog import flag
from flags.cohort import Sections
from flags.context import ValueType, further_types
from flags.launchdarkly import make_context
from flags.reads import lacking
from flags.sdk_logs import silence_sdk_logs
from sim.files.fleet_file import Floats, Ints
from sim.files.fleet_table import SandboxTable
from sim.files.plan import Plan, table_of
from sim.files.user_table import UserSandbox, assumed, rehearsed_name, user_sandbox
from sim.rollout.bounds import CONFIDENCE, stratified_bound
from sim.rollout.compiled import compiled
from sim.rollout.exposure import context_of
from sim.rollout.row_exposure import Rows, StageExposure, first_stages, numbered, stage_exposures
from sim.rollout.sample import FleetSample, sample, strata_of
from sim.rollout.simulated_nodes import on_nodes
from sim.rollout.stage_flags import exported, stage_sections

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class UserFleet:
    """`exposures` are of every row, one a stage; `exported` of the flag as its file has it, None where there is none.

    `names` are the rows' sandboxes as they are rehearsed, `units` the team and the cluster of every row. `first` is the
    first stage that exposes a row, -1 for none. `warnings` say what the flag reads and the table does not give;
    `assumed` what it is taken to say.
    """

    rows: Rows
    names: tuple[str, ...]
    exposures: tuple[StageExposure, ...]
    exported: StageExposure | None
    first: Ints
    sample: FleetSample
    units: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    further: Mapping[str, frozenset[ValueType]] = field(default_factory=dict)
    """Attributes of sandboxes that no catalogue has, by column, with the types of their values."""

    def rates(self, stage: int) -> Floats:
        """Pauses a second of every row that this stage (from 0) exposes."""
        return self.rows.pauses_per_hour[self.exposures[stage].on] / 3600

    def bound(self, stage: int, tried: Iterable[str], lost: Iterable[str], confidence: float = CONFIDENCE) -> float:
        """The loss rate (0 to 1) of the fleet's exposed up to this stage that the sample rules out, stratified."""
        row = {name: at for at, name in enumerate(self.names)}
        seen = np.isin(self.sample.rows, [row[name] for name in tried])
        only = FleetSample(self.sample.rows[seen], self.sample.weights[seen], self.sample.strata[seen])
        gone = np.array([row[name] for name in lost], np.int64)
        return stratified_bound(strata_of(only, self.first, stage, gone), confidence)


def of_plan(plan: Plan, progress: Progress = lambda _share: None) -> tuple[Plan, UserFleet | None]:
    """The plan with the sample as its fleet, and the fleet; unchanged, and None, where it names no table."""
    read = table_of(plan)
    if read is None:
        return plan, None
    table = [user_sandbox(each) for each in read.rows]
    silence_sdk_logs()
    edits = [(each.weight, each.rule) for each in compiled(plan).stages]
    contexts = contexts_of(plan, table)
    stages = [(weight, stage_sections(plan, edits[: number + 1])) for number, (weight, _) in enumerate(edits)]
    found = stage_exposures(stages, flag(plan.flag), contexts, progress)
    known = exported(plan)
    as_it_is = None
    if known is not None:
        flags, segments = stage_sections(plan, [])
        (as_it_is,) = stage_exposures([(0.0, ({**flags, plan.flag: known}, segments))], flag(plan.flag), contexts)
    rows, first = _rows(table), first_stages(found)
    template = numbered([each.attributes.template for each in table])
    chosen = sample(first, template, rows.memory, plan.sample, plan.seed)
    names = tuple(rehearsed_name(each.attributes.sandbox) for each in table)
    units = {unit: tuple(str(getattr(each.attributes, unit)) for each in table) for unit in ("team", "cluster")}
    fleet = UserFleet(
        rows,
        names,
        tuple(found),
        as_it_is,
        first,
        chosen,
        units,
        warnings=tuple(warnings_of(plan, read, stages[-1][1] if stages else None)),
        assumed=tuple(assumed(read.rows)),
        further=further_types(each.attributes for each in table),
    )
    return on_nodes(plan, chosen, table), fleet


def contexts_of(plan: Plan, table: Sequence[UserSandbox]) -> list[Any]:
    """The SDK's contexts of every row, for the plan's flag."""
    return [make_context(context_of(plan, each.attributes)) for each in table]


def warnings_of(plan: Plan, table: SandboxTable, served: Sections | None) -> Iterator[str]:
    """What is odd about the table's columns, and what the flag reads that it lacks, a sentence each."""
    yield from (each.said for each in table.notes)
    if served is not None:
        rows, shape = [each.attributes for each in table.rows], plan.contexts.shapes[flag(plan.flag).moments[0]]
        yield from map(str, lacking(plan.flag, *served, rows, shape))


def _rows(table: list[UserSandbox]) -> Rows:
    memory = np.array([float(each.memory) for each in table])
    return Rows(
        memory=memory,
        dirty=memory * np.array([each.dirty for each in table]) / 100,
        pauses_per_hour=np.array([each.pauses_per_hour + each.checkpoints_per_hour for each in table]),
        team=numbered([each.attributes.team for each in table]),
        node=numbered([each.node for each in table]),
        cluster=numbered([each.attributes.cluster for each in table]),
    )
