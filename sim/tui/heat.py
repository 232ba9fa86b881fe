"""Every sandbox of a large fleet as one cell, by group, with each group's totals. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Literal

from flags.catalog import PUNCH
from sim.record.view import SandboxView, View
from sim.report import words
from sim.tui import rows
from sim.tui.spans import Span, Spans, Tone, wrap

By = Literal["state", "memory", "decision"]
BYS: tuple[By, ...] = ("state", "memory", "decision")
Cell = tuple[str, Tone]
_LEVELS = "·▁▂▃▄▅▆▇█"
DECISIONS: dict[str, Cell] = {"punch on": ("●", "punched"), "punch off": ("○", "calm"), "not paused": ("·", "muted")}
CONDEMNED: Cell = ("◆", "condemned")


def lines(view: View, by: By, cells: int, height: int) -> list[Spans]:
    """A title, each group with its totals over its cells, and what the cells mean; `height` lines at most."""
    groups = grouped(list(view.sandboxes.values()))
    legend = _legend(by, cells)
    across = max(1, cells - 2)
    totals = {name: wrap(_totals(name, group), cells - 1, indent="   ") for name, group in groups.items()}
    room = max(1, height - 2 - len(legend) - sum(map(len, totals.values())))
    per_cell = 1
    while sum(-(-len(group) // (across * per_cell)) for group in groups.values()) > room and per_cell < len(
        view.sandboxes
    ):
        per_cell += 1
    drawn = wrap(_title(view, by, per_cell), cells - 1, indent="   ")
    for name, group in groups.items():
        drawn += totals[name]
        found = [
            gravest([cell(each, by) for each in group[at : at + per_cell]]) for at in range(0, len(group), per_cell)
        ]
        drawn += [(Span(" "), *_runs(found[at : at + across])) for at in range(0, len(found), across)]
    return [*drawn[: height - len(legend)], *legend]


def grouped(sandboxes: Sequence[SandboxView]) -> dict[str, list[SandboxView]]:
    """By what their names begin with: `web` of `web-17`, in the fleet's order."""
    groups: dict[str, list[SandboxView]] = {}
    for each in sandboxes:
        groups.setdefault(each.name.rpartition("-")[0] or each.name, []).append(each)
    return groups


def cell(sandbox: SandboxView, by: By) -> Cell:
    """How one sandbox is drawn."""
    if by == "state":
        return CONDEMNED if rows.past_return(sandbox) else rows.STATES.get(sandbox.state, ("?", "warn"))
    if by == "memory":
        share = (sandbox.resident + sandbox.cached) / max(1, 2 * sandbox.memory)
        level = _LEVELS[min(len(_LEVELS) - 1, round(share * (len(_LEVELS) - 1)))]
        return level, "muted" if share == 0 else "warn" if 2 * share >= rows.HIGH else "good"
    return DECISIONS[decision(sandbox)]


def decision(sandbox: SandboxView) -> str:
    """What its last pause was decided to do."""
    evaluation = sandbox.pause.decision.get(PUNCH) if sandbox.pause else None
    return "not paused" if evaluation is None else f"punch {words.on_off(evaluation['value'])}"


GRAVITY: dict[Tone, int] = {"bad": 5, "condemned": 4, "warn": 3, "busy": 2, "punched": 1}


def gravest(found: Sequence[Cell]) -> Cell:
    """Which of several is drawn where they share a cell: what needs a look first, else the most frequent."""
    return max(Counter(found).items(), key=lambda each: (GRAVITY.get(each[0][1], 0), each[1]))[0]


def _runs(found: Sequence[Cell]) -> list[Span]:
    return [Span(glyph * len(list(run)), tone) for (glyph, tone), run in groupby(found)]


def _title(view: View, by: By, per_cell: int) -> Spans:
    of = (
        "one cell a sandbox"
        if per_cell == 1
        else f"one cell is {per_cell} sandboxes, drawn as the one to look at first"
    )
    return (Span(f" {len(view.sandboxes)} sandboxes by {by}", "title"), Span(f"   {of}", "muted"))


def _totals(name: str, group: Sequence[SandboxView]) -> Spans:
    states = ", ".join(f"{count} {state}" for state, count in Counter(each.state for each in group).items())
    guests, copies, freed = (sum(sizes) for sizes in zip(*map(_sizes, group), strict=True))
    memory = f"{words.mib(guests)} MiB in guests, {words.mib(copies)} MiB in snapshots, {words.mib(freed)} MiB freed"
    return (Span(f" {name} ", "title"), Span(f"{len(group)}: {states}; {memory}", "muted"))


def _sizes(sandbox: SandboxView) -> tuple[int, int, int]:
    return sandbox.resident, sandbox.cached, sandbox.punched


def _legend(by: By, cells: int) -> list[Spans]:
    signs: dict[str, Cell]
    if by == "state":
        signs = {**rows.STATES, "condemned": CONDEMNED}
    elif by == "memory":
        signs = {"nothing": ("·", "muted"), "1x": ("▄", "good"), "2x": ("█", "warn")}
    else:
        signs = DECISIONS
    spans = [
        span for name, (glyph, tone) in signs.items() for span in (Span(f"{glyph} ", tone), Span(f"{name}   ", "muted"))
    ]
    return wrap((Span(" "), *spans), cells - 1, indent=" ")[:2]
