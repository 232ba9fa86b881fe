"""A rehearsal that waits for approval, as its run folder keeps it: what was shown until then, to go on from there."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from engine.errors import UserError
from engine.reading import MOST_TABLE_BYTES, read_regular
from sim.files.plan import Plan
from sim.rollout.analysis import Arms, Measurement, MetricOutcome, MetricResult, Pair
from sim.rollout.gates import Gates
from sim.rollout.results import Rehearsal, StepResult

APPROVAL_FILE = "approval.json"
VERSION = 1


@dataclass(frozen=True, slots=True)
class _StoredMetric:
    """A metric's result by its name: its conditions are the plan's."""

    name: str
    measurements: tuple[Measurement, ...]
    outcome: MetricOutcome
    why: str


@dataclass(frozen=True, slots=True)
class _Stored:
    """`metrics` by step, `arms` by the stage's number (without its pairs); `clock` seconds of the plan's own time."""

    version: int
    plan: str
    seed: int
    clock: float
    steps: tuple[StepResult, ...]
    metrics: tuple[tuple[_StoredMetric, ...], ...]
    arms: dict[int, Arms]
    compared: tuple[Pair, ...]


_FORM = TypeAdapter(_Stored)


@dataclass(frozen=True, slots=True)
class Approved:
    """The part of a rehearsal up to its approval; `last` is the plan step (from 0) that stopped it."""

    folder: Path
    stored: _Stored

    @property
    def last(self) -> int:
        """The approve step."""
        return self.stored.steps[-1].index

    @property
    def seed(self) -> int:
        """Both parts have the same."""
        return self.stored.seed

    @property
    def _went_on(self) -> str:
        return f"approved: goes on from {self.folder}, with new guests"

    def put_into(self, gates: Gates) -> None:
        """Its steps and stages become those of the run that goes on; its rounds come before the new ones."""
        known = {each.name: each for each in gates.compiled.plan.metrics}
        for step, metrics in zip(self.stored.steps, self.stored.metrics, strict=True):
            results = tuple(MetricResult(known[e.name], e.measurements, e.outcome, e.why) for e in metrics)
            gates.results.append(replace(step, metrics=results))
        gates.results[-1] = replace(gates.results[-1], stopped=None, detail=self._went_on)
        gates.arms.update(self.stored.arms)
        gates.clock = self.stored.clock
        gates.earlier = gates.compared = _before(self.stored.compared)


def _before(compared: tuple[Pair, ...]) -> tuple[Pair, ...]:
    """With numbers of rounds below 0: the run that goes on counts from 0."""
    shift = 1 + max((each.on.nth for each in compared), default=0)
    return tuple(
        Pair(replace(each.on, nth=each.on.nth - shift), replace(each.off, nth=each.off.nth - shift))
        for each in compared
    )


def approval_document(found: Rehearsal, seed: int) -> dict[str, Any]:
    """JSON-ready: what `approved` reads."""
    arms = {
        each.stage.number: Arms(each.on, each.off, found.plan.node.memory, found.plan.pacing.at_once)
        for each in found.stages
    }
    stored = _Stored(
        version=VERSION,
        plan=fingerprint(found.plan),
        seed=seed,
        clock=found.virtual,
        steps=tuple(replace(each, metrics=()) for each in found.steps),
        metrics=tuple(
            tuple(_StoredMetric(e.metric.name, e.measurements, e.outcome, e.why) for e in step.metrics)
            for step in found.steps
        ),
        arms=arms,
        compared=found.compared,
    )
    return asdict(stored)


def approved(folder: Path, plan: Plan, seed: int | None = None) -> Approved:
    """What a run folder keeps of a rehearsal of this plan; UserError where it cannot go on from there."""
    path = folder / APPROVAL_FILE
    try:
        stored = _FORM.validate_python(json.loads(read_regular(path, MOST_TABLE_BYTES)))
    except FileNotFoundError:
        raise UserError(
            f"--continue: {folder} is no rehearsal that waits for approval: it has no {path.name}"
        ) from None
    except (OSError, ValueError, RecursionError, ValidationError) as error:
        first = str(error).partition("\n")[0]
        raise UserError(f"--continue: {path} cannot be read: {first}; rehearse the plan from its start") from None
    if stored.version != VERSION or not stored.steps:
        raise UserError(f"--continue: {path} is not of version {VERSION}; rehearse the plan from its start")
    if stored.plan != fingerprint(plan):
        what = "the plan, its flag file, its fleet or an option such as --lease or --guest is not what was approved"
        raise UserError(f"--continue: {what} in {folder}; rehearse the plan from its start")
    if seed not in {None, stored.seed}:
        raise UserError(f"--continue: {folder} was rehearsed with seed {stored.seed}; leave --seed out")
    return Approved(folder, stored)


def fingerprint(plan: Plan) -> str:
    """Of everything that the plan's steps depend on: its text, its flag file, its fleet, its lease and its engine.

    Guests of another kind than the file's are part of it too.
    """
    told = hashlib.sha256(plan.source_text.encode())
    said = [plan.lease, plan.engine.model_dump(mode="json"), plan.flag_source]
    told.update(json.dumps([*said, *([plan.asked_guest] if plan.asked_guest else [])]).encode())
    fleet = None if plan.fleet_file is None else plan.path.parent / plan.fleet_file
    for each in (plan.flag_file, fleet):
        told.update(b"-" if each is None else hashlib.sha256(read_regular(each, MOST_TABLE_BYTES)).digest())
    return told.hexdigest()
