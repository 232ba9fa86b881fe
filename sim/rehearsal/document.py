"""The `rehearse --json` document and rehearsal.json. Bytes, seconds of the plan's clock, milliseconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

from sim.figures import Figure
from sim.rehearsal.claims import claims
from sim.rehearsal.figures import Figures
from sim.rehearsal.kill_switch import SHARES, Way, ways
from sim.rehearsal.measures import MEASURES
from sim.rehearsal.production import production
from sim.rehearsal.results import Rehearsal, StageResult, StepResult
from sim.rehearsal.text import of_production
from sim.report.document import scenario_document

VERSION = 1


def rehearsal_document(found: Rehearsal) -> dict[str, Any]:
    """JSON-ready; `origins` tags every figure measured, given, derived or assumed."""
    first = found.first_failing
    run = found.on.view.run
    return {
        "version": VERSION,
        "plan": {"name": found.plan.name, "file": str(found.plan.path), "flag": found.plan.flag, "by": found.plan.by},
        "seed": run.seed if run else found.plan.seed,
        "decision": found.decision,
        "verdict": found.verdict.value,
        "exit_code": int(found.verdict.exit_code),
        "reasons": list(found.reasons),
        "conditions": list(found.conditions),
        "first_failing_step": None if first is None else first.index,
        "arms": "in turns" if found.in_turns else "flag off first",
        "time": {"kind": found.plan.time, "plan_seconds": found.virtual, "took_seconds": round(found.seconds, 3)},
        "steps": [_step(each) for each in found.steps],
        "not_taken": len(found.plan.steps) - len(found.steps),
        "stages": [_stage(each) for each in found.stages],
        "weaknesses": [str(each) for each in found.weaknesses],
        "kill_switch": _kill_switch(found),
        "claims": [{"status": status, "claim": sentence} for status, sentence in claims(found)],
        "origins": origins(found),
        "production": _production(found),
        "runs": {"on": scenario_document(found.on.view), "off": scenario_document(found.off.view)},
        "folders": {"on": str(found.on.run_dir), "off": str(found.off.run_dir)},
    }


def origins(found: Rehearsal) -> dict[str, str]:
    """Where each kind of figure comes from."""
    fleet = "given" if found.plan.production else "the rehearsed fleet"
    return {
        **{f"metrics.{name}": each.origin for name, each in MEASURES.items()},
        "stages.exposed": "derived",
        "stages.counts": "measured",
        "stages.pools": "measured",
        "stages.blast_radius": "derived",
        "kill_switch.propagation": found.plan.propagation.origin,
        "kill_switch.fleet": fleet,
        "kill_switch.loopback_ms": "measured",
        "time": "given",
    }


def _kill_switch(found: Rehearsal) -> dict[str, Any]:
    drawn = found.drawn
    return {
        "propagation": {
            "origin": found.plan.propagation.origin,
            "draws": len(drawn),
            "seconds": {name: drawn[int(share * (len(drawn) - 1))] for name, share in _SHARES.items()},
        },
        "ways": [_way(each) for each in ways(found)],
        "loopback_ms": list(found.kill_switch_ms),
    }


def _way(way: Way) -> dict[str, Any]:
    """Null seconds where OFF is never obeyed."""
    names = [f"p{share:g}" if share < 100 else "max" for share in SHARES]
    seconds = None if way.seconds is None else dict(zip(names, way.seconds, strict=True))
    reached = None if way.reached is None else {"p50": way.reached[0], "p99": way.reached[1]}
    return {"name": way.name, "seconds": seconds, "reached": reached, "known": way.known, "note": way.note}


_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}


def _step(step: StepResult) -> dict[str, Any]:
    metrics = [
        {
            "name": each.metric.name,
            "outcome": each.outcome.value,
            "why": each.why,
            "critical": each.metric.critical,
            "dry_run": each.metric.dry_run,
            "values": [m.value for m in each.measurements],
            "bands": [[m.low, m.high] for m in each.measurements],
            "unit": MEASURES[each.metric.name].unit,
            "origin": MEASURES[each.metric.name].origin,
        }
        for each in step.metrics
    ]
    return asdict(replace(step, metrics=())) | {"metrics": metrics}


def _stage(each: StageResult) -> dict[str, Any]:
    exposure = each.exposure
    return {
        "number": each.stage.number,
        "weight": each.stage.weight,
        "complete": each.complete,
        "exposed": {
            "sandboxes": list(exposure.sandboxes),
            "contexts": exposure.contexts,
            "of_contexts": exposure.of_contexts,
            "joins": len(exposure.joins),
            "leaves": list(exposure.leaves),
            "superset": exposure.is_superset,
        },
        "on": _figures(each.on),
        "off": _figures(each.off),
        "saved_at_peak": {
            "hugetlb": each.off.pools.hugetlb - each.on.pools.hugetlb,
            "pages": each.off.pools.pages - each.on.pools.pages,
            "largest_pauses_at_once": each.saved,
        },
        "lost_because_of_the_flag": list(each.lost_by_flag),
        "blast_radius": asdict(each.blast),
        "bounds_95": {
            "discarded": _bound(each.on.discarded, each.on.asked),
            "lost_because_of_the_flag": _bound(len(each.lost_by_flag), each.on.punched_pauses),
            "corrupted": _bound(each.on.corrupted, each.on.asked),
        },
    }


def _figures(figures: Figures) -> dict[str, Any]:
    """Without what single pauses took: `runs` has them."""
    return {key: value for key, value in asdict(figures).items() if key != "costs"}


def _production(found: Rehearsal) -> dict[str, Any] | None:
    """In production's units, each figure with how it is known; None where the plan names no fleet file."""
    made = production(found)
    if made is None:
        return None

    def figures(some: Iterable[Figure]) -> dict[str, Any]:
        return {each.label: each.document() for each in some}

    stages = [{"weight": e.weight, "fleet": figures(e.fleet), "node": figures(e.node)} for e in made.stages]
    return {"of": of_production(made), "stages": stages, "assumed": figures(made.assumed), "notes": list(made.notes)}


def _bound(count: int, tries: int) -> float | None:
    """What a count of none may be at 95 % confidence, as a share; None where something was counted or nothing tried."""
    return None if count or not tries else min(1.0, 3 / tries)
