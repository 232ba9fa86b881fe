"""A fleet as a table that somebody exported: CSV with a header, or a JSON list of objects; one sandbox a row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from engine.errors import UserError
from flags.catalog import did_you_mean
from flags.cohort import Member
from flags.context import SandboxAttributes
from flags.document import parse
from sim.units import parse_size, show

ATTRIBUTES = {each.name.replace("_", "-"): each.name for each in fields(SandboxAttributes)}
"""What a sandbox may be described by, as people write it, and the attribute it is."""

REQUIRED = ("sandbox", "team", "template")
_COLUMNS = (*ATTRIBUTES, "memory")


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    cells: Mapping[str, Any]


def read_fleet(path: Path) -> list[Member]:
    """Every sandbox of the table; UserError with every mistake, as file:line. Memory in bytes, or as `512MiB`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from None
    rows = list(_json_rows(path, text) if text.lstrip().startswith(("[", "{")) else _csv_rows(text))
    mistakes = [f"{path}:{row.line}: error: {mistake}" for row in rows for mistake in _mistakes(row.cells)]
    mistakes += [f"{path}:{line}: error: {name} is there twice; keep one row" for line, name in _repeated(rows)]
    if mistakes or not rows:
        raise UserError("\n".join(mistakes) or f"{path}:1: error: no sandbox; write a row for each")
    return [_member(row.cells) for row in rows]


def _csv_rows(text: str) -> Iterator[_Row]:
    reader = csv.DictReader(text.splitlines(), restkey="more cells than the header")
    for cells in reader:
        yield _Row(reader.line_num, {name.strip(): cell for name, cell in cells.items() if name and cell != ""})


def _json_rows(path: Path, text: str) -> Iterator[_Row]:
    try:
        document = parse(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}:{error.colno}: error: not JSON: {error.msg}") from None
    rows = document.value if isinstance(document.value, list) else [document.value]
    for index, cells in enumerate(rows):
        line = document.positions[(index,)].line if (index,) in document.positions else 1
        yield _Row(line, cells if isinstance(cells, dict) else {show(cells): None})


def _mistakes(cells: Mapping[str, Any]) -> Iterator[str]:
    for name, cell in cells.items():
        if name not in _COLUMNS:
            yield f'unknown column "{name}"; {did_you_mean(name, _COLUMNS)}'
        elif name != "memory" and not (isinstance(cell, str) and cell):
            yield f"{name} is {show(cell)}; write a name"
    yield from (f"{name} is missing; every row needs {', '.join(REQUIRED)}" for name in REQUIRED if name not in cells)
    try:
        _memory(cells.get("memory"))
    except ValueError as error:
        yield f"memory: {error}"


def _memory(cell: Any) -> int | None:
    if cell is None or (type(cell) is int and cell >= 0):
        return cell
    return int(cell) if isinstance(cell, str) and cell.isdecimal() else parse_size(cell)


def _repeated(rows: list[_Row]) -> Iterator[tuple[int, str]]:
    seen: set[str] = set()
    for row in rows:
        name = str(row.cells.get("sandbox"))
        if name in seen:
            yield row.line, name
        seen.add(name)


def _member(cells: Mapping[str, Any]) -> Member:
    attributes = {ATTRIBUTES[name]: cell for name, cell in cells.items() if name != "memory"}
    return Member(SandboxAttributes(**attributes), _memory(cells.get("memory")))
