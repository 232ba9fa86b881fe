"""A bench's results as JSON and as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sim.bench.rounds import Result
from sim.bench.rows import Goal, Row
from sim.units import format_size

_FIGURES = ("gib_per_s", "ratio_to_mmap_memmove", "ratio_to_memcpy", "peak_over", "peak_ratio", "value")
_COPY_COLUMNS = ("layout", "pages", "dest", "punch", "GiB/s", "x mmap+memmove", "x memcpy", "peak over", "spread")
_COLUMNS = ("what", "case", "measured", "unit", "spread")
_GOAL_COLUMNS = ("goal", "met", "rounds")
_KEY = (
    "GiB/s: dirty bytes over the time from the freeze to the finished build, scan and digests included.",
    "x: medians of per-round ratios; mmap+memmove: the original's way, punching each dirty range after its copy;",
    "memcpy: prefaulted, one thread, the limit. spread: least and most of the judged figure.",
)


@dataclass(frozen=True, slots=True)
class Report:
    """All of one bench; `size` is guest memory in bytes, `left_out` has a reason for each row not measured."""

    size: int
    rounds: int
    seed: int
    machine: dict[str, Any]
    results: Sequence[Result]
    left_out: Sequence[tuple[Row, str]]

    def met(self, result: Result) -> bool | None:
        """Whether the goal was met; None where there is none, the memory is too small for it, or noise was all."""
        goal = result.row.goal
        if goal is None or self.size < goal.size or result.disturbed:
            return None
        return goal.is_met(result.figures[result.row.judged])

    def document(self) -> dict[str, Any]:
        """Version 1; bytes, GiB/s, and `unit` for `value`. What does not apply is null."""
        return {
            "version": 1,
            "machine": self.machine,
            "rounds": self.rounds,
            "size": self.size,
            "seed": self.seed,
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
            "met": self.met(result),
            "dropped_rounds": result.dropped_rounds,
            "disturbed": result.disturbed,
        }

    def lines(self) -> list[str]:
        """Two tables, what was left out and why, and what the columns mean."""
        copies = [each for each in self.results if each.row.name == "copy"]
        others = [each for each in self.results if each.row.name != "copy"]
        title = f"{format_size(self.size)} of guest memory, {self.rounds} rounds, {self.machine.get('cpus')} CPUs"
        lines = [title]
        if copies:
            lines += ["", *_table((*_COPY_COLUMNS, *_GOAL_COLUMNS), (self._copy_cells(each) for each in copies))]
        if others:
            lines += ["", *_table((*_COLUMNS, *_GOAL_COLUMNS), (self._cells(each) for each in others))]
        if self.left_out:
            lines += ["", *(f"left out: {row.label}: {reason}" for row, reason in self.left_out)]
        return [*lines, *(["", *_KEY] if copies else [])]

    def _copy_cells(self, result: Result) -> list[str]:
        case, figures = result.row.case, result.figures
        return [
            case.layout or "",
            format_size(case.page_size or 0),
            case.dest or "",
            "yes" if case.punch else "no",
            f"{figures['gib_per_s']:.2f}",
            f"{figures['ratio_to_mmap_memmove']:.2f}",
            f"{figures['ratio_to_memcpy']:.2f}",
            f"{figures['peak_over'] / (1 << 20):.1f} MiB",
            *self._ending(result),
        ]

    def _cells(self, result: Result) -> list[str]:
        row = result.row
        what, _, case = row.label.partition("/")
        return [what, case, _number(result.figures["value"], row.unit), _unit(row), *self._ending(result)]

    def _ending(self, result: Result) -> list[str]:
        unit = None if result.row.judged != "value" else result.row.unit
        spread = "..".join(_number(value, unit) for value in result.spread)
        used = f"{self.rounds - result.dropped_rounds}/{self.rounds}"
        return [spread, _goal(result.row.goal, unit), self._judgement(result), used]

    def _judgement(self, result: Result) -> str:
        met = self.met(result)
        if met is not None:
            return "yes" if met else "NO"
        if result.row.goal is None:
            return ""
        return "disturbed" if result.disturbed else f"needs {format_size(result.row.goal.size)}"


def _case(row: Row) -> dict[str, Any]:
    case = row.case
    return {
        "name": row.name,
        "layout": case.layout,
        "page_size": case.page_size,
        "dest": case.dest,
        "punch": case.punch,
    }


def _unit(row: Row) -> str:
    return "MiB" if row.unit == "bytes" else row.unit or ""


def _goal(goal: Goal | None, unit: str | None) -> str:
    if goal is None:
        return ""
    return f"{'>=' if goal.at_least else '<='} {_number(goal.limit, unit)}"


def _number(value: float, unit: str | None) -> str:
    """Three digits that mean something; bytes as MiB."""
    value = value / (1 << 20) if unit == "bytes" else value
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    table = [head, *rows]
    widths = [max(len(line[at]) for line in table) for at in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
