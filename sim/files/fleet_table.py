"""A table of production's sandboxes, one a row: its columns, and what a row says. docs/tables.md describes it.

The same for `flags cohort`, `flags lint`, `fleet import`, `rehearse` and `forecast`: they differ in which columns they
need.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final

from flags.catalog import did_you_mean
from flags.cohort import Member
from flags.context import DEFAULTS, NAMES, Attribute, SandboxAttributes, further_problem
from flags.document import Mistake
from sim.files.fleet import PAGE_SIZES, bare_version
from sim.files.table_cells import CellTable, Columns, Reader, read_cells
from sim.files.units import format_size, parse_percent, parse_size, show

SUFFIXES = (".csv", ".json", ".parquet")
COHORT: Final = ("sandbox", "team", "template")
"""What `flags cohort` and `flags lint` need of every row."""
PRODUCTION: Final = (*COHORT, "memory")
"""What `rehearse` and `forecast` need."""
_EXACT = 2.0**53


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected a name, got {show(value)}")
    return value


def _version(value: Any) -> str:
    return bare_version(_name(value))


def _written(value: Any) -> str:
    """A number of JSON as CSV has it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError(f"expected text or a number, got {show(value)}")  # noqa: TRY004 - a mistake
    return format(Decimal(str(value)), "f")


def _size(value: Any) -> int:
    """A number is bytes."""
    text = _written(value)
    size = int(text) if text.isascii() and text.isdecimal() else parse_size(text)
    if size <= 0:
        raise ValueError("expected more than 0 bytes of memory")
    return size


def _share(value: Any) -> float:
    """Percent; `40%`, or a ratio from 0 to 1."""
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


def _attribute(name: str, value: Any) -> Attribute:
    """As it is written: text of CSV stays text, a number or true of JSON and Parquet stays that.

    4.0 is the whole number 4, by which a share can be drawn, as it is in JSON to production's SDK.
    """
    plain = float(value) if isinstance(value, Decimal) else value
    if (why := further_problem(name, plain)) is not None:
        raise ValueError(f"{why}; got {show(value)}")
    is_whole = isinstance(plain, float) and plain.is_integer() and abs(plain) < _EXACT
    made: Attribute = int(plain) if is_whole else plain
    return made


READERS: Mapping[str, Reader] = {
    **dict.fromkeys(NAMES, _name),
    **dict.fromkeys(("kernel-version", "firecracker-version", "envd-version"), _version),
    "region": partial(_attribute, "region"),
    "node": _name,
    "memory": _size,
    "dirty": _share,
    "resident": _share,
    "page_size": _page_size,
    "pauses_per_hour": _rate,
    "peak_pauses_per_hour": _rate,
    "checkpoints_per_hour": _rate,
}
"""The columns that have a meaning; any other is a further attribute."""
_FIGURES = ("memory", "node", "dirty", "resident", "page_size", "pauses_per_hour", "peak_pauses_per_hour",
            "checkpoints_per_hour")  # fmt: skip


@dataclass(frozen=True, slots=True)
class SandboxRow:
    """One row; bytes, percent, and pauses and checkpoints an hour. None where the table does not give it.

    What it does not say of the sandbox itself is among the absent of its `attributes`.
    """

    attributes: SandboxAttributes
    memory: int | None = None
    node: str | None = None
    dirty: float | None = None
    resident: float | None = None
    page_size: int | None = None
    pauses_per_hour: float | None = None
    peak_pauses_per_hour: float | None = None
    checkpoints_per_hour: float | None = None

    @property
    def team(self) -> str | None:
        """None where the table gives none."""
        return None if "team" in self.attributes.absent else self.attributes.team


@dataclass(frozen=True, slots=True)
class SandboxTable:
    """Its rows, and what is odd about its columns: mistakes with severity `warning`."""

    rows: list[SandboxRow]
    notes: tuple[Mistake, ...] = ()

    def members(self) -> list[Member]:
        """The sandboxes as flags see them."""
        return [Member(each.attributes, each.memory) for each in self.rows]


def read_table(path: Path, required: Sequence[str]) -> SandboxTable:
    """Every row; DocumentError with every mistake. Columns without a meaning are further attributes."""
    read = read_cells(path, Columns(READERS, required, _attribute))
    return SandboxTable([_row(each) for each in read.rows], tuple(_notes(read, path)))


def _row(values: Mapping[str, Any]) -> SandboxRow:
    said = {field: values[name] for name, field in NAMES.items() if name in values}
    if "node" in values:
        said.setdefault("orchestrator", values["node"])  # its key is the node's id
    absent = tuple(field for field in NAMES.values() if field not in said)
    others = tuple((name, value) for name, value in values.items() if name not in READERS or name == "region")
    bare = {"sandbox": DEFAULTS.sandbox, "template": "base", "team": "default"}
    attributes = SandboxAttributes(**bare | said, absent=absent, others=others)
    return SandboxRow(attributes, **{name: values[name] for name in _FIGURES if name in values})


def _notes(read: CellTable, path: Path) -> Iterator[Mistake]:
    """A slip of the pen in a column's name would be an attribute that nothing reads."""
    for name, position in read.columns.items():
        meant = did_you_mean(name, READERS.keys() - read.columns.keys())
        if name not in READERS and meant.startswith("did you mean"):
            what = f'column "{name}" is an attribute of the sandbox'
            yield Mistake(position, "", what, meant, str(path), severity="warning")
