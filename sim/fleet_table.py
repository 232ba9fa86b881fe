"""A fleet as a table that somebody exported: CSV with a header, or a JSON list of objects; one sandbox a row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from engine.errors import UserError
from flags.catalog import did_you_mean
from flags.cohort import Member
from flags.context import SandboxAttributes
from flags.document import parse
from sim.csv_cells import Cell, rows
from sim.scenario_sources import read_text
from sim.units import parse_size, show

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
    mistakes = [*wrong_head, *(mistake for row in found for mistake in _mistakes(row)), *_repeated(found)]
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


def _repeated(found: Sequence[_Row]) -> Iterator[str]:
    seen: set[str] = set()
    for row in found:
        name = str(row.cells.get("sandbox"))
        if name in seen:
            yield row.mistake(f"{name} is there twice; keep one row", "sandbox")
        seen.add(name)


def _member(cells: Mapping[str, Any]) -> Member:
    attributes = {ATTRIBUTES[name]: cell for name, cell in cells.items() if name != "memory"}
    return Member(SandboxAttributes(**attributes), _memory(cells.get("memory")))
