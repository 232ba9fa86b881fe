"""A fleet exported as CSV or JSON: one reader."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from engine.errors import UserError
from flags.catalog import did_you_mean
from flags.cohort import Member
from flags.context import SandboxAttributes
from flags.document import parse
from sim.files.fleet import PAGE_SIZES
from sim.files.sources import read_text
from sim.files.units import format_size, parse_percent, parse_size, show
from sim.files.yaml import flow

ATTRIBUTES = {each.name.replace("_", "-"): each.name for each in fields(SandboxAttributes)}
"""What a sandbox may be described by, as people write it, and the attribute it is."""
REQUIRED = ("sandbox", "team", "template")
_COLUMNS = (*ATTRIBUTES, "memory")
_TOO_MANY = "a cell more than the header has"


@dataclass(frozen=True, slots=True)
class _Row:
    """What one row says, by column; where it is written, and each cell where that is known."""

    line: int
    column: int
    cells: Mapping[str, Any]
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def mistake(self, what: str, name: str = "") -> str:
        line, column = self.places.get(name, (self.line, self.column))
        return f"{line}:{column}: error: {what}"


def read_fleet(path: Path) -> list[Member]:
    """Every sandbox of the table; memory in bytes, or as `512MiB`. UserError with every mistake as file:line:column."""
    text = read_text(path)
    if text.lstrip().startswith(("[", "{")):
        found, wrong_head = list(_json_rows(path, text)), list[str]()
    else:
        found, wrong_head = _csv_rows(text)
    mistakes = [*wrong_head, *(mistake for row in found for mistake in _mistakes(row)), *_repeated_members(found)]
    if not found and not mistakes:
        mistakes = ["1:1: error: no sandbox; write a row for each"]
    if mistakes:
        raise UserError("\n".join(f"{path}:{each}" for each in mistakes))
    return [_member(row.cells) for row in found]


def _csv_rows(text: str) -> tuple[list[_Row], list[str]]:
    """The rows, and what is wrong with the header, which is told once."""
    head, *body = list(rows(text)) or [[]]
    mistakes = [
        f"{cell.line}:{cell.column}: error: {_unknown(cell.text)}" for cell in head if cell.text not in _COLUMNS
    ]
    return [_csv_row(head, row) for row in body], mistakes


def _csv_row(head: Sequence[Cell], row: Sequence[Cell]) -> _Row:
    said = [(name.text, cell) for name, cell in zip(head, row, strict=False) if name.text in _COLUMNS and cell.text]
    said += [(_TOO_MANY, cell) for cell in row[len(head) : len(head) + 1]]
    places = {name: (cell.line, cell.column) for name, cell in said}
    return _Row(row[0].line, row[0].column, {name: cell.text for name, cell in said}, places)


def _json_rows(path: Path, text: str) -> Iterator[_Row]:
    try:
        document = parse(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}:{error.colno}: error: not JSON: {error.msg}") from None
    listed = document.value if isinstance(document.value, list) else [document.value]
    for index, cells in enumerate(listed):
        place = document.positions.get((index,))
        line, column = (place.line, place.column) if place is not None else (1, 1)
        said = cells if isinstance(cells, dict) else {show(cells): None}
        known = {name: document.positions.get((index, name)) for name in said}
        yield _Row(line, column, said, {name: (at.line, at.column) for name, at in known.items() if at is not None})


def _unknown(name: str) -> str:
    return f'unknown column "{name}"; {did_you_mean(name, _COLUMNS)}'


def _mistakes(row: _Row) -> Iterator[str]:
    for name, cell in row.cells.items():
        if name == _TOO_MANY:
            yield row.mistake(_TOO_MANY, name)
        elif name not in _COLUMNS:
            yield row.mistake(_unknown(name), name)
        elif name != "memory" and not (isinstance(cell, str) and cell):
            yield row.mistake(f"{name} is {show(cell)}; write a name", name)
    for name in REQUIRED:
        if name not in row.cells:
            yield row.mistake(f"{name} is missing; every row needs {', '.join(REQUIRED)}")
    try:
        _memory(row.cells.get("memory"))
    except ValueError as error:
        yield row.mistake(f"memory: {error}", "memory")


def _memory(cell: Any) -> int | None:
    if cell is None or (type(cell) is int and cell >= 0):
        return cell
    return int(cell) if isinstance(cell, str) and cell.isdecimal() else parse_size(cell)


def _repeated_members(found: Sequence[_Row]) -> Iterator[str]:
    seen: set[str] = set()
    for row in found:
        name = str(row.cells.get("sandbox"))
        if name in seen:
            yield row.mistake(f"{name} is there twice; keep one row", "sandbox")
        seen.add(name)


def _member(cells: Mapping[str, Any]) -> Member:
    attributes = {ATTRIBUTES[name]: cell for name, cell in cells.items() if name != "memory"}
    return Member(SandboxAttributes(**attributes), _memory(cells.get("memory")))


_FEW = 4
_NEVER = 1e-6  # pauses an hour: once in a century
_SHARES = (10, 50, 90, 99)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One row; bytes, percent and pauses an hour. None where the table does not say it."""

    memory: int
    dirty: float | None = None
    resident: float | None = None
    page_size: int | None = None
    team: str | None = None
    template: str | None = None
    node: str | None = None
    pauses_per_hour: float | None = None
    peak_pauses_per_hour: float | None = None
    sandbox: str | None = None


def _size(text: str) -> int:
    size = int(text) if text.isascii() and text.isdecimal() else parse_size(text)
    if size <= 0:
        raise ValueError("expected more than no memory")
    return size


def _share(text: str) -> float:
    """`40%`, or a ratio from 0 to 1."""
    if not re.fullmatch(r"[0-9]*\.?[0-9]+", text):
        return parse_percent(text)
    if float(text) > 1:
        raise ValueError(f'expected a share such as 40% or 0.4, got "{text}"')
    return float(text) * 100


def _page_size(text: str) -> int:
    if text not in {*map(str, PAGE_SIZES), *map(format_size, PAGE_SIZES)}:
        raise ValueError(f'expected {" or ".join(map(format_size, PAGE_SIZES))}, got "{text}"')
    return int(text) if text.isdecimal() else parse_size(text)


def _rate(text: str) -> float:
    if not re.fullmatch(r"[0-9]*\.?[0-9]+", text):
        raise ValueError(f'expected a number of pauses an hour, got "{text}"')
    return float(text)


COLUMNS: Mapping[str, Callable[[str], Any]] = {
    "memory": _size,
    "dirty": _share,
    "resident": _share,
    "page_size": _page_size,
    "team": str,
    "template": str,
    "node": str,
    "pauses_per_hour": _rate,
    "peak_pauses_per_hour": _rate,
    "sandbox": str,
}
"""What a table may tell of a sandbox, and how it is read; only memory is required."""


def read_table(path: Path) -> list[Sandbox]:
    """Every sandbox of a CSV file; ScenarioError or UserError with every mistake as file:line:column."""
    return table(read_text(path), str(path))


def table(text: str, name: str) -> list[Sandbox]:
    """The same of its text; `name` is what messages call it."""
    found = list(rows(text))
    head, body = (found[0], found[1:]) if found else ([], [])
    mistakes = _head_mistakes(head)
    sandboxes = []
    for row in body if not mistakes else ():
        read, wrong = _row(head, row)
        mistakes += wrong
        sandboxes += [Sandbox(**read)] if not wrong else []
    mistakes += _repeated(head, body)
    if not mistakes and not sandboxes:
        mistakes = [(1, 1, "no sandbox; write a header with `memory` in it, and a row for each sandbox")]
    if mistakes:
        raise UserError("\n".join(f"{name}:{line}:{column}: error: {what}" for line, column, what in sorted(mistakes)))
    return sandboxes


Mistake = tuple[int, int, str]


def _head_mistakes(head: Sequence[Cell]) -> list[Mistake]:
    names = [cell.text for cell in head]
    found = [
        (cell.line, cell.column, f'unknown column "{cell.text}"; {did_you_mean(cell.text, COLUMNS)}')
        for cell in head
        if cell.text not in COLUMNS
    ]
    found += [
        (cell.line, cell.column, f"a second column {cell.text}; keep one")
        for at, cell in enumerate(head)
        if cell.text in names[:at]
    ]
    missing = [(1, 1, "no column memory; it is required")] if head and "memory" not in names else []
    return found + missing


def _row(head: Sequence[Cell], row: Sequence[Cell]) -> tuple[dict[str, Any], list[Mistake]]:
    """An empty cell says nothing."""
    read: dict[str, Any] = {}
    wrong = [(cell.line, cell.column, f"a cell more than the {len(head)} of the header") for cell in row[len(head) :]]
    for name, cell in zip(head, row, strict=False):
        if not cell.text:
            continue
        try:
            read[name.text] = COLUMNS[name.text](cell.text)
        except ValueError as error:
            wrong.append((cell.line, cell.column, f"{name.text}: {error}"))
    bad = any(what.startswith("memory:") for _, _, what in wrong)
    if "memory" not in read and not bad:
        wrong.append((row[0].line, row[0].column, "no memory in this row; it is required"))
    return read, wrong


def _repeated(head: Sequence[Cell], body: Iterable[Sequence[Cell]]) -> list[Mistake]:
    names = [cell.text for cell in head]
    at = names.index("sandbox") if "sandbox" in names else None
    cells = [row[at] for row in body if at is not None and len(row) > at and row[at].text]
    first: dict[str, Cell] = {}
    found = []
    for cell in cells:
        if first.setdefault(cell.text, cell) is not cell:
            what = f'sandbox "{cell.text}" is there twice; the first is in line {first[cell.text].line}'
            found.append((cell.line, cell.column, what))
    return found


def fleet_text(
    sandboxes: Sequence[Sandbox], *, name: str, node_memory: int, hugetlb: int, scale: str, origin: str
) -> str:
    """A fleet file: a group for each template and page size. What the table does not tell is left out: assumed."""
    kinds: dict[tuple[str, int], list[Sandbox]] = {}
    for each in sandboxes:
        kinds.setdefault((each.template or "base", each.page_size or PAGE_SIZES[0]), []).append(each)
    silent = [column for column in COLUMNS if all(getattr(each, column) is None for each in sandboxes)]
    on_nodes = Counter(each.node for each in sandboxes if each.node is not None)
    per_node = round(fmean(on_nodes.values())) if on_nodes else min(40, len(sandboxes))
    node = {"memory": format_size(node_memory), "sandboxes": per_node}
    if hugetlb:
        node["hugetlb"] = format_size(hugetlb)
    assumed = ", ".join(silent) or "nothing"
    head = [
        f"# {len(sandboxes):,} sandboxes of {origin}. Not in the table, so assumed by whatever reads this: {assumed}.",
        *([] if on_nodes else [f"# The table names no nodes: {per_node} sandboxes on each is a guess."]),
        "kind: fleet",
        "version: 1",
        f"name: {flow(name)}",
        f"scale: {scale}",
        f"node: {flow(node)}",
        "groups:",
    ]
    groups = (_group(key, members, number) for number, (key, members) in enumerate(sorted(kinds.items())))
    return "\n".join([*head, *(f"  - {flow(group)}" for group in groups)]) + "\n"


def _group(key: tuple[str, int], members: Sequence[Sandbox], number: int) -> dict[str, Any]:
    template, page_size = key
    slug = re.sub(r"[^a-z0-9-]+", "-", template.lower()).strip("-")[:40] or "group"
    group: dict[str, Any] = {
        "name": f"{slug}-{number}",
        "count": len(members),
        "memory": _distribution([float(each.memory) for each in members], _as_size),
    }
    for column in ("dirty", "resident"):
        shares = [value for each in members if (value := getattr(each, column)) is not None]
        if shares:
            group[column] = f"{fmean(shares):.4g}%" if column == "resident" else _distribution(shares, _as_percent)
    group |= {"page_size": format_size(page_size), "template": template}
    teams = Counter(each.team for each in members if each.team is not None)
    if teams:
        group["team_size"] = _distribution([float(count) for count in teams.values()], int)
    return group | _pauses(members)


def _pauses(members: Sequence[Sandbox]) -> dict[str, Any]:
    """Rates of single sandboxes add up: their mean is the group's."""
    rates = [each.pauses_per_hour for each in members if each.pauses_per_hour is not None]
    peaks = [each.peak_pauses_per_hour for each in members if each.peak_pauses_per_hour is not None]
    if not rates:
        return {}
    told = {"median": round(max(_NEVER, fmean(rates)), 6)}
    return {"pauses_per_hour": told | ({"peak": max(round(fmean(peaks), 6), told["median"])} if peaks else {})}


def _as_size(value: float) -> str:
    return format_size(max(4096, round(value / 4096) * 4096))


def _as_percent(value: float) -> str:
    return f"{value:.4g}%"


def _distribution(values: Sequence[float], write: Callable[[float], Any]) -> Any:
    """One value, a few with their weights, or percentiles."""
    counted = Counter(write(value) for value in sorted(values))
    if len(counted) == 1:
        return next(iter(counted))
    if len(counted) <= _FEW:
        return [{"value": value, "weight": count} for value, count in counted.items()]
    at = np.percentile(values, _SHARES)
    least, most = {"min": write(min(values))}, {"max": write(max(values))}
    return least | {f"p{share}": write(float(value)) for share, value in zip(_SHARES, at, strict=True)} | most


class Cell(NamedTuple):
    """What a cell holds, without quotes and outer blanks; line and column are 1-based, in characters."""

    text: str
    line: int
    column: int


def rows(text: str) -> Iterator[list[Cell]]:
    """Every row that is not blank. A quote that is never closed runs to the end of the text."""
    row: list[Cell] = []
    at, line, begin = 0, 1, 0
    while at <= len(text):
        cell, after, lines = _cell(text, at)
        row.append(Cell(cell.strip(), line, at - begin + 1))
        ended = after >= len(text) or text[after] == "\n"
        line += lines
        at = after + 1
        if lines:
            begin = text.rfind("\n", 0, after) + 1
        if ended:
            if any(each.text for each in row):
                yield row
            row, line, begin = [], line + 1, at


def _cell(text: str, at: int) -> tuple[str, int, int]:
    """The cell that begins there, the place of what ends it, and how many line ends are inside its quotes."""
    if text[at : at + 1] == '"':
        return _quoted(text, at)
    ends = [place for mark in ",\n" if (place := text.find(mark, at)) >= 0]
    end = min(ends, default=len(text))
    return text[at:end].removesuffix("\r"), end, 0


def _quoted(text: str, at: int) -> tuple[str, int, int]:
    close = at + 1
    while (close := text.find('"', close)) >= 0 and text[close + 1 : close + 2] == '"':
        close += 2
    close = len(text) if close < 0 else close
    held = text[at + 1 : close].replace('""', '"')
    rest, end, _ = _cell(text, close + 1) if text[close + 1 : close + 2] not in {'"', ""} else ("", close + 1, 0)
    return held + rest, min(end, len(text)), text.count("\n", at, close)
