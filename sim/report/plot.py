"""The plot of a run's memory and pauses, with plotly's own script in it: a fragment of a page that loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from engine.events import CopyFailed
from sim.record import events, source_events
from sim.record.ledger import Entry
from sim.record.view import PauseView, View
from sim.report import sentences, words
from sim.report.words import scrub

_MIB = 1 << 20
_GRID = "rgba(128,128,128,0.25)"
_INK = "#808080"  # readable on white and on black
_MARKED = (
    events.FlagSet,
    source_events.OutageBegan,
    source_events.OutageEnded,
    events.NodeCrashed,
    events.NodeStarted,
    events.FaultFired,
    CopyFailed,
)
_KINDS = {
    "punched": "#2a9d8f",
    "not punched": "#e9a23b",
    "checkpointed in place": "#4e79a7",
    "rolled back": "#9c6ade",
    "discarded": "#d1495b",
    "not settled": _INK,
}
_BUDGET_IN_SIGHT = 3
"""A budget higher than this many times the peak is only drawn when its name is clicked: it would flatten the rest."""


def plot(entries: Sequence[Entry], view: View) -> str | None:
    """HTML with its own script; None where plotly is not installed (extra `report`)."""
    try:
        from plotly import graph_objects as go  # type: ignore[import-untyped]
        from plotly.subplots import make_subplots  # type: ignore[import-untyped]
    except ImportError:
        return None
    rows = max(1, len({each.sandbox for each in view.pauses}))
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.6, 0.4])
    for trace in _memory(entries, view):
        figure.add_trace(go.Scatter(**trace), row=1, col=1)
    for trace in _pauses(view):
        figure.add_trace(go.Bar(**trace), row=2, col=1)
    figure.update_xaxes(title="seconds since the run began", row=2, col=1)
    figure.update_yaxes(title="MiB", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(autorange="reversed", type="category", row=2, col=1)
    return as_html(figure, min(1400, 520 + 14 * rows))


def as_html(figure: Any, height: int) -> str:
    """A figure of plotly's as a fragment that loads nothing, in colours for a light and a dark page; in pixels."""
    figure.update_layout(**_layout(height))
    figure.update_xaxes(gridcolor=_GRID, zeroline=False)
    figure.update_yaxes(gridcolor=_GRID, zeroline=False)
    config = {"displaylogo": False, "showSendToCloud": False}
    html: str = figure.to_html(full_html=False, include_plotlyjs=True, div_id="plot", config=config)
    return html


def _layout(height: int) -> dict[str, Any]:
    return {
        "height": height,
        "barmode": "overlay",
        "hovermode": "closest",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": _INK, "family": "system-ui, sans-serif"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": _INK, "activecolor": "#4e79a7"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        "margin": {"l": 60, "r": 20, "t": 40, "b": 50},
    }


def _memory(entries: Sequence[Entry], view: View) -> list[dict[str, Any]]:
    """Guests and caches stacked, the budget as a line, and what happened as marks on the axis."""
    samples = [(each.t, each.event) for each in entries if isinstance(each.event, events.MemorySampled)]
    times = [t for t, _ in samples]
    layers = {
        "guests": ("#4e79a7", [each.guests for _, each in samples]),
        "guests in the hugetlb pool": ("#76b7b2", [each.hugetlb for _, each in samples]),
        "caches": ("#e9a23b", [each.caches for _, each in samples]),
    }
    found = [
        _line(name, color, times, counts, stackgroup="memory") | {"mode": "lines"}
        for name, (color, counts) in layers.items()
        if any(counts) or name == "guests"
    ]
    if view.memory.budget:
        in_sight = view.memory.budget <= _BUDGET_IN_SIGHT * max(1, view.memory.peak)
        name = f"budget {words.size(view.memory.budget)}" + ("" if in_sight else " (far above: click)")
        line = _line(name, "#d1495b", [0.0, view.t], [view.memory.budget] * 2)
        line |= {"mode": "lines", "visible": True if in_sight else "legendonly"}
        line["line"]["dash"] = "dash"
        found.append(line)
    return [*found, *_marks(entries)]


def _line(name: str, color: str, times: list[float], counts: list[int], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "x": times,
        "y": [count / _MIB for count in counts],
        "line": {"color": color, "shape": "hv", "width": 1.5},
        "hovertemplate": "%{y:.1f} MiB at %{x:.3f} s",
        **more,
    }


def _marks(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    marked = [each for each in entries if isinstance(each.event, _MARKED) and each.t > 0]
    if not marked:
        return []
    return [
        {
            "name": "flags, outages, faults, crashes",
            "mode": "markers",
            "x": [each.t for each in marked],
            "y": [0] * len(marked),
            "text": [_shown(sentences.sentence(each)) for each in marked],
            "hovertemplate": "%{text}<br>%{x:.3f} s<extra></extra>",
            "cliponaxis": False,
            "marker": {"symbol": "triangle-up", "size": 9, "color": "#d1495b"},
        }
    ]


def _pauses(view: View) -> list[dict[str, Any]]:
    """One bar a pause, from its decision to its settled end, in its sandbox's row."""
    groups: dict[str, list[PauseView]] = {name: [] for name in _KINDS}
    for each in view.pauses:
        groups[_kind(each)].append(each)
    return [
        {
            "name": name,
            "orientation": "h",
            "base": [each.began for each in group],
            "x": [max(1e-4, (each.settled_at or view.t) - each.began) for each in group],
            "y": [_shown(each.sandbox) for each in group],
            "text": [_shown(f"{each.id}: {each.outcome or 'not settled'}") for each in group],
            "textposition": "none",
            "hovertemplate": "%{text}<br>%{base:.3f} s, took %{x:.3f} s<extra></extra>",
            "marker": {"color": _KINDS[name]},
        }
        for name, group in groups.items()
        if group
    ]


def _kind(pause: PauseView) -> str:
    ends = {"rolled-back": "rolled back", "discarded": "discarded"}
    if pause.outcome in ends:
        return ends[pause.outcome]
    if pause.outcome != "finished":
        return "not settled"
    if not pause.consumed:
        return "checkpointed in place"
    return "punched" if pause.punched_bytes else "not punched"


def _shown(text: str) -> str:
    """Plotly shows a few tags of HTML in its texts: ours has none."""
    return escape(scrub(text))
