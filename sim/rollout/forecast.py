"""A fleet no machine holds: question and answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from sim.rollout.forecast_source import FlagStages, ForecastSource, arms_of
from sim.rollout.node_events import PauseLoad
from sim.rollout.simulation import Simulated, Simulation, demand
from sim.rollout.virtual_fleet import VirtualFleet, virtual_fleet

FAILURE_RATE = 1e-5
_MODEL = (
    "peaks are upper bounds: pauses of a node that overlap are taken to be at their most together",
    "what a pause is asked for while its sandbox is paused, in flight or waiting is dropped",
    "a node is limited by its slots, not by its budget: memory is passed here, not waited for",
    "a sandbox comes back to the node that it left, and with the same dirty ratio",
    "a failure in a copy is as likely at each chunk; at the first everything rolls back",
    "checkpoints are not in place and come at an even rate; each takes a slot, and its new guest's memory to its end",
)


_WAVE = "the day is a wave: half of it above the median rate, its top at the peak rate"


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
            "model": list(self.notes),
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
            Section("What the model takes for granted (assumed)", (Bullets(self.notes),)),
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
                each.label,
                f"{each.exposed:,}",
                f"{each.can_punch:,}",
                *(in_gib(size) for size in asdict(each.peak).values()),
                "unknown" if each.over_memory is None else f"{each.over_memory:.2%}",
                *("unknown" if fit is None else f"{fit:,}" for fit in (each.fit, each.fit_p99)),
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
                each.label,
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
                each.label,
                f"{blast.seconds:g} s",
                number(blast.sandboxes),
                number(blast.worst_sandboxes),
                in_gib(blast.worst_bytes),
            )
            for each in self.answers
            if each.exposed
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
    file, rows = start.fleet, start.rows
    if rows is None:
        fleet = virtual_fleet(file, asked.sandboxes, asked.seed, asked.by)
        arms = arms_of(fleet, asked.weights)
    else:
        fleet, arms = rows.fleet, rows.arms
    simulation = Simulation(fleet, file, costs, on=arms.on, seed=asked.seed, stretches=propagation_times(file))
    found = simulation.run(asked.hours, progress)
    rate, rate_known = failure_rate(file, asked)
    question = Question(arms, asked.hours, rate, asked.background)
    given = answers(fleet, file, demand(fleet, costs, file.node.cache), found, question)
    inputs = [*costs.figures(fleet, file.node.cache, now), *_given(start, asked, arms, rate, rate_known)]
    totals = [*(rows.totals if rows is not None else _drawn(fleet)), *_totals(fleet, file, found, asked)]
    return Forecast(asked, fleet.nodes, inputs, totals, given, [*start.notes, *_model(start)], file)


def _model(start: ForecastSource) -> tuple[str, ...]:
    return _MODEL if start.rows is not None else (*_MODEL, _WAVE)


def failure_rate(file: Fleet, asked: ForecastQuestion) -> tuple[float, Known]:
    """Of an option, of the fleet file, or assumed."""
    if asked.failure_rate is not None:
        return asked.failure_rate, "given"
    return (FAILURE_RATE, "assumed") if file.copy_failures is None else (file.copy_failures / 100, "given")


def _given(start: ForecastSource, asked: ForecastQuestion, arms: FlagStages, rate: float, known: Known) -> list[Figure]:
    file = start.fleet
    stages: Known = "given" if asked.weights != start.weights or start.stages_given else "assumed"
    memory = in_gib(file.node.memory) if file.node.memory else "memory unknown"
    node = Figure("node", f"{memory}, {file.node.sandboxes} sandboxes", "", "given", start.said)
    if start.rows is not None:
        node = Figure("nodes", f"as the table has them; {memory} each", "", "given", start.said)
    times = ", ".join(f"{share} {file.propagation.quantile(at):g} s" for share, at in _SHARES)
    return [
        Figure("weights", ", ".join(arms.labels), "", stages),
        Figure("copies that fail", f"{rate:.3g} of all pauses", "", known),
        Figure("kill switch takes", times, "", file.propagation.origin),
        node,
        *(each for each in assumptions(file) if each.label != "propagation"),
    ]


_SHARES = (("p50", 0.5), ("p95", 0.95), ("most", 1.0))


def _drawn(fleet: VirtualFleet) -> list[Figure]:
    return [
        Figure("guest memory", float(fleet.resident.sum()), "bytes", "derived", "all guests at once"),
        Figure("dirty", float(fleet.dirty.sum()), "bytes", "derived"),
    ]


def _totals(fleet: VirtualFleet, file: Fleet, found: Simulated, asked: ForecastQuestion) -> list[Figure]:
    pauses, most, what = found.pauses, int(found.most_at_once.max(initial=0)), "pauses and checkpoints, most"
    when = f"{what}, {found.busiest / 3600:.2f} h in"
    waited = round(found.queued / max(1, pauses) * 1e3, 3)
    made = [
        Figure("pauses", pauses, f"in {asked.hours:g} h", "derived"),
        Figure("at once", most, "on a node", "derived", what),
        Figure("at once, fleet", found.fleet_at_once, "on all nodes", "derived", when),
        Figure("queued", waited, "ms a pause", "derived", "waiting for a slot"),
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
    """Of one weight, percent. `peak` is of a node's 4 KiB pages; `over_memory` is the share of nodes that pass them,
    None, as `fit`, where a node's memory is not known.

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
    over_memory: float | None
    saved: float
    fit: int | None
    fit_p99: int | None
    lost: float
    lost_at_checkpoint: float
    rolled_back: float
    freed_early: float
    blast: tuple[Blast, ...]
    label: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked beside the fleet: percent, hours, and the share of pauses whose copy fails.

    In the `background` a copy goes on after its pause has answered, past the point of no return with the flag off too.
    """

    arms: FlagStages
    hours: float
    failure_rate: float
    background: bool = False


def answers(
    fleet: VirtualFleet, file: Fleet, asks: PauseLoad, found: Simulated, question: Question
) -> tuple[Answer, ...]:
    """One an arm, in order; the first has the flag off."""
    off = found.peak[0].sum()
    arms = range(len(question.arms.labels))
    return tuple(_answer(fleet, file, asks, found, question, arm, float(off)) for arm in arms)


def _answer(
    fleet: VirtualFleet, file: Fleet, asks: PauseLoad, found: Simulated, question: Question, arm: int, off: float
) -> Answer:
    arms, peak, pauses, memory = question.arms, found.peak[arm], found.pauses, file.node.memory
    a_year = YEAR_HOURS / question.hours * question.failure_rate
    failures = pauses * a_year + float(fleet.checkpoints.sum()) * YEAR_HOURS * question.failure_rate
    losable = (found.losable_if_all if question.background else float(found.losable[arm])) * a_year
    on, punches = arms.on[arm], arms.on[arm] & fleet.memfd
    extra = np.where(punches, asks.extra_on, asks.extra_off).mean()
    checkpoints = fleet.checkpoints * punches  # an hour, of those that punch
    past_the_first = 1.0 - 1.0 / fleet.chunks
    losable_an_hour = (fleet.checkpoints if question.background else checkpoints) @ past_the_first
    at_checkpoint = float(losable_an_hour) * YEAR_HOURS * question.failure_rate
    freed = checkpoints @ fleet.resident
    return Answer(
        weight=arms.weights[arm],
        label=arms.labels[arm],
        exposed=int(on.sum()),
        can_punch=int(punches.sum()),
        punched_checkpoints=round(float(checkpoints.sum()) * question.hours),
        punched_pauses=int(found.punched[arm]),
        peak=spread(peak),
        over_memory=float((peak > memory).mean()) if memory else None,
        saved=off - float(peak.sum()),
        fit=_fit(memory, found.all_guests, 50, extra) if memory else None,
        fit_p99=_fit(memory, found.all_guests, 99, extra) if memory else None,
        lost=losable + at_checkpoint,
        lost_at_checkpoint=at_checkpoint,
        rolled_back=failures - losable - at_checkpoint,
        freed_early=float(found.punched_bytes[arm]) * 24 / question.hours + float(freed) * 24,
        blast=tuple(
            Blast(
                seconds=seconds,
                sandboxes=(float(found.punched[arm]) / question.hours + float(checkpoints.sum())) * seconds / 3600,
                worst_sandboxes=float(worst.sandboxes[arm]),
                worst_bytes=float(worst.size[arm]),
            )
            for seconds, worst in found.worst.items()
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
