"""A fleet exported as CSV or JSON, one sandbox a row: the reader, and the fleet file made from the rows."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from engine.reading import MOST_TABLE_BYTES
from flags.catalog import did_you_mean
from flags.cohort import Member
from flags.context import SandboxAttributes
from flags.document import DocumentError, Mistake, Position, parse
from sim.files.fleet import PAGE_SIZES
from sim.files.sources import read_text
from sim.files.units import format_size, parse_percent, parse_size, show
from sim.files.yaml import flow

MOST_CELLS = 2_000_000
"""Of one table."""

Readers = Mapping[str, Callable[[Any], Any]]
"""The columns that a table may have, and what makes a value of a cell; ValueError where it cannot."""


class InputCell(NamedTuple):
    """A cell's value (in CSV a string without quotes and outer blanks) and its place in the text."""

    value: Any
    position: Position


@dataclass(frozen=True, slots=True)
class InputRow:
    """The cells of one sandbox that are not empty, by column."""

    position: Position
    cells: Mapping[str, InputCell]


def table(text: str, path: Path, readers: Readers, required: Sequence[str]) -> list[dict[str, Any]]:
    """The cells of every row, by column; DocumentError with every mistake.

    CSV with a header, or JSON, a list of objects (or one). An empty cell of CSV and a null of JSON are left out.
    """
    is_json = text.lstrip().startswith(("[", "{"))
    found = _json_rows(text, path, readers, required) if is_json else _csv_rows(text, path, readers, required)
    read: list[dict[str, Any]] = []
    mistakes: list[Mistake] = []
    lines: dict[str, int] = {}
    for each in found:
        if isinstance(each, Mistake):
            mistakes.append(each)
        else:
            values, wrong = _values(each, readers)
            read.append(values)
            mistakes += [*wrong, *_repeated(each, lines)]
    if not read and not mistakes:
        how = "an object for each, with" if is_json else "a row for each, below a header with"
        mistakes.append(Mistake(Position(), "", f"no sandbox; write {how} {_names(required)}"))
    if mistakes:
        raise DocumentError(path, mistakes)
    return read


def _json_rows(text: str, path: Path, readers: Readers, required: Sequence[str]) -> Iterator[InputRow | Mistake]:
    try:
        document = parse(text)
    except json.JSONDecodeError as error:
        what = Mistake(Position(error.lineno, error.colno), "", f"not JSON: {error.msg}")
        raise DocumentError(path, [what]) from None
    yield from (_second(str(where[-1]), position) for where, position in document.duplicates)
    at, is_list = document.positions, isinstance(document.value, list)
    for index, value in enumerate(document.value if is_list else [document.value]):
        where = (index,) if is_list else ()
        position = at.get(where, Position())
        if isinstance(value, dict):
            yield from (_unknown(name, at[(*where, name)], readers) for name in value if name not in readers)
            cells = {name: InputCell(cell, at[(*where, name)]) for name, cell in value.items() if cell is not None}
            row = InputRow(position, cells)
            yield from _missing(row, required)
            yield row
        else:
            yield Mistake(position, "", f"expected a row, an object with {_names(required)}; got {show(value)}")


def _csv_rows(text: str, path: Path, readers: Readers, required: Sequence[str]) -> Iterator[InputRow | Mistake]:
    """A mistake in the header is reported once, however many rows there are."""
    cells = cells_of(text, path)
    head = next(cells, [])
    names = [str(cell.value) for cell in head]
    if len(names) > _MOST_COLUMNS:
        what = f"{len(names):,} columns, a table has at most {_MOST_COLUMNS:,}"
        yield Mistake(head[_MOST_COLUMNS].position, "", what)
        return
    yield from (_unknown(cell.value, cell.position, readers) for cell in head if cell.value not in readers)
    yield from (_second(cell.value, cell.position) for at, cell in enumerate(head) if cell.value in names[:at])
    absent = [name for name in required if head and name not in names]
    needed = f"every row needs {_names(required)}"
    yield from (Mistake(head[0].position, "", f"no column {name}; {needed}") for name in absent)
    for line in cells:
        row = InputRow(line[0].position, {name: cell for name, cell in zip(names, line, strict=False) if cell.value})
        extra = f"more cells than the {len(head)} of the header"
        yield from (Mistake(cell.position, "", extra) for cell in line[len(head) :])
        yield from _missing(row, required, absent)
        yield row


def _names(required: Sequence[str]) -> str:
    return ", ".join(required)


def _unknown(name: str, position: Position, readers: Readers) -> Mistake:
    return Mistake(position, "", f'unknown column "{name}"', did_you_mean(name, readers))


def _second(name: str, position: Position) -> Mistake:
    return Mistake(position, "", f"duplicate column {name}", "keep one")


def _missing(row: InputRow, required: Sequence[str], absent: Sequence[str] = ()) -> list[Mistake]:
    """Required columns without a cell; columns `absent` from the header are reported once, for the header."""
    return [
        Mistake(row.position, "", f"no {name} in this row; every row needs {_names(required)}")
        for name in required
        if name not in row.cells and name not in absent
    ]


def _values(row: InputRow, readers: Readers) -> tuple[dict[str, Any], list[Mistake]]:
    values, wrong = {}, []
    for name, cell in row.cells.items():
        if name in readers:
            try:
                values[name] = readers[name](cell.value)
            except ValueError as error:
                wrong.append(Mistake(cell.position, name, str(error)))
    return values, wrong


def _repeated(row: InputRow, lines: dict[str, int]) -> Iterator[Mistake]:
    """`lines` is the line in which each sandbox first appears."""
    cell = row.cells.get("sandbox")
    if cell is not None and isinstance(cell.value, str):
        if cell.value in lines:
            what = f'duplicate sandbox "{cell.value}"; the first is in line {lines[cell.value]}'
            yield Mistake(cell.position, "", what, "keep one")
        lines.setdefault(cell.value, cell.position.line)


_MOST_COLUMNS = 1_000
_CELL_END = re.compile("[,\n]")


def cells_of(text: str, path: Path) -> Iterator[list[InputCell]]:
    """Every row of CSV that is not blank. A quote that is never closed runs to the end of the text. DocumentError past
    MOST_CELLS."""
    row: list[InputCell] = []
    at, line, begin, count = 0, 1, 0, 0
    while at <= len(text):
        count += 1
        if count > MOST_CELLS:
            raise DocumentError(
                path, [Mistake(Position(line, 1), "", f"more than {MOST_CELLS:,} cells; split the table")]
            )
        cell, after, lines = _cell(text, at)
        row.append(InputCell(cell.strip(), Position(line, at - begin + 1)))
        ended = after >= len(text) or text[after] == "\n"
        line += lines
        at = after + 1
        if lines:
            begin = text.rfind("\n", 0, after) + 1
        if ended:
            if any(each.value for each in row):
                yield row
            row, line, begin = [], line + 1, at


def _cell(text: str, at: int) -> tuple[str, int, int]:
    """The cell that begins there, the place of what ends it, and how many line ends are inside its quotes."""
    if text[at : at + 1] == '"':
        return _quoted(text, at)
    found = _CELL_END.search(text, at)
    end = len(text) if found is None else found.start()
    return text[at:end].removesuffix("\r"), end, 0


def _quoted(text: str, at: int) -> tuple[str, int, int]:
    close = at + 1
    while (close := text.find('"', close)) >= 0 and text[close + 1 : close + 2] == '"':
        close += 2
    close = len(text) if close < 0 else close
    held = text[at + 1 : close].replace('""', '"')
    rest, end, _ = _cell(text, close + 1) if text[close + 1 : close + 2] not in {'"', ""} else ("", close + 1, 0)
    return held + rest, min(end, len(text)), text.count("\n", at, close)


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected a name, got {show(value)}")
    return value


def _bytes(value: Any) -> int:
    """A number is bytes."""
    if type(value) is int and value >= 0:
        return value
    return int(value) if isinstance(value, str) and value.isdecimal() else parse_size(value)


ATTRIBUTES = {each.name.replace("_", "-"): each.name for each in fields(SandboxAttributes)}
"""The columns that describe a sandbox to the flags, and the attribute that each becomes."""
REQUIRED = ("sandbox", "team", "template")


def read_fleet(path: Path) -> list[Member]:
    """The sandboxes of a table as flags see them; memory in bytes, None where the table does not give it."""
    readers = {**dict.fromkeys(ATTRIBUTES, _name), "memory": _bytes}
    return [_member(row) for row in table(read_text(path, MOST_TABLE_BYTES), path, readers, REQUIRED)]


def _member(row: Mapping[str, Any]) -> Member:
    attributes = {ATTRIBUTES[name]: value for name, value in row.items() if name != "memory"}
    return Member(SandboxAttributes(**attributes), row.get("memory"))


def _written(value: Any) -> str:
    """A number of JSON as CSV has it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected text or a number, got {show(value)}")  # noqa: TRY004 - a mistake
    return format(Decimal(str(value)), "f")


def _size(value: Any) -> int:
    text = _written(value)
    size = int(text) if text.isascii() and text.isdecimal() else parse_size(text)
    if size <= 0:
        raise ValueError("expected more than 0 bytes of memory")
    return size


def _share(value: Any) -> float:
    """`40%`, or a ratio from 0 to 1."""
    text = _written(value)
    if not re.fullmatch(r"[0-9]*\.?[0-9]+", text):
        return parse_percent(text)
    if float(text) > 1:
        raise ValueError(f'expected a share such as 40% or 0.4, got "{text}"')
    return float(text) * 100


def _page_size(value: Any) -> int:
    text = _written(value)
    if text not in {*map(str, PAGE_SIZES), *map(format_size, PAGE_SIZES)}:
        raise ValueError(f'expected {" or ".join(map(format_size, PAGE_SIZES))}, got "{text}"')
    return int(text) if text.isdecimal() else parse_size(text)


def _rate(value: Any) -> float:
    text = _written(value)
    if not re.fullmatch(r"[0-9]*\.?[0-9]+", text):
        raise ValueError(f'expected a number of pauses an hour, got "{text}"')
    return float(text)


COLUMNS: Readers = {
    "memory": _size,
    "dirty": _share,
    "resident": _share,
    "page_size": _page_size,
    "team": _name,
    "template": _name,
    "node": _name,
    "pauses_per_hour": _rate,
    "peak_pauses_per_hour": _rate,
    "sandbox": _name,
}
"""The columns of a table to import; only memory is required."""
_FEW = 4
_NEVER = 1e-6  # pauses an hour: once in a century
_SHARES = (10, 50, 90, 99)


@dataclass(frozen=True, slots=True)
class SandboxRow:
    """One row; bytes, percent and pauses an hour. None where the table does not give it."""

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


def read_sandboxes(path: Path) -> list[SandboxRow]:
    """The sandboxes of a table, to make a fleet file of."""
    return [SandboxRow(**row) for row in table(read_text(path, MOST_TABLE_BYTES), path, COLUMNS, ("memory",))]


def fleet_text(
    sandboxes: Sequence[SandboxRow], *, name: str, node_memory: int, hugetlb: int, scale: str, origin: str
) -> str:
    """A fleet file: a group for each template and page size. What the table does not give is left out, so assumed."""
    kinds: dict[tuple[str, int], list[SandboxRow]] = {}
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
        f"# {len(sandboxes):,} sandboxes from {origin}. Not in the table, so defaults are assumed: {assumed}.",
        *([] if on_nodes else [f"# The table names no nodes: {per_node} sandboxes per node is a guess."]),
        "kind: fleet",
        "version: 1",
        f"name: {flow(name)}",
        f"scale: {scale}",
        f"node: {flow(node)}",
        "groups:",
    ]
    groups = (_group(key, members, number) for number, (key, members) in enumerate(sorted(kinds.items())))
    return "\n".join([*head, *(f"  - {flow(group)}" for group in groups)]) + "\n"


def _group(key: tuple[str, int], members: Sequence[SandboxRow], number: int) -> dict[str, Any]:
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


def _pauses(members: Sequence[SandboxRow]) -> dict[str, Any]:
    """Rates of single sandboxes add up: their mean is the group's."""
    rates = [each.pauses_per_hour for each in members if each.pauses_per_hour is not None]
    peaks = [each.peak_pauses_per_hour for each in members if each.peak_pauses_per_hour is not None]
    if not rates:
        return {}
    found = {"median": round(max(_NEVER, fmean(rates)), 6)}
    return {"pauses_per_hour": found | ({"peak": max(round(fmean(peaks), 6), found["median"])} if peaks else {})}


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
