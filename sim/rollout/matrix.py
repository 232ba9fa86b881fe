"""Each step of a plan x each fault of a chosen set: one small run a cell, each outcome in a table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from junitparser import Failure, TestCase, TestSuite

from sim.files.flag_values import written_lease
from sim.files.plan import Analysis, KillSwitchDrill, Plan, PlanWait, SetWeight
from sim.files.scenario import load_text
from sim.files.yaml import scenario_text
from sim.record.verdict import ExitCode, Verdict
from sim.report import words
from sim.report.table import Bullets, CellSpan, Paragraph, Section, Table, Words, facts, toned
from sim.rollout.compiled import engine_of
from sim.rollout.exposure import exposures
from sim.rollout.gates import label
from sim.rollout.stage_flags import bare_value, exported, stage_value
from sim.run.batch import Batch
from sim.run.cases import Unit, UnitResult
from sim.run.pool import Pool

CELL_SECONDS = 60.0
_LEAST = 4
_MOST = 24
"""Sandboxes of a group in a cell."""

Where = Literal["load", "source"]


@dataclass(frozen=True, slots=True)
class MatrixFault:
    """One column: what breaks, as a scenario's steps say it. `source` faults break the flag service."""

    name: str
    sentence: str
    where: Where
    steps: tuple[Mapping[str, Any], ...]


def _inject(name: str, sentence: str, **settings: Any) -> MatrixFault:
    return MatrixFault(name, sentence, "load", ({"inject": settings},))


def _outage(name: str, sentence: str, **settings: Any) -> MatrixFault:
    return MatrixFault(name, sentence, "source", ({"outage": {"fault": name, **settings}},))


_DIES = {"at": {"fault": "finish"}}
FAULTS: tuple[MatrixFault, ...] = (
    _inject("first-chunk", "the first chunk cannot be written", fault="copy.write", errno="EIO", at="first"),
    _inject("mid-copy", "a chunk past the point of no return cannot", fault="copy.write", at="after_condemn"),
    _inject("no-space", "there is no room for the copy", fault="reserve", errno="ENOSPC"),
    _inject("condemn", "the point of no return cannot be recorded", fault="condemn", errno="ENOSPC"),
    _inject("punch", "the kernel refuses to free memory", fault="punch", errno="EPERM", at="first"),
    _inject("finish", "the build cannot be finished", fault="finish", errno="EIO"),
    _inject("guest-dies", "the guest dies while it is copied", fault="copy.read", how="kill-guest", at="first"),
    MatrixFault("node-dies", "the node dies when a build is finished", "load", ({"crash": _DIES},)),
    _outage("down", "the flag service is gone"),
    _outage("freeze", "half-open: the connection stays, nothing comes"),
    _outage("malformed", "a patch is cut off in the middle"),
    _outage("refuse", "the flag service answers 503", status=503),
)
_TORN = _outage("tear", "the flag file is cut off in the middle")


def faults_for(plan: Plan) -> tuple[MatrixFault, ...]:
    """The columns of a plan: the user's own flag comes from its file, which can be torn, and not from a service."""
    if exported(plan) is None:
        return FAULTS
    return (*(each for each in FAULTS if each.where == "load"), _TORN)


@dataclass(frozen=True, slots=True)
class Cell:
    """Plan step `step` (0-based) under this fault. `what` is the outcome in a word or two, `bad` a violation."""

    step: int
    fault: str
    what: str
    bad: bool
    result: UnitResult | None = None


@dataclass(frozen=True, slots=True)
class FaultMatrix:
    """Every cell of a plan; the steps that the load or the source has a part in, by index."""

    plan: Plan
    rows: tuple[int, ...]
    cells: tuple[Cell, ...]
    seconds: float

    @property
    def bad(self) -> tuple[Cell, ...]:
        """Cells that violated an invariant, or broke."""
        return tuple(each for each in self.cells if each.bad)


def rows(plan: Plan) -> list[tuple[int, float]]:
    """(step, weight) of the steps in which load runs or the weight changes."""
    found, weight = [], 0.0
    for index, step in enumerate(plan.steps):
        weight = step.weight if isinstance(step, SetWeight) else weight
        if isinstance(step, SetWeight | PlanWait | Analysis | KillSwitchDrill):
            found.append((index, weight))
    return found


def cell_scenario(plan: Plan, index: int, weight: float, fault: MatrixFault, fleet: list[Any]) -> dict[str, Any]:
    """The scenario of one cell: the fault, the step under it, the fault's end, and a round without it."""
    data: dict[str, Any] = {"version": 1, "name": plan.name, "seed": plan.seed}
    data |= {"node": plan.document.data["node"]} if "node" in plan.document.data else {}
    data |= {"engine": engine} if (engine := engine_of(plan)) else {}
    at_once = 1 if _crashes(fault) else plan.pacing.at_once  # who else is condemned at a crash is a race
    change = _change(plan, index)
    soon, late = ([], change) if fault is _TORN else (change, [])  # no torn file is edited before it is whole again
    steps = [*_before(plan, index), {"tick": 1}, *map(dict, fault.steps), *soon, {"tick": 1}, _pause(at_once)]
    steps += [_end(fault), *late, _RESUME, {"tick": 1}, _pause(plan.pacing.at_once), _RESUME]
    data |= {"contexts": plan.contexts.written}
    return data | {"fleet": fleet, "flags": _cell_flags(plan, index, weight, fault), "steps": steps}


_RESUME: dict[str, Any] = {"resume": {"allow_empty": True}}


def _pause(concurrency: int) -> dict[str, Any]:
    return {"pause": {"concurrency": concurrency, "allow_empty": True}}


def _crashes(fault: MatrixFault) -> bool:
    return any("crash" in each for each in fault.steps)


def _change(plan: Plan, index: int) -> list[dict[str, Any]]:
    """What the step itself does to the flag."""
    match plan.steps[index]:
        case SetWeight():
            return [_set(plan, index)]
        case KillSwitchDrill():
            return [{"flag": {plan.flag: plan.safe}}]
    return []


def _end(fault: MatrixFault) -> dict[str, Any]:
    """A crash that never came leaves the node up: a restart is right in both cases."""
    if _crashes(fault):
        return {"restart": {}}
    return {"outage": {"fault": "recover"}} if fault.where == "source" else {"clear": {}}


def _cell_flags(plan: Plan, index: int, weight: float, fault: MatrixFault) -> dict[str, Any]:
    start = _weight_before(plan, index) if isinstance(plan.steps[index], SetWeight) else weight
    given = plan.document.data.get("flags") or {}
    if exported(plan) is not None:
        return {"obey_unsafe": True, **given, "lease": written_lease(plan.lease)}
    flags = {key: value for key, value in given.items() if key not in {"source", "start", "file"}}
    flags[plan.flag] = bare_value(plan, start)
    return {**flags, "source": "relay", "lease": written_lease(plan.lease)} if fault.where == "source" else flags


def _set(plan: Plan, index: int) -> dict[str, Any]:
    step = plan.steps[index]
    if not isinstance(step, SetWeight):
        raise TypeError(f"step {index} sets no weight")
    return {"flag": {plan.flag: stage_value(plan, step.weight, step.rule)}}


def _before(plan: Plan, index: int) -> list[dict[str, Any]]:
    """The edits of the user's flag up to this step; a flag of our own making starts as they leave it."""
    if exported(plan) is None:
        return []
    return [_set(plan, each) for each in range(index) if isinstance(plan.steps[each], SetWeight)]


def _weight_before(plan: Plan, index: int) -> float:
    weights = [each.weight for each in plan.steps[:index] if isinstance(each, SetWeight)]
    return weights[-1] if weights else 0.0


def sample(plan: Plan, index: int) -> list[dict[str, Any]]:
    """The fleet's groups, each as small as still has a sandbox exposed at this step, if it has one.

    Of a table's sandboxes a few that are exposed, and a few that are not.
    """
    edits = [(each.weight, each.rule) for each in plan.steps[: index + 1] if isinstance(each, SetWeight)]
    exposed = set(exposures(plan, [weight for weight, _ in edits], [rule for _, rule in edits])[-1].sandboxes)
    made = []
    if plan.fleet[0].exact:
        raw = plan.document.data["fleet"]
        parts = [[e for e in raw if (e["name"] in exposed) is on][:_LEAST] for on in (True, False)]
        return [dict(each) for part in parts for each in part]
    for group, raw in zip(plan.fleet, plan.document.data["fleet"], strict=True):
        first = next((n for n in range(group.count) if f"{group.name}-{n}" in exposed), 0)
        count = first + 1 if first < _MOST else _LEAST
        made.append({**raw, "count": min(group.count, max(_LEAST, count))})
    return made


def run_matrix(
    plan: Plan,
    runs_dir: Path,
    pool: Pool,
    batch: Batch,
    *,
    seed: int | None = None,
    faults: Sequence[MatrixFault] | None = None,
) -> FaultMatrix:
    """Every cell through the pool; cells that need the same run share it. `seed` instead of the plan's."""
    began = time.monotonic()
    texts: dict[tuple[int, str], str] = {}
    for index, weight in rows(plan):
        fleet = sample(plan, index)
        for fault in faults_for(plan) if faults is None else faults:
            document = cell_scenario(plan, index, weight, fault, fleet)
            texts[index, fault.name] = scenario_text(document, f"{plan.name}, step {index + 1}: {fault.sentence}.")
    results: dict[str, UnitResult] = {}

    def take(bare: str, result: UnitResult) -> tuple[ExitCode, str]:
        results[bare] = result
        return ExitCode.HELD, "runs"

    units = _units(plan, _shared(texts), runs_dir, seed)
    batch.through(pool, plan.name, units, len(units), take)
    cells = [_cell(index, name, results[_bare(text)]) for (index, name), text in texts.items()]
    return FaultMatrix(plan, tuple(index for index, _ in rows(plan)), tuple(cells), time.monotonic() - began)


def _bare(text: str) -> str:
    """Without the comment at its head."""
    return text.partition("\n")[2]


def _shared(texts: Mapping[tuple[int, str], str]) -> dict[str, tuple[str, str]]:
    """Name and text of each different run, by its bare text."""
    made: dict[str, tuple[str, str]] = {}
    for (index, name), text in texts.items():
        made.setdefault(_bare(text), (f"step-{index + 1}-{name}", text))
    return made


def _units(
    plan: Plan, shared: Mapping[str, tuple[str, str]], runs_dir: Path, seed: int | None
) -> list[tuple[str, Unit]]:
    """Bare text and unit of each different run."""
    made = []
    for bare, (name, text) in shared.items():
        unit = Unit.of(name, load_text(text, plan.path), runs_dir, seed=seed)
        made.append((bare, replace(unit, text=text, time_limit=CELL_SECONDS)))
    return made


def _cell(step: int, fault: str, result: UnitResult) -> Cell:
    what, bad = outcome(result)
    return Cell(step, fault, what, bad, result)


def outcome(result: UnitResult) -> tuple[str, bool]:
    """A cell in a word or two, and whether it is bad: an invariant violated, or a run without a verdict."""
    if result.why_broken is not None:
        return "BROKEN", True
    if result.violated:
        return f"VIOLATED {result.violated[0].subject.partition(':')[2]}", True
    if any(each.subject.startswith("fault:") and each.verdict != Verdict.HELD for each in result.judged):
        return "not reached", False
    counts = result.counts
    lost = [f"{counts[state]} {state}" for state in ("discarded", "killed") if counts.get(state)]
    if lost:
        return ", ".join(lost), False
    back = sum(settled.outcome == "rolled-back" for settled in result.settled.values())
    return (f"{back} rolled back", False) if back else ("held", False)


_READING = (
    "held: no sandbox was lost; rolled back: ran on; discarded, killed: lost, and no punched sandbox was resumed; "
    "not reached: the step does not get as far as the fault"
)


def table(matrix: FaultMatrix) -> Table:
    """A row a step, a column a fault."""
    faults = list(dict.fromkeys(each.fault for each in matrix.cells))
    cells = {(each.step, each.fault): each for each in matrix.cells}
    rows: list[tuple[Words, ...]] = [
        (_row_name(matrix.plan, row), *(_shown(cells[row, fault]) for fault in faults)) for row in matrix.rows
    ]
    return Table(("step", *faults), rows)


def _shown(cell: Cell) -> CellSpan:
    return toned(cell.what, "bad" if cell.bad else "plain")


def _row_name(plan: Plan, index: int) -> str:
    step = plan.steps[index]
    at = "" if isinstance(step, SetWeight) else f" at {_weight_before(plan, index):g} %"
    return f"{index + 1:>2} {label(step)}{at}"


def sections(matrix: FaultMatrix) -> list[Section]:
    """The table, what its columns mean, and every bad cell with where to look."""
    different = len({id(each.result) for each in matrix.cells})
    counted = f"{len(matrix.cells)} cells by {words.plural(different, 'run')} in {matrix.seconds:.1f} s"
    title = f"{matrix.plan.name}: each step x each fault: {counted}; coverage, no rate"
    bad = [_bad(each) for each in matrix.bad]
    said = f"{len(matrix.bad)} bad" if matrix.bad else "every invariant held in every cell"
    return [
        Section(title, (table(matrix),)),
        Section("faults", (facts((each.name, each.sentence) for each in faults_for(matrix.plan)), Paragraph(_READING))),
        Section("", (Bullets(bad), Paragraph(said))),
    ]


def _bad(cell: Cell) -> str:
    result = cell.result
    folder = f"; see {result.run_dir}" if result is not None and result.run_dir else ""
    error = f": {result.why_broken}" if result is not None and result.why_broken else ""
    return f"step {cell.step + 1}, {cell.fault}: {cell.what}{error}{folder}"


def junit(matrix: FaultMatrix) -> TestSuite:
    """One case a cell; a bad one is a failure. Cells of one run share its time: only the first of them has it."""
    suite = TestSuite(words.scrub(f"{matrix.plan.name}: each step x each fault"))
    timed: set[int] = set()
    for cell in matrix.cells:
        seconds = 0.0 if cell.result is None or id(cell.result) in timed else cell.result.seconds
        timed.add(id(cell.result))
        case = TestCase(
            words.scrub(f"{_row_name(matrix.plan, cell.step).strip()}, {cell.fault}"), suite.name, round(seconds, 3)
        )
        if cell.bad:
            case.result = [Failure(words.scrub(_bad(cell)), "Bad")]
        suite.add_testcase(case)
    suite.time = matrix.seconds
    return suite


def document(matrix: FaultMatrix) -> dict[str, Any]:
    """JSON-ready."""
    return {
        "plan": matrix.plan.name,
        "seconds": round(matrix.seconds, 3),
        "cells": [{"step": e.step, "fault": e.fault, "outcome": e.what, "bad": e.bad} for e in matrix.cells],
        "bad": len(matrix.bad),
    }
