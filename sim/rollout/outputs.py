"""JSON, JUnit, HTML and plot of a rehearsal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from html import escape
from typing import Any

from junitparser import Error, Failure, Skipped, TestCase, TestSuite

from sim.files.figures import Figure
from sim.files.metrics import MEASURES
from sim.files.plan import Plan
from sim.record import events
from sim.record.folder import StoredRun
from sim.record.ledger import Entry
from sim.report.document import scenario_document
from sim.report.html import WITHOUT_PLOTLY, page, write_page
from sim.report.plot import as_html
from sim.report.words import scrub
from sim.rollout.analysis import MetricOutcome
from sim.rollout.compiled import Compiled, compiled
from sim.rollout.decision_page import stage_bound
from sim.rollout.delays import delay_of
from sim.rollout.gates import label
from sim.rollout.incident_clock import StageIncident
from sim.rollout.production import SHARES, Way, claims, production, ways
from sim.rollout.results import Rehearsal, StageResult, StepResult
from sim.rollout.sections import TONES, of_production, sections
from sim.rollout.stage_drawing import stage_panels
from sim.rollout.stretch import Figures

VERSION = 1


def rehearsal_document(found: Rehearsal) -> dict[str, Any]:
    """JSON-ready; `origins` tags every figure measured, given, derived or assumed."""
    first = found.first_failing
    run = found.on.view.run
    return {
        "version": VERSION,
        "plan": {"name": found.plan.name, "file": str(found.plan.path), "flag": found.plan.flag, "by": found.plan.by},
        "seed": run.seed if run else found.plan.seed,
        "guest": found.plan.asked_guest,
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
        "bound": None if found.bound is None else asdict(found.bound) | {"met": found.bound.is_met},
        "concerns": [asdict(each) for each in found.concerns],
        "warnings": [] if found.fleet is None else list(found.fleet.warnings),
        "kill_switch": _kill_switch(found),
        "claims": [{"status": status, "claim": sentence} for status, sentence in claims(found)],
        "origins": origins(found),
        "production": _production(found),
        "runs": {name: scenario_document(run.view) for name, run in _runs(found).items()},
        "folders": {name: str(run.folder) for name, run in _runs(found).items()},
        "salvage_arm": _salvage_arm(found),
        "continues": None if found.continues is None else str(found.continues),
    }


def origins(found: Rehearsal) -> dict[str, str]:
    """Where each kind of figure comes from."""
    fleet = "given" if found.plan.production else "the rehearsed fleet"
    return {
        **{f"metrics.{name}": each.origin for name, each in MEASURES.items()},
        "stages.exposed": "derived",
        "stages.counts": "measured",
        "stages.pools": "measured",
        "stages.incident": "derived",
        **({} if found.three is None else {"salvage_arm": "measured"}),
        "bound": "derived",
        "kill_switch.propagation": found.plan.propagation.origin,
        "kill_switch.fleet": fleet,
        "kill_switch.loopback_ms": "measured",
        "time": "given",
    }


def _runs(found: Rehearsal) -> dict[str, StoredRun]:
    third = {} if found.three is None else {"salvage": found.three.run}
    return {"on": found.on, "off": found.off, **third}


def _salvage_arm(found: Rehearsal) -> dict[str, Any] | None:
    """Bytes and seconds; None without a third arm."""
    three = found.three
    if three is None:
        return None
    arms = {"off": three.off, "on": three.on, "salvage": three.salvage}
    return {name: asdict(arm) for name, arm in arms.items()} | {"salvaged": asdict(three.salvaged)}


def _kill_switch(found: Rehearsal) -> dict[str, Any]:
    stream = delay_of(found.plan.propagation)
    return {
        "propagation": {
            "origin": found.plan.propagation.origin,
            "seconds": {name: stream.quantile(share) for name, share in _SHARES.items()},
        },
        "ways": [_way(each) for each in ways(found)],
        "loopback_ms": list(found.kill_switch_ms),
    }


def _way(way: Way) -> dict[str, Any]:
    """Null seconds where OFF is never obeyed."""
    names = [f"p{share:g}" if share < 100 else "max" for share in SHARES]
    seconds = None if way.seconds is None else dict(zip(names, way.seconds, strict=True))
    return {"name": way.name, "seconds": seconds, "known": way.known, "note": way.note}


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
            "intervals": [None if m.interval is None else asdict(m.interval) for m in each.measurements],
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
            "can_punch": len(exposure.able),
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
        "incident": None if each.incident is None else _incident(each.incident),
        "bounds_95": {"lost_because_of_the_flag": stage_bound(each)},
    }


def _incident(of: StageIncident) -> dict[str, Any]:
    """Seconds, and numbers of sandboxes; null where a delay that it needs was not given."""
    parts = [
        {
            "name": each.name,
            "known": each.known,
            "per_node": each.per_node,
            "seconds": {name: each.delay.quantile(share) for name, share in _SHARES.items()},
        }
        for each in of.parts
    ]
    return {
        "exposed": of.exposed,
        "clock": parts,
        "obeyed_seconds": dict(zip(("p50", "p99"), of.obeyed, strict=True)),
        "punched": asdict(of.punched),
        "lost": None if of.lost is None else asdict(of.lost),
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


HTML_FILE = "rehearsal.html"
WITHOUT_PLOT = "Tables only. snapdrill rehearse --html draws memory over the plan and propagation as well."
DRAWN = "Memory of the node over the plan (measured), and how long a kill switch takes"


def rehearsal_page(found: Rehearsal, *, with_plot: bool = False) -> str:
    """The sections as a page; with a plot where it is asked for and plotly is installed."""
    runs = {"with the flag": found.on.folder, "with the flag off": found.off.folder}
    runs |= {} if found.three is None else {"with the flag and salvage": found.three.run.folder}
    return page(
        "rehearsal.html",
        found.decision.upper(),
        TONES[found.decision],
        found.plan.name,
        sections=sections(found),
        panels=stage_panels(found),
        drawn=DRAWN,
        plot=plot(found) if with_plot else None,
        without_plot=WITHOUT_PLOTLY if with_plot else WITHOUT_PLOT,
        runs=[(name, os.path.relpath(run / "report.html", found.folder)) for name, run in runs.items()],
    )


def write_rehearsal_page(found: Rehearsal, *, with_plot: bool = False) -> None:
    """Beside the other reports of the run with the flag on, atomically."""
    write_page(found.folder / HTML_FILE, rehearsal_page(found, with_plot=with_plot))


def rehearsal_suite(found: Rehearsal) -> TestSuite:
    """Failed steps are failures, errors and what is inconclusive errors; steps not taken are skipped."""
    suite = TestSuite(f"rehearse {found.plan.name}")
    run = found.on.view.run
    suite.add_property("seed", str(run.seed if run else found.plan.seed))
    suite.add_property("decision", found.decision)
    cases = [_case(found, each) for each in found.steps]
    for index in range(len(found.steps), len(found.plan.steps)):
        case = TestCase(scrub(_step_name(found.plan, index)), found.plan.name, 0.0)
        case.result = [Skipped("not taken: the rollout had stopped")]
        cases.append(case)
    decision = TestCase("decision", found.plan.name, found.seconds)
    said = scrub("; ".join(found.reasons))
    if found.decision != "go":
        decision.result = [Failure(said, "NoGo") if found.decision == "no-go" else Error(said, "Inconclusive")]
    suite.add_testcases([*cases, decision])
    suite.time = found.seconds
    return suite


def _step_name(plan: Plan, index: int) -> str:
    """With its place in the plan file, not its number."""
    return f"{label(plan.steps[index])} (line {plan.origin(('steps', index)).line})"


def _case(found: Rehearsal, step: StepResult) -> TestCase:
    case = TestCase(scrub(_step_name(found.plan, step.index)), found.plan.name, 0.0)
    place = found.plan.place(("steps", step.index))
    if step.outcome is MetricOutcome.FAILED:
        case.result = [Failure(scrub(f"{place}: {step.detail}"), "Failed")]
    elif step.outcome is not MetricOutcome.SUCCESSFUL:
        case.result = [Error(scrub(f"{place}: {step.detail}"), step.outcome.value.capitalize())]
    else:
        case.system_out = scrub(step.detail)
    return case


_OFF, _ON, _LIMIT, _OTHERS = "#e9a23b", "#2a9d8f", "#d1495b", ("#4e79a7", "#d1495b", "#9c6ade", "#808080")
_SALVAGE = "#9c6ade"
_MIB = 1 << 20


def plot(found: Rehearsal) -> str | None:
    """HTML with its own script; None where plotly is not installed (extra `report`)."""
    try:
        from plotly import graph_objects as go  # type: ignore[import-untyped]
        from plotly.subplots import make_subplots  # type: ignore[import-untyped]
    except ImportError:
        return None
    figure = make_subplots(rows=2, cols=1, vertical_spacing=0.14, row_heights=[0.6, 0.4])
    made = compiled(found.plan, after=found.went_on_after)
    for trace in memory(found, len(made.scenario.steps)):
        figure.add_trace(go.Scatter(**trace), row=1, col=1)
    for trace in propagation(found):
        figure.add_trace(go.Scatter(**trace), row=2, col=1)
    figure.update_xaxes(**stage_ticks(made), row=1, col=1)
    figure.update_yaxes(title="MiB", rangemode="tozero", row=1, col=1)
    figure.update_xaxes(title="seconds from OFF at its source until it is obeyed", type="log", row=2, col=1)
    figure.update_yaxes(title="of kill switches", tickformat=".0%", row=2, col=1)
    return as_html(figure, 760)


def stage_ticks(made: Compiled) -> dict[str, Any]:
    """The stages on the axis of the scenario's steps."""
    return {
        "tickvals": [each.first for each in made.stages],
        "ticktext": [f"{each.weight:g} %" for each in made.stages],
        "title": "the plan, stage by stage",
        "range": [0, len(made.scenario.steps)],
    }


def memory(found: Rehearsal, steps: int) -> list[dict[str, Any]]:
    """A line an arm, by the steps that both take, and the node's budget."""
    budget = found.plan.node.memory / _MIB
    third = [] if found.three is None else [("flag on, with salvage", _SALVAGE, found.three.run)]
    lines = [
        _line(name, color, *zip(*points, strict=True), shape="hv")
        for name, color, run in (("flag off", _OFF, found.off), ("flag on", _ON, found.on), *third)
        if (points := list(_by_step(run.entries)))
    ]
    limit = _line(f"budget {budget:g} MiB", _LIMIT, [0, steps], [budget, budget])
    limit["line"]["dash"] = "dash"
    in_sight = any(3 * max(line["y"], default=0) >= budget for line in lines)
    return [*lines, limit | {"visible": True if in_sight else "legendonly"}]


def _by_step(entries: Iterable[Entry]) -> Iterable[tuple[float, float]]:
    """(steps taken, MiB of guests and caches) of each sample; within a step they are evenly spread."""
    step = 0
    inside: list[float] = []
    for each in entries:
        match each.event:
            case events.StepStarted(index=index):
                yield from _spread(step, inside)
                step, inside = index, []
            case events.MemorySampled() as sample:
                inside.append((sample.guests + sample.caches + sample.hugetlb) / _MIB)
    yield from _spread(step, inside)


def _spread(step: int, samples: Sequence[float]) -> Iterable[tuple[float, float]]:
    return ((step + place / len(samples), size) for place, size in enumerate(samples))


def propagation(found: Rehearsal) -> list[dict[str, Any]]:
    """The share of kill switches that is obeyed by then: what was given as a curve, other ways as points."""
    points = delay_of(found.plan.propagation).points
    seconds, shares = [each for _, each in points], [share for share, _ in points]
    lines = [_line(f"stream ({found.plan.propagation.origin})", _ON, seconds, shares)]
    least = next((each for each in seconds if each > 0), 1e-3)
    for way, color in zip(ways(found)[1:], _OTHERS, strict=False):
        if way.seconds is None:
            lines.append(_line(f"{way.name}: never", color, [least, seconds[-1]], [0, 0]))
            continue
        known = [(each, share / 100) for each, share in zip(way.seconds, SHARES, strict=True) if each is not None]
        named = _line(f"{way.name} ({way.known})", color, [each for each, _ in known], [share for _, share in known])
        lines.append(named | {"mode": "lines+markers"})
    return lines


def _line(name: str, color: str, x: Iterable[float], y: Iterable[float], *, shape: str = "linear") -> dict[str, Any]:
    return {
        "name": escape(scrub(name)),
        "x": list(x),
        "y": list(y),
        "mode": "lines",
        "line": {"color": color, "shape": shape, "width": 1.5},
    }
