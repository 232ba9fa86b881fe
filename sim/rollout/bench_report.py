"""Rounds, results, calibration."""

from __future__ import annotations

import json
import pathlib
import random
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from engine.errors import EngineError, UserError
from engine.reading import read_regular
from sim.files.strict import Strict
from sim.files.units import format_size
from sim.files.yaml import dotted
from sim.node.guest_link import GuestError
from sim.report.table import Paragraph, Section, Table, text
from sim.rollout import bench_guest
from sim.rollout.bench import DESTS, BenchMeasurement, BenchRow, Goal
from sim.rollout.bench_ways import Bench, BenchTaken

Step = Callable[[str], None]


@dataclass
class Rounds:
    """What was taken, round by round; `failed` says why a measurement was given up."""

    taken: list[dict[BenchMeasurement, BenchTaken]] = field(default_factory=list)
    failed: dict[BenchMeasurement, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """A row's medians over its undisturbed rounds; over all, and `disturbed`, where there was none."""

    row: BenchRow
    figures: dict[str, float]
    spread: tuple[float, float]
    dropped_rounds: int
    disturbed: bool


def in_order(measurements: Iterable[BenchMeasurement], draw: random.Random) -> list[BenchMeasurement]:
    """Shuffled, but what is measured of one case stays together: the machine drifts."""
    cases: dict[object, list[BenchMeasurement]] = {}
    for each in measurements:
        cases.setdefault(each.case, []).append(each)
    groups = list(cases.values())
    draw.shuffle(groups)
    for group in groups:
        draw.shuffle(group)
    return [each for group in groups for each in group]


def run(rows: Sequence[BenchRow], bench: Bench, count: int, seed: int, step: Step) -> Rounds:
    """Measure; `step` is called before each measurement, and may raise to stop between two of them."""
    draw, rounds = random.Random(seed), Rounds()
    wanted = list(dict.fromkeys(need for row in rows for need in row.needs))
    for number in range(1, count + 1):
        taken: dict[BenchMeasurement, BenchTaken] = {}
        rounds.taken.append(taken)
        order = in_order(wanted, draw)
        for at, each in enumerate(order, 1):
            step(f"round {number} of {count}, {at} of {len(order)}")
            if each not in rounds.failed:
                _take(each, bench, taken, rounds.failed)
    return rounds


def _take(
    each: BenchMeasurement, bench: Bench, taken: dict[BenchMeasurement, BenchTaken], failed: dict[BenchMeasurement, str]
) -> None:
    try:
        taken[each] = each.take(bench, each.case)
    except (OSError, EngineError, GuestError) as error:
        failed[each] = str(error)


def result(row: BenchRow, rounds: Rounds) -> Result | str:
    """A row's result, or why there is none."""
    for need in row.needs:
        if need in rounds.failed:
            return rounds.failed[need]
    complete = [[taken[need] for need in row.needs] for taken in rounds.taken]
    quiet = [each for each in complete if not (row.timed and any(part.noisy for part in each))]
    made = [row.figures(*(part.figures for part in each)) for each in quiet or complete]
    judged = [each[row.judged] for each in made]
    figures = {name: row.summary([each[name] for each in made]) for name in made[0]}
    dropped = len(complete) - len(quiet)
    return Result(row, figures, (min(judged), max(judged)), dropped, disturbed=not quiet)


_FIGURES = (
    "gib_per_s",
    "ratio_to_mmap_memmove",
    "until_free_ratio",
    "ratio_to_memcpy",
    "peak_over",
    "peak_ratio",
    "cpu_s_per_gib",
    "cpu_ratio",
    "value",
)
_COPY_COLUMNS = ("layout", "pages", "dest", "punch", "GiB/s", "x mmap+memmove", "x until free", "CPU x")
_COPY_MORE = ("x memcpy", "peak over", "CPU s/GiB")
_COLUMNS = ("what", "case", "measured", "unit", "CPU x")
_MORE = ("CPU s/GiB",)
_GOAL_COLUMNS = ("goal", "CPU goal", "met", "rounds", "spread")
_SPEED = "GiB/s: dirty bytes over the time from the freeze to the finished build, scan and digests included."
_OTHER_WAYS = (
    "x mmap+memmove: the original's way, punching each dirty range after its copy, into pages of 4 KiB; until free: of "
    "the time until all memory of the guest is given back; memcpy: prefaulted, one thread, the limit."
)
_CPU_AND_GOALS = (
    "x: medians of per-round ratios; spread: least and most of what is judged. CPU: until all memory of the guest is "
    "given back, its death included; CPU x: as a share of what it is compared with. A row whose every round was "
    "disturbed by other processes is judged by its CPU goal, where it has one."
)


@dataclass(frozen=True, slots=True)
class MachineLoad:
    """Its load average (1 minute) before and after, and what others took of all CPUs meanwhile, 0 to 1."""

    before: float
    after: float
    others_median: float
    others_most: float

    @classmethod
    def of(cls, before: float, after: float, rounds: Rounds) -> MachineLoad:
        """Over every measurement."""
        shares = [each.others for taken in rounds.taken for each in taken.values()] or [0.0]
        return cls(round(before, 2), round(after, 2), round(statistics.median(shares), 4), round(max(shares), 4))

    def sentence(self) -> str:
        """In one line."""
        averages = f"load average {self.before:.2f} before and {self.after:.2f} after"
        shares = f"{self.others_median:.0%} of the CPUs (median), at most {self.others_most:.0%}"
        return f"{averages}; during a measurement other processes took {shares}"


@dataclass(frozen=True, slots=True)
class Report:
    """All of one bench; `size` is guest memory in bytes, `left_out` has a reason for each row not measured."""

    size: int
    rounds: int
    seed: int
    machine: dict[str, Any]
    results: Sequence[Result]
    left_out: Sequence[tuple[BenchRow, str]]
    load: MachineLoad | None = None

    def met(self, result: Result) -> bool | None:
        """Whether the goal was met, of time or, where noise was all, of CPU; None where there is none.

        Also None where the memory is too small for it.
        """
        row = result.row
        goal, judged = (row.cpu_goal, "cpu_ratio") if result.disturbed else (row.goal, row.judged)
        if goal is None or self.size < goal.size:
            return None
        return goal.is_met(result.figures[judged])

    def document(self) -> dict[str, Any]:
        """Version 1; bytes, GiB/s, and `unit` for `value`. What does not apply is null."""
        return {
            "version": 1,
            "machine": self.machine,
            "rounds": self.rounds,
            "size": self.size,
            "seed": self.seed,
            "load": asdict(self.load) if self.load else None,
            "results": [self._entry(result) for result in self.results],
            "left_out": [{**_case(row), "reason": reason} for row, reason in self.left_out],
        }

    def _entry(self, result: Result) -> dict[str, Any]:
        row, figures = result.row, result.figures
        goal = row.goal
        return {
            **_case(row),
            **dict.fromkeys(_FIGURES),
            **{name: round(value, 4) for name, value in figures.items()},
            "unit": row.unit,
            "judged": row.judged,
            "spread": [round(value, 4) for value in result.spread],
            "goal": goal.limit if goal else None,
            "goal_is": ("at least" if goal.at_least else "at most") if goal else None,
            "floor": goal.floor if goal else None,
            "cpu_goal": row.cpu_goal.limit if row.cpu_goal else None,
            "met_by": "cpu" if result.disturbed else "time",
            "met": self.met(result),
            "dropped_rounds": result.dropped_rounds,
            "disturbed": result.disturbed,
        }

    def text(self) -> str:
        """The machine's load, two tables, what was left out and why, and what the columns mean."""
        copies = [each for each in self.results if each.row.name == "copy"]
        others = [each for each in self.results if each.row.name != "copy"]
        title = f"{format_size(self.size)} of guest memory, {self.rounds} rounds, {self.machine.get('cpus')} CPUs"
        left_out = [f"left out: {row.label}: {reason}" for row, reason in self.left_out]
        return text(
            [
                Paragraph(title),
                *([Paragraph(self.load.sentence())] if self.load else []),
                Table((*_COPY_COLUMNS, *_GOAL_COLUMNS, *_COPY_MORE), [*map(self._copy_cells, copies)], "<<<<>", keys=4),
                Table((*_COLUMNS, *_GOAL_COLUMNS, *_MORE), [*map(self._cells, others)], "<<><>", keys=2),
                Section("", tuple(map(Paragraph, left_out))),
                Section("", tuple(map(Paragraph, (*((_SPEED, _OTHER_WAYS) if copies else ()), _CPU_AND_GOALS)))),
            ]
        )

    def _copy_cells(self, result: Result) -> list[str]:
        case, figures = result.row.case, result.figures
        return [
            case.layout or "",
            format_size(case.page_size or 0),
            case.dest or "",
            "yes" if case.punch else "no",
            f"{figures['gib_per_s']:.2f}",
            f"{figures['ratio_to_mmap_memmove']:.2f}",
            f"{figures['until_free_ratio']:.2f}",
            f"{figures['cpu_ratio']:.2f}",
            *self._ending(result),
            f"{figures['ratio_to_memcpy']:.2f}",
            f"{figures['peak_over'] / (1 << 20):.1f} MiB",
            f"{figures['cpu_s_per_gib']:.2f}",
        ]

    def _cells(self, result: Result) -> list[str]:
        row = result.row
        what, _, case = row.label.partition("/")
        figures = result.figures
        cpu = [f"{figures[name]:.2f}" if name in figures else "" for name in ("cpu_s_per_gib", "cpu_ratio")]
        measured = [_number(figures["value"], row.unit), _unit(row)]
        return [what, case, *measured, cpu[1], *self._ending(result), cpu[0]]

    def _ending(self, result: Result) -> list[str]:
        unit = None if result.row.judged != "value" else result.row.unit
        spread = "..".join(_number(value, unit) for value in result.spread)
        used = f"{self.rounds - result.dropped_rounds}/{self.rounds}"
        goals = [_goal(result.row.goal, unit), _goal(result.row.cpu_goal, None)]
        return [*goals, self._judgement(result), used, spread]

    def _judgement(self, result: Result) -> str:
        met = self.met(result)
        if met is not None:
            return ("yes" if met else "NO") + (" (CPU)" if result.disturbed else "")
        if result.row.goal is None:
            return ""
        if result.disturbed and result.row.cpu_goal is None:
            return "disturbed"
        return f"needs {format_size(result.row.goal.size)}"


def _case(row: BenchRow) -> dict[str, Any]:
    case = row.case
    return {
        "name": row.name,
        "layout": case.layout,
        "page_size": case.page_size,
        "dest": case.dest,
        "punch": case.punch,
    }


def _unit(row: BenchRow) -> str:
    return "MiB" if row.unit == "bytes" else row.unit or ""


def _goal(goal: Goal | None, unit: str | None) -> str:
    if goal is None:
        return ""
    return f"{'>=' if goal.at_least else '<='} {_number(goal.limit, unit)}"


def _number(value: float, unit: str | None) -> str:
    """Three digits that mean something; bytes as MiB."""
    value = value / (1 << 20) if unit == "bytes" else value
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


SMALL = 4 << 20
"""Guest memory, bytes, of the second measurement, which gives the fixed part of a pause."""
Milliseconds = Annotated[float, Field(ge=0)]


class Cost(Strict):
    """Of one pause: a fixed part, then so much a dirty GiB; `peak_over` in bytes, the most that was seen.

    `disturbed`: in every round others took CPU, so that it is too slow rather than too fast.
    """

    page_size: int
    cache: Literal["disk", "tmpfs"]
    punch: bool
    fixed_ms: Milliseconds
    ms_per_gib: Annotated[float, Field(gt=0)]
    peak_over: Annotated[int, Field(ge=0)]
    disturbed: bool = False


class Calibration(Strict):
    """All costs of one machine. `made_at` is UTC in ISO 8601; `host` is what a ledger keeps of it; `size` in bytes."""

    kind: Literal["calibration"]
    version: Literal[1] = 1
    made_at: str
    host: Mapping[str, Any]
    size: int
    rounds: int
    costs: Annotated[tuple[Cost, ...], Field(strict=False, min_length=1)]

    def age(self, now: datetime) -> float:
        """Seconds since it was made."""
        return (now - datetime.fromisoformat(self.made_at)).total_seconds()

    def cost(self, page_size: int, cache: str, *, punch: bool) -> Cost | None:
        """That of such a pause; None where the machine could not measure it."""
        found = (each for each in self.costs if (each.page_size, each.cache, each.punch) == (page_size, cache, punch))
        return next(found, None)


def calibration(large: Report, small: Report, now: datetime) -> Calibration:
    """Of two benches with the same rows; UserError where neither has a copy. The copies of full guests count."""
    fast = {_key(entry): entry for entry in _copies(small)}
    costs = [_cost(entry, fast.get(_key(entry)), large.size, small.size) for entry in _copies(large)]
    if not costs:
        raise UserError("no copy was measured: leave --only out, or give it `copy`")
    return Calibration(
        kind="calibration",
        made_at=now.astimezone(UTC).isoformat(timespec="seconds"),
        host=large.machine,
        size=large.size,
        rounds=large.rounds,
        costs=tuple(costs),
    )


def _copies(report: Report) -> Iterable[dict[str, Any]]:
    entries = report.document()["results"]
    full = [each for each in entries if each["name"] == "copy" and each["layout"] == bench_guest.FULL]
    return [each for each in full if each["dest"] in DESTS]


def _key(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return entry["page_size"], entry["dest"], entry["punch"]


def _cost(large: Mapping[str, Any], small: Mapping[str, Any] | None, size: int, small_size: int) -> Cost:
    """A straight line through both; without the small one everything grows with the size."""
    whole = size / 2**30 / large["gib_per_s"] * 1e3
    fixed = 0.0
    if small is not None and small_size < size:
        little = small_size / 2**30 / small["gib_per_s"] * 1e3
        fixed = min(little, max(0.0, little - (whole - little) * small_size / (size - small_size)))
    return Cost(
        page_size=large["page_size"],
        cache=large["dest"],
        punch=large["punch"],
        fixed_ms=round(fixed, 3),
        ms_per_gib=round((whole - fixed) * 2**30 / size, 3),
        peak_over=int(large["peak_over"]),
        disturbed=bool(large["disturbed"] or (small is not None and small["disturbed"])),
    )


def write(path: pathlib.Path, made: Calibration) -> None:
    """UserError where it cannot be written."""
    try:
        path.write_text(json.dumps(made.model_dump(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def read(path: pathlib.Path) -> Calibration:
    """UserError, one line a mistake, for a file that is none."""
    try:
        made = Calibration.model_validate(json.loads(read_regular(path).decode()))
        datetime.fromisoformat(made.made_at)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        lines = [f"{path}: {dotted(each['loc'])}: {each['msg']}" for each in error.errors(include_url=False)]
        raise UserError("\n".join([*lines, "write it anew: snapdrill bench --calibrate FILE"])) from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: no calibration file ({error}): snapdrill bench --calibrate FILE writes one"
        ) from error
    return made
