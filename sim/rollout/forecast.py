"""A fleet no machine holds: question and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np

from sim.files.figures import Figure, Known, in_gib, number
from sim.files.fleet_file import (
    Fleet,
    Floats,
    assumptions,
)
from sim.report.table import Bullets, Paragraph, Section, Table, figure_table
from sim.rollout.costs import Costs
from sim.rollout.forecast_source import ForecastSource
from sim.rollout.simulation import STEP, PauseLoad, Simulated, Simulation, demand
from sim.rollout.virtual_fleet import VirtualFleet, virtual_fleet

FAILURE_RATE = 1e-5
_MODEL = (
    "peaks are upper bounds: pauses of a node that overlap are taken to be at their most together",
    "a node is limited by its slots, not by its budget: memory is passed here, not waited for",
    "a sandbox comes back to the node that it left, and with the same dirty ratio",
    "the day is a wave: half of it above the median rate, its top at the peak rate",
    "a failure in a copy is as likely at each chunk; at the first everything rolls back",
    "checkpoints are not in place and come at an even rate; each takes a slot, and its new guest's memory to its end",
)


@dataclass(frozen=True, slots=True)
class ForecastQuestion:
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
    """What was asked, of what, and the answers; `huge` spreads guests of 2 MiB pages over the nodes, if any."""

    asked: ForecastQuestion
    nodes: int
    inputs: Sequence[Figure]
    totals: Sequence[Figure]
    answers: Sequence[Answer]
    notes: Sequence[str]
    fleet: Fleet

    def document(self) -> dict[str, Any]:
        """Version 1; bytes, seconds and percent; what the simulation gives is derived."""
        return {
            "version": 1,
            "asked": asdict(self.asked),
            "nodes": self.nodes,
            "inputs": {each.label: each.document() for each in self.inputs},
            "totals": {each.label: each.document() for each in self.totals},
            "weights": [{**asdict(each), "known": "derived"} for each in self.answers],
            "model": [*self.notes, *_MODEL],
        }

    def sections(self) -> list[Section]:
        """For people: what it rests on, then a line a weight, then what cannot be undone."""
        asked = self.asked
        nodes = f"{self.nodes:,} {'node' if self.nodes == 1 else 'nodes'}"
        head = f"{asked.sandboxes:,} sandboxes on {nodes} through {asked.hours:g} h, seed {asked.seed}, by {asked.by}"
        return [
            Section("", (Paragraph(head),)),
            Section("What it rests on", (figure_table(self.inputs),)),
            Section("The fleet", (figure_table(self.totals),)),
            self._memory(),
            self._losses(),
            self._blast(),
            Section("What the model takes for granted (assumed)", (Bullets([*self.notes, *_MODEL]),)),
        ]

    def _memory(self) -> Section:
        """Of 4 KiB pages: what punching gives back."""
        head = (
            *(
                "weight",
                "exposed",
                "can punch",
                "peak p50",
                "p90",
                "p99",
                "max",
                "over memory",
                "fit at once p50",
                "fit p99",
            ),
            "saved",
        )
        rows = [
            (
                f"{each.weight:g} %",
                f"{each.exposed:,}",
                f"{each.can_punch:,}",
                *(in_gib(size) for size in asdict(each.peak).values()),
                f"{each.over_memory:.2%}",
                f"{each.fit:,}",
                f"{each.fit_p99:,}",
                in_gib(each.saved),
            )
            for each in self.answers
        ]
        over = (
            "guests are killed (tmpfs is not given back)"
            if self.fleet.node.cache == "tmpfs"
            else "copies stall on disk"
        )
        note = f"peaks of a node; over memory: {over}; saved: by all nodes, at their peaks"
        return Section("Memory of a node's 4 KiB pages (derived)", (Table(head, rows, ">"),), note)

    def _losses(self) -> Section:
        head = (
            *("weight", "pauses that punch", "checkpoints that punch", "freed early a day", "lost a year"),
            *("of them at a checkpoint", "rolled back a year"),
        )
        rows = [
            (
                f"{each.weight:g} %",
                f"{each.punched_pauses:,}",
                f"{each.punched_checkpoints:,}",
                in_gib(each.freed_early),
                number(each.lost),
                number(each.lost_at_checkpoint),
                number(each.rolled_back),
            )
            for each in self.answers
        ]
        title = "Pauses and checkpoints, and what becomes of those whose copy fails (derived)"
        return Section(title, (Table(head, rows, ">"),))

    def _blast(self) -> Section:
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
        none = "" if rows else "no pause punches at any of these weights"
        return Section(title, (Table(head, rows, ">"), Paragraph(none)))


def forecast(
    start: ForecastSource,
    costs: Costs,
    asked: ForecastQuestion,
    now: datetime,
    progress: Callable[[float], None] = lambda _: None,
) -> Forecast:
    """Deterministic, except the age of the calibration file, which is taken at `now`. `progress` as in run()."""
    file = start.fleet
    fleet = virtual_fleet(file, asked.sandboxes, asked.seed, asked.by)
    weights = asked.weights if asked.weights[:1] == (0.0,) else (0.0, *asked.weights)
    simulation = Simulation(fleet, file, costs, weights=weights, seed=asked.seed, step=asked.step)
    found = simulation.run(asked.hours, progress)
    rate, rate_known = failure_rate(file, asked)
    question = Question(weights, asked.hours, rate, asked.background)
    given = answers(fleet, file, demand(fleet, costs, file.node.cache), found, question)
    inputs = [*costs.figures(fleet, file.node.cache, now), *_given(start, asked, weights, rate, rate_known)]
    return Forecast(asked, fleet.nodes, inputs, _totals(fleet, file, found, asked), given, [], file)


def failure_rate(file: Fleet, asked: ForecastQuestion) -> tuple[float, Known]:
    """Of an option, of the fleet file, or assumed."""
    if asked.failure_rate is not None:
        return asked.failure_rate, "given"
    return (FAILURE_RATE, "assumed") if file.copy_failures is None else (file.copy_failures / 100, "given")


def _given(
    start: ForecastSource, asked: ForecastQuestion, weights: Iterable[float], rate: float, known: Known
) -> list[Figure]:
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


def _totals(fleet: VirtualFleet, file: Fleet, found: Simulated, asked: ForecastQuestion) -> list[Figure]:
    pauses = int(found.pauses.sum())
    all_guests = float(fleet.resident.sum())
    made = [
        Figure("guest memory", all_guests, "bytes", "derived", "all guests at once"),
        Figure("dirty", float(fleet.dirty.sum()), "bytes", "derived"),
        Figure("pauses", pauses, f"in {asked.hours:g} h", "derived"),
        Figure(
            "at once", int(found.most_at_once.max(initial=0)), "on a node", "derived", "pauses and checkpoints, most"
        ),
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


YEAR_HOURS = 365 * 24
_AT = (50, 90, 99, 100)


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles over the nodes; bytes."""

    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Blast:
    """What punches between a kill switch and the last node that obeys it, `seconds` later: cannot be undone.

    Sandboxes and bytes of guest memory, on average over the time, and in its worst moment.
    """

    seconds: float
    sandboxes: float
    worst_sandboxes: float
    worst_bytes: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one weight, percent. `peak` is of a node's 4 KiB pages; `over_memory` is the share of nodes that pass them.

    `saved` is what all nodes together need less at their peaks than with the flag off. `fit` is how many pauses find
    room at once on a node in the middle with all its guests, `fit_p99` on one of the fullest hundredth. `lost` and
    `rolled_back` are sandboxes a year whose copy, of a pause or checkpoint, fails when they are condemned, or are not
    yet; `lost_at_checkpoint` are among the lost. `freed_early` is bytes
    of guest memory a day that came back while copies ran, not after them. `can_punch` are the exposed that have a
    memfd.
    """

    weight: float
    exposed: int
    can_punch: int
    punched_pauses: int
    punched_checkpoints: int
    peak: Spread
    over_memory: float
    saved: float
    fit: int
    fit_p99: int
    lost: float
    lost_at_checkpoint: float
    rolled_back: float
    freed_early: float
    blast: tuple[Blast, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked beside the fleet: percent, hours, and the share of pauses whose copy fails.

    In the `background` a copy goes on after its pause has answered, past the point of no return with the flag off too.
    """

    weights: tuple[float, ...]
    hours: float
    failure_rate: float
    background: bool = False


def answers(
    fleet: VirtualFleet, file: Fleet, asks: PauseLoad, found: Simulated, question: Question
) -> tuple[Answer, ...]:
    """One a weight, in the order asked; the first simulated weight is 0, the flag off."""
    off = found.peak[0].sum()
    return tuple(_answer(fleet, file, asks, found, question, arm, float(off)) for arm in range(len(question.weights)))


def _answer(
    fleet: VirtualFleet, file: Fleet, asks: PauseLoad, found: Simulated, question: Question, arm: int, off: float
) -> Answer:
    weight, peak = question.weights[arm], found.peak[arm]
    pauses = int(found.pauses.sum())
    a_year = YEAR_HOURS / question.hours * question.failure_rate
    failures = pauses * a_year + float(fleet.checkpoints.sum()) * YEAR_HOURS * question.failure_rate
    losable = (found.losable_if_all if question.background else float(found.losable[arm])) * a_year
    everyone = np.arange(fleet.count)
    on, punches = fleet.is_on((weight,), everyone)[0], fleet.punches((weight,), everyone)[0]
    extra = np.where(punches, asks.extra_on, asks.extra_off).mean()
    checkpoints = fleet.checkpoints * punches  # an hour, of those that punch
    past_the_first = 1.0 - 1.0 / fleet.chunks
    losable_an_hour = (fleet.checkpoints if question.background else checkpoints) @ past_the_first
    at_checkpoint = float(losable_an_hour) * YEAR_HOURS * question.failure_rate
    freed = checkpoints @ fleet.resident
    return Answer(
        weight=weight,
        exposed=int(on.sum()),
        can_punch=int(punches.sum()),
        punched_checkpoints=round(float(checkpoints.sum()) * question.hours),
        punched_pauses=int(found.punched[:, arm].sum()),
        peak=spread(peak),
        over_memory=float((peak > file.node.memory).mean()),
        saved=off - float(peak.sum()),
        fit=_fit(file.node.memory, found.all_guests, 50, extra),
        fit_p99=_fit(file.node.memory, found.all_guests, 99, extra),
        lost=losable + at_checkpoint,
        lost_at_checkpoint=at_checkpoint,
        rolled_back=failures - losable - at_checkpoint,
        freed_early=float(found.punched_bytes[:, arm].sum()) * 24 / question.hours + float(freed) * 24,
        blast=tuple(
            _blast(found, arm, seconds, float(checkpoints.sum()), float(freed)) for seconds in propagation_times(file)
        ),
    )


def spread(values: Floats) -> Spread:
    """Over the nodes."""
    return Spread(*(float(each) for each in np.percentile(values, _AT)))


def propagation_times(file: Fleet) -> tuple[float, ...]:
    """Median, 95th percentile and most, seconds."""
    return tuple(round(file.propagation.quantile(share), 6) for share in (0.5, 0.95, 1.0))


def _fit(memory: int, guests: Floats, percentile: float, extra: float) -> int:
    free = memory - float(np.percentile(guests, percentile))
    return max(0, int(free / max(extra, 1.0)))


def _blast(found: Simulated, arm: int, seconds: float, checkpoints: float, freed: float) -> Blast:
    """Inside a step the rate is taken as even; so is that of the checkpoints that punch, and of the bytes they free
    (an hour)."""
    hours = len(found.pauses) * found.step
    more, bytes_more = checkpoints * seconds / 3600, freed * seconds / 3600
    return Blast(
        seconds=seconds,
        sandboxes=float(found.punched[:, arm].sum()) / hours * seconds + more,
        worst_sandboxes=_worst(found.punched[:, arm].astype(float), seconds / found.step) + more,
        worst_bytes=_worst(found.punched_bytes[:, arm], seconds / found.step) + bytes_more,
    )


def _worst(by_step: Floats, steps: float) -> float:
    """The largest sum over so many neighbouring steps, which need not be whole."""
    whole = min(max(1, int(np.ceil(steps))), len(by_step))
    sums = np.convolve(by_step, np.ones(whole), mode="valid")
    return float(sums.max()) * min(1.0, steps / whole)
