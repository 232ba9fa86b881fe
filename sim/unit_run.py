"""Runs one unit in this process: the scenario to its verdict, its result, and what becomes of its folder."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.errors import UserError
from sim import events
from sim.cluster import Firing, Judgement, Keep, Point, SettledPause, Unit, UnitResult, remove_leftovers, scratch
from sim.ledger import Entry
from sim.node_link import NodeStarter, execute_node
from sim.packed_run import pack
from sim.run_folder import LATEST, claim
from sim.runner import RunOptions, RunResult, run_scenario
from sim.scenario import load_text


async def run_unit(unit: Unit, start_node: NodeStarter = execute_node) -> UnitResult:
    """Run it; whatever goes wrong is in the result. Cancelled, the run is torn down and its folder removed."""
    began = time.monotonic()
    folder = scratch(unit.runs_dir, os.getpid())
    options = RunOptions(
        runs_dir=folder,
        seed=unit.seed,
        cache_dir=unit.cache_dir,
        keep="never",  # the cache: guest memory, often on tmpfs
        time_limit=unit.time_limit,
        trace=unit.trace,
        start_node=start_node,
    )
    try:
        scenario = load_text(unit.text, unit.path)
        run = await run_scenario(scenario, options)
    except UserError as error:
        return _failed(unit, began, str(error))
    except Exception:  # noqa: BLE001 - a defect in one unit is no end of the others
        return _failed(unit, began, traceback.format_exc())
    else:
        verdict = run.view.ended.verdict if run.view.ended else None
        kept = _settle(run.run_dir, unit, keep=_is_kept(unit.keep, verdict))
        return _result(unit, run, time.monotonic() - began, kept)
    finally:
        remove_leftovers(folder)


def _failed(unit: Unit, began: float, error: str) -> UnitResult:
    """Its folder, where one was made, is kept unless nothing is to be."""
    made = [path for path in scratch(unit.runs_dir, os.getpid()).glob("*/*") if path.name != LATEST]
    kept = _settle(made[0], unit, keep=unit.keep != "never") if made else {}
    return UnitResult(unit.name, None, seconds=time.monotonic() - began, error=error, **kept)


def _is_kept(keep: Keep, verdict: str | None) -> bool:
    return keep == "always" or (keep == "failed" and verdict != "held")


def _settle(run_dir: Path, unit: Unit, *, keep: bool) -> dict[str, Any]:
    """Move a run that is kept to where runs are, or pack it; what the result says of it."""
    if not keep:
        return {}
    return {"packed": pack(run_dir)} if unit.packed else {"run_dir": claim(run_dir, unit.runs_dir)}


def _result(unit: Unit, run: RunResult, seconds: float, kept: dict[str, Any]) -> UnitResult:
    view = run.view
    return UnitResult(
        name=unit.name,
        verdict=view.ended.verdict if view.ended else None,
        digest=view.ended.digest if view.ended else None,
        judgements=tuple(Judgement(j.subject, j.verdict, j.checked, tuple(j.violations)) for j in view.judged),
        states={name: each.state for name, each in view.sandboxes.items()},
        pauses=tuple(
            SettledPause(p.sandbox, p.id, p.outcome, p.checkpoint, p.punched_bytes, p.error)
            for p in view.pauses
            if p.outcome is not None
        ),
        firings=tuple(_firings(run.entries)),
        points=tuple(_points(run.entries)) if unit.trace else (),
        seconds=seconds,
        **kept,
    )


def _firings(entries: Sequence[Entry]) -> list[Firing]:
    return [
        Firing(each.sandbox or "", each.pause, each.event.fault, each.event.error, each.event.chunk)
        for each in entries
        if isinstance(each.event, events.FaultFired)
    ]


def _points(entries: Sequence[Entry]) -> list[Point]:
    found, step = [], 0
    for each in entries:
        if isinstance(each.event, events.StepStarted):
            step = each.event.index
        elif isinstance(each.event, events.PointReached):
            reached = each.event
            found.append(Point(each.sandbox or "", each.pause, step, reached.fault, reached.chunk, reached.nth))
    return found
