"""A sweep as plain text: how many cases of each point and kind came to what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest

from sim.fault_catalogue import CATALOGUE, KINDS
from sim.sweep.outcomes import ERROR, INCONCLUSIVE, NOT_REACHED, OUTCOMES, VIOLATED, CaseResult

Counts = Mapping[str, Mapping[str, Mapping[str, int]]]
"""Point -> kind -> outcome -> number of cases."""

SHORT = {
    "finished": "done",
    "rolled back": "back",
    "discarded": "disc",
    "refused": "refu",
    "running": "run",
    "paused": "paus",
    "killed": "kill",
    "recovered": "rec",
    NOT_REACHED: "miss",
    INCONCLUSIVE: "open",
    ERROR: "ERR",
    VIOLATED: "VIOL",
}
"""An outcome as a cell writes it."""
WIDTH = 80
_GAP = "  "


def counts(results: Iterable[CaseResult]) -> dict[str, dict[str, dict[str, int]]]:
    """Points and kinds in the catalogue's order, outcomes in theirs; only what there is."""
    found = Counter((each.case.point.fault, each.case.kind, each.outcome) for each in results)
    table: dict[str, dict[str, dict[str, int]]] = {}
    for point in CATALOGUE:
        for kind in KINDS:
            for outcome in OUTCOMES:
                if number := found[point, kind, outcome]:
                    table.setdefault(point, {}).setdefault(kind, {})[outcome] = number
    return table


def table(counted: Counts, width: int = WIDTH) -> str:
    """Points down, kinds across, each cell a line an outcome; kinds that do not fit into `width` come below."""
    kinds = [kind for kind in KINDS if any(kind in cells for cells in counted.values())]
    columns: dict[str, dict[str, list[str]]] = {
        kind: {point: _cell(cells.get(kind, {})) for point, cells in counted.items()} for kind in kinds
    }
    first = max(map(len, counted), default=0)
    blocks, block, used = list[list[str]](), list[str](), first
    for kind in kinds:
        taken = len(_GAP) + _width(kind, columns[kind])
        if block and used + taken > width:
            blocks.append(block)
            block, used = [], first
        block.append(kind)
        used += taken
    blocks += [block] if block else []
    drawn = [_drawn(counted, {kind: columns[kind] for kind in each}, first) for each in blocks]
    return "\n\n".join([*drawn, legend(counted, width)]) if drawn else ""


def legend(counted: Counts, width: int = WIDTH) -> str:
    """What the short words mean that the table uses, in lines of at most `width`."""
    used = {outcome for cells in counted.values() for cell in cells.values() for outcome in cell}
    lines, line = [], ""
    for part in (f"{SHORT[outcome]} {outcome}" for outcome in OUTCOMES if outcome in used):
        if line and len(line) + 3 + len(part) > width:
            lines.append(line)
            line = ""
        line = f"{line} · {part}" if line else part
    return "\n".join([*lines, line])


def _cell(outcomes: Mapping[str, int]) -> list[str]:
    digits = max((len(str(number)) for number in outcomes.values()), default=1)
    return [f"{number:>{digits}} {SHORT[outcome]}" for outcome, number in outcomes.items()]


def _width(kind: str, column: Mapping[str, Sequence[str]]) -> int:
    return max(len(kind), *(len(line) for cell in column.values() for line in cell))


def _drawn(points: Iterable[str], columns: Mapping[str, Mapping[str, Sequence[str]]], first: int) -> str:
    widths = [first, *(_width(kind, column) for kind, column in columns.items())]
    lines = [_line(["", *columns], widths)]
    for point in points:
        cells = [column[point] for column in columns.values()]
        if any(cells):
            lines += [_line(row, widths) for row in zip_longest([point], *cells, fillvalue="")]
    return "\n".join(lines)


def _line(cells: Iterable[str], widths: Sequence[int]) -> str:
    return _GAP.join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
