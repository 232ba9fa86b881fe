"""A forecast: its inputs with how each is known, its answers at each weight, as JSON and as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np

from sim.figures import Figure, Known, in_gib, lines, number
from sim.fleet_file import Fleet, assumptions
from sim.forecast.answers import Answer, Question, Spread, answers, spread
from sim.forecast.costs import Costs
from sim.forecast.simulation import STEP, Simulated, Simulation, demand
from sim.forecast.sources import Source
from sim.forecast.virtual_fleet import VirtualFleet, virtual_fleet

FAILURE_RATE = 1e-5
_MODEL = (
    "peaks are upper bounds: pauses of a node that overlap are taken to be at their most together",
    "a node is limited by its slots, not by its budget: memory is passed here, not waited for",
    "a sandbox comes back to the node that it left, and with the same dirty ratio",
    "the day is a wave: half of it above the median rate, its top at the peak rate",
    "a failure in a copy is as likely at each chunk; at the first everything rolls back",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of a forecast; `weights` in percent, `hours` of virtual time, `failure_rate` a pause."""

    sandboxes: int
    weights: tuple[float, ...]
    seed: int = 1
    hours: float = 24.0
    failure_rate: float | None = None
    by: str = "sandbox"
    background: bool = False
    step: float = STEP


@dataclass(frozen=True, slots=True)
class Forecast:
    """What was asked, of what, and what came of it; `huge` spreads guests of 2 MiB pages over the nodes, if any."""

    asked: Asked
    nodes: int
    inputs: Sequence[Figure]
    totals: Sequence[Figure]
    answers: Sequence[Answer]
    notes: Sequence[str]
    fleet: Fleet

    def document(self) -> dict[str, Any]:
        """Version 1; bytes, seconds and percent; what comes of the simulation is derived."""
        return {
            "version": 1,
            "asked": asdict(self.asked),
            "nodes": self.nodes,
            "inputs": {each.label: each.document() for each in self.inputs},
            "totals": {each.label: each.document() for each in self.totals},
            "weights": [{**asdict(each), "known": "derived"} for each in self.answers],
            "model": [*self.notes, *_MODEL],
        }

    def lines(self) -> list[str]:
        """For people: what it rests on, then a line a weight, then what cannot be undone."""
        asked = self.asked
        nodes = f"{self.nodes:,} {'node' if self.nodes == 1 else 'nodes'}"
        head = f"{asked.sandboxes:,} sandboxes on {nodes} through {asked.hours:g} h, seed {asked.seed}"
        parts = [[f"{head}, by {asked.by}"], lines(self.inputs), lines(self.totals), self._memory(), self._losses()]
        parts += [self._blast(), ["What the model takes for granted (assumed):", *self.notes, *_MODEL]]
        return [line for part in parts for line in (*part, "")][:-1]

    def _memory(self) -> list[str]:
        """Of 4 KiB pages: what punching gives back."""
        head = (
            "weight",
            "exposed",
            "node peak p50",
            "p90",
            "p99",
            "max",
            "over memory",
            "fit at once p50 / p99",
            "saved",
        )
        rows = [
            (
                f"{each.weight:g} %",
                f"{each.exposed:,}",
                *(in_gib(size) for size in asdict(each.peak).values()),
                f"{each.over_memory:.2%}",
                f"{each.fit:,} / {each.fit_p99:,}",
                in_gib(each.saved),
            )
            for each in self.answers
        ]
        over = (
            "guests are killed (tmpfs is not given back)"
            if self.fleet.node.cache == "tmpfs"
            else "copies stall on disk"
        )
        title = f"Memory of a node's 4 KiB pages (derived); over memory: {over}; saved: by all nodes, at their peaks"
        return [title, *table(head, rows)]

    def _losses(self) -> list[str]:
        head = ("weight", "pauses that punch", "freed early a day", "lost a year", "rolled back a year")
        rows = [
            (
                f"{each.weight:g} %",
                f"{each.punched_pauses:,}",
                in_gib(each.freed_early),
                number(each.lost),
                number(each.rolled_back),
            )
            for each in self.answers
        ]
        return ["Pauses, and what becomes of those whose copy fails (derived)", *table(head, rows)]

    def _blast(self) -> list[str]:
        """At each weight above 0."""
        head = ("weight", "switch takes", "punched meanwhile", "in the worst moment", "of guest memory")
        rows = [
            (
                f"{each.weight:g} %",
                f"{blast.seconds:g} s",
                number(blast.sandboxes),
                number(blast.worst_sandboxes),
                in_gib(blast.worst_bytes),
            )
            for each in self.answers
            if each.weight
            for blast in each.blast
        ]
        title = "A late kill switch: what is punched until it is obeyed, and cannot be undone (derived)"
        return [title, *table(head, rows)] if rows else [title, "nobody punches at any of these weights"]


def forecast(
    start: Source, costs: Costs, asked: Asked, now: datetime, tell: Callable[[float], None] = lambda _: None
) -> Forecast:
    """The whole of it; deterministic but for the age of the calibration file, which `now` tells. `tell` as in run()."""
    file = start.fleet
    fleet = virtual_fleet(file, asked.sandboxes, asked.seed, asked.by)
    weights = asked.weights if asked.weights[:1] == (0.0,) else (0.0, *asked.weights)
    simulation = Simulation(fleet, file, costs, weights=weights, seed=asked.seed, step=asked.step)
    found = simulation.run(asked.hours, tell)
    rate, rate_known = failure_rate(file, asked)
    question = Question(weights, asked.hours, rate, asked.background)
    given = answers(fleet, file, demand(fleet, costs, file.node.cache), found, question)
    inputs = [*costs.figures(fleet, file.node.cache, now), *_given(start, asked, weights, rate, rate_known)]
    return Forecast(asked, fleet.nodes, inputs, _totals(fleet, file, found, asked), given, [], file)


def failure_rate(file: Fleet, asked: Asked) -> tuple[float, Known]:
    """Of an option, of the fleet file, or assumed."""
    if asked.failure_rate is not None:
        return asked.failure_rate, "given"
    return (FAILURE_RATE, "assumed") if file.copy_failures is None else (file.copy_failures / 100, "given")


def _given(start: Source, asked: Asked, weights: Iterable[float], rate: float, known: Known) -> list[Figure]:
    file = start.fleet
    stages: Known = "given" if asked.weights != start.weights or start.stages_given else "assumed"
    times = ", ".join(f"{share} {file.propagation.quantile(at):g} s" for share, at in _SHARES)
    return [
        Figure("weights", ", ".join(f"{each:g} %" for each in weights), "", stages),
        Figure("copies that fail", f"{rate:.3g} of all pauses", "", known),
        Figure("kill switch takes", times, "", file.propagation.origin),
        Figure("node", f"{in_gib(file.node.memory)}, {file.node.sandboxes} sandboxes", "", "given", start.said),
        *(each for each in assumptions(file) if each.label != "propagation"),
    ]


_SHARES = (("p50", 0.5), ("p95", 0.95), ("most", 1.0))


def _totals(fleet: VirtualFleet, file: Fleet, found: Simulated, asked: Asked) -> list[Figure]:
    pauses = int(found.pauses.sum())
    all_guests = float(fleet.resident.sum())
    made = [
        Figure("guest memory", all_guests, "bytes", "derived", "all guests at once"),
        Figure("dirty", float(fleet.dirty.sum()), "bytes", "derived"),
        Figure("pauses", pauses, f"in {asked.hours:g} h", "derived"),
        Figure("queued", round(found.queued / max(1, pauses) * 1e3, 3), "ms a pause", "derived", "waiting for a slot"),
    ]
    if fleet.huge.any():
        huge = np.bincount(fleet.node, fleet.resident * fleet.huge, fleet.nodes).astype(np.float64)
        short = float((huge > file.node.hugetlb).mean())
        made.append(Figure("2 MiB pages of a node", _text(spread(huge)), "", "derived", "the same with the flag on"))
        made.append(Figure("nodes short of 2 MiB pages", f"{short:.2%}", "", "derived"))
    return made


def _text(found: Spread) -> str:
    return ", ".join(f"{name} {in_gib(size)}" for name, size in asdict(found).items())


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell."""
    every = [head, *rows]
    widths = [max(len(row[at]) for row in every) for at in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in every]
