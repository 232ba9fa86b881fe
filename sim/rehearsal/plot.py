"""The plot of a rehearsal: node memory with the flag off and on over the plan, and how long a kill switch takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from sim import events
from sim.ledger import Entry
from sim.rehearsal.compiled import Compiled, compiled
from sim.rehearsal.kill_switch import ways
from sim.rehearsal.results import Rehearsal
from sim.report.plot import as_html
from sim.report.printable import scrub

_OFF, _ON, _LIMIT, _OTHERS = "#e9a23b", "#2a9d8f", "#d1495b", ("#4e79a7", "#d1495b", "#9c6ade", "#808080")
_MIB = 1 << 20


def plot(found: Rehearsal) -> str | None:
    """HTML with its own script; None where plotly is not installed (extra `report`)."""
    try:
        from plotly import graph_objects as go  # type: ignore[import-untyped]
        from plotly.subplots import make_subplots  # type: ignore[import-untyped]
    except ImportError:
        return None
    figure = make_subplots(rows=2, cols=1, vertical_spacing=0.14, row_heights=[0.6, 0.4])
    made = compiled(found.plan)
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
    lines = [
        _line(name, color, *zip(*points, strict=True), shape="hv")
        for name, color, run in (("flag off", _OFF, found.off), ("flag on", _ON, found.on))
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
    """The share of kill switches that is obeyed by then: of the draws as a curve, of other ways as points."""
    drawn = found.drawn
    shares = [(place + 1) / len(drawn) for place in range(len(drawn))]
    lines = [_line(f"stream ({found.plan.propagation.origin})", _ON, drawn, shares, shape="hv")]
    for way, color in zip(ways(found)[1:], _OTHERS, strict=False):
        if way.seconds is None:
            lines.append(_line(f"{way.name}: never", color, [max(1e-3, drawn[0]), drawn[-1]], [0, 0]))
            continue
        named = _line(f"{way.name} ({way.known})", color, way.seconds, [0.5, 0.95, 0.99, 1.0])
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
