"""A table as text or Parquet: the cells of every row with their places, and what is wrong with its form."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from engine.reading import MOST_TABLE_BYTES, read_regular
from flags.document import DocumentError, Mistake, Position, parse
from sim.files.sources import read_text
from sim.files.units import show

MOST_CELLS = 2_000_000
"""Of one table."""
_MOST_COLUMNS = 1_000
_CELL_END = re.compile("[,\n]")
_PARQUET = b"PAR1"

Reader = Callable[[Any], Any]
"""Makes a value of a cell; ValueError where it cannot."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that have a meaning, each with its reader; `required` ones are in every row; `others` reads the rest,
    and gets their names.

    A dash in a column's name is as good as an underscore.
    """

    readers: Mapping[str, Reader]
    required: Sequence[str]
    others: Callable[[str, Any], Any]

    def named(self, written: str) -> str:
        """The column as it is known here."""
        alike = written.replace("-", "_")
        return next((each for each in self.readers if each.replace("-", "_") == alike), written)

    @property
    def needed(self) -> str:
        """The required ones, in words."""
        return ", ".join(self.required)


class InputCell(NamedTuple):
    """A cell's value (in CSV a string without quotes and outer blanks) and its place in the text."""

    value: Any
    position: Position


@dataclass(frozen=True, slots=True)
class InputRow:
    """The cells of one sandbox that are not empty, by column."""

    position: Position
    cells: Mapping[str, InputCell]


@dataclass(frozen=True, slots=True)
class CellTable:
    """The values of every row that are not empty, by column; `columns` are all that were met, with their places."""

    rows: list[dict[str, Any]]
    columns: Mapping[str, Position]


def read_cells(path: Path, columns: Columns) -> CellTable:
    """The table of a file; DocumentError with every mistake.

    CSV with a header, JSON, a list of objects (or one), or Parquet, whose places are the numbers of row and column. An
    empty cell of CSV and a null of JSON or Parquet are left out.
    """
    content = _parquet_content(path)
    if content is not None:
        return _table(_parquet_rows(content, path, columns), path, columns, "a row for each, with columns")
    return cells_in(read_text(path, MOST_TABLE_BYTES), path, columns)


def cells_in(text: str, path: Path, columns: Columns) -> CellTable:
    """The same of a text in CSV or JSON."""
    if text.lstrip().startswith(("[", "{")):
        return _table(_json_rows(text, path, columns), path, columns, "an object for each, with")
    return _table(_csv_rows(text, path, columns), path, columns, "a row for each, below a header with")


def _table(found: Iterator[InputRow | Mistake], path: Path, columns: Columns, how: str) -> CellTable:
    read: list[dict[str, Any]] = []
    mistakes: list[Mistake] = []
    lines: dict[str, int] = {}
    met: dict[str, Position] = {}
    for each in found:
        if isinstance(each, Mistake):
            mistakes.append(each)
            continue
        values, wrong = _values(each, columns)
        read.append(values)
        mistakes += [*wrong, *_repeated(each, lines)]
        for name, cell in each.cells.items():
            met.setdefault(name, cell.position)
    if not read and not mistakes:
        mistakes.append(Mistake(Position(), "", f"no sandbox; write {how} {columns.needed}"))
    if mistakes:
        raise DocumentError(path, mistakes)
    return CellTable(read, met)


def _json_rows(text: str, path: Path, columns: Columns) -> Iterator[InputRow | Mistake]:
    try:
        document = parse(text)
    except json.JSONDecodeError as error:
        what = Mistake(Position(error.lineno, error.colno), "", f"not JSON: {error.msg}")
        raise DocumentError(path, [what]) from None
    yield from (_second(str(where[-1]), position) for where, position in document.duplicates)
    at, is_list = document.positions, isinstance(document.value, list)
    named: dict[str, str] = {}
    for index, value in enumerate(document.value if is_list else [document.value]):
        where = (index,) if is_list else ()
        position = at.get(where, Position())
        if isinstance(value, dict):
            names = {name: named.get(name) or named.setdefault(name, columns.named(name)) for name in value}
            known = list(names.values())
            yield from (
                _second(name, at[(*where, written)])
                for place, (written, name) in enumerate(names.items())
                if name in known[:place]
            )
            cells = {
                names[name]: InputCell(cell, at[(*where, name)]) for name, cell in value.items() if cell is not None
            }
            row = InputRow(position, cells)
            yield from _missing(row, columns)
            yield row
        else:
            yield Mistake(position, "", f"expected a row, an object with {columns.needed}; got {show(value)}")


def _csv_rows(text: str, path: Path, columns: Columns) -> Iterator[InputRow | Mistake]:
    """A mistake in the header is reported once, however many rows there are."""
    cells = cells_of(text, path)
    head = next(cells, [])
    if len(head) > _MOST_COLUMNS:
        what = f"{len(head):,} columns, a table has at most {_MOST_COLUMNS:,}"
        yield Mistake(head[_MOST_COLUMNS].position, "", what)
        return
    names = [columns.named(str(cell.value)) for cell in head]
    yield from (_second(name, cell.position) for at, (name, cell) in enumerate(zip(names, head, strict=True))
                if name and name in names[:at])  # fmt: skip
    absent = [name for name in columns.required if head and name not in names]
    needed = f"every row needs {columns.needed}"
    yield from (Mistake(head[0].position, "", f"no column {name}; {needed}") for name in absent)
    for line in cells:
        row = InputRow(line[0].position, {name: cell for name, cell in zip(names, line, strict=False) if cell.value})
        extra = f"more cells than the {len(head)} of the header"
        yield from (Mistake(cell.position, "", extra) for cell in line[len(head) :])
        yield from (Mistake(cell.position, "", "a cell below no name in the header")
                    for name, cell in zip(names, line, strict=False) if not name and cell.value)  # fmt: skip
        yield from _missing(row, columns, absent)
        yield row


def _parquet_content(path: Path) -> bytes | None:
    """The bytes of a file that begins as Parquet does; None for any other, whose reader says what is wrong with it."""
    try:
        content = read_regular(path, MOST_TABLE_BYTES)
    except OSError:
        return None
    return content if content.startswith(_PARQUET) else None


def _parquet_rows(content: bytes, path: Path, columns: Columns) -> Iterator[InputRow | Mistake]:
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError:
        what = "Parquet needs the extra: pip install 'snapdrill[table]'; or write CSV"
        raise DocumentError(path, [Mistake(Position(), "", what)]) from None
    try:
        file = parquet.ParquetFile(pa.BufferReader(content))
        if file.metadata.num_rows * file.metadata.num_columns > MOST_CELLS:
            raise DocumentError(path, [_too_many(Position())])
        read = file.read()
        values = [column.to_pylist() for column in read.columns]
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        what = f"not Parquet that can be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        raise DocumentError(path, [Mistake(Position(), "", what)]) from None
    names = [columns.named(name) for name in read.column_names]
    yield from (_second(name, Position(1, at + 1)) for at, name in enumerate(names) if name in names[:at])
    absent = [name for name in columns.required if name not in names]
    needed = f"every row needs {columns.needed}"
    yield from (Mistake(Position(), "", f"no column {name}; {needed}") for name in absent)
    for number in range(read.num_rows):
        cells = {
            name: InputCell(column[number], Position(number + 1, at + 1))
            for at, (name, column) in enumerate(zip(names, values, strict=True))
            if column[number] is not None
        }
        row = InputRow(Position(number + 1, 1), cells)
        yield from _missing(row, columns, absent)
        yield row


def _too_many(position: Position) -> Mistake:
    return Mistake(position, "", f"more than {MOST_CELLS:,} cells; split the table")


def _second(name: str, position: Position) -> Mistake:
    return Mistake(position, "", f"duplicate column {name}", "keep one")


def _missing(row: InputRow, columns: Columns, absent: Sequence[str] = ()) -> list[Mistake]:
    """Required columns without a cell; columns `absent` from the header are reported once, for the header."""
    return [
        Mistake(row.position, "", f"no {name} in this row; every row needs {columns.needed}")
        for name in columns.required
        if name not in row.cells and name not in absent
    ]


def _values(row: InputRow, columns: Columns) -> tuple[dict[str, Any], list[Mistake]]:
    values, wrong = {}, []
    for name, cell in row.cells.items():
        try:
            read = columns.readers.get(name)
            values[name] = columns.others(name, cell.value) if read is None else read(cell.value)
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


def cells_of(text: str, path: Path) -> Iterator[list[InputCell]]:
    """Every row of CSV that is not blank. A quote that is never closed runs to the end of the text. DocumentError past
    MOST_CELLS."""
    row: list[InputCell] = []
    at, line, begin, count = 0, 1, 0, 0
    while at <= len(text):
        count += 1
        if count > MOST_CELLS:
            raise DocumentError(path, [_too_many(Position(line, 1))])
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
