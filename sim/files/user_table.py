"""A table of production's sandboxes, one per row, for a plan: its values are used as they are, not fitted or
averaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from engine.reading import MOST_TABLE_BYTES
from flags.context import SandboxAttributes
from flags.decode import parse_json
from sim.files.fleet_table import ATTRIBUTES, COLUMNS, Readers, cells_of, table
from sim.files.sources import read_text
from sim.files.units import format_size, show

REQUIRED = ("sandbox", "team", "template", "memory")
ASSUMED_DIRTY = 40.0
ASSUMED_PAUSES = 1.0
SUFFIXES = (".csv", ".json")
_SMALLEST = 64 << 10
_KNOWN = ("memory", "dirty", "page_size", "node", "pauses_per_hour", "checkpoints_per_hour")


def _text(value: Any) -> str:
    if isinstance(value, dict | list | bool):
        raise ValueError(f"expected text or a number, got {show(value)}")  # noqa: TRY004 - a mistake
    return str(value)


_READERS: Readers = {
    **dict.fromkeys(ATTRIBUTES, COLUMNS["team"]),
    **{name: COLUMNS[name] for name in ("memory", "dirty", "page_size", "pauses_per_hour")},
    "checkpoints_per_hour": COLUMNS["pauses_per_hour"],
    "region": _text,
    "node": COLUMNS["node"],
}


@dataclass(frozen=True, slots=True)
class UserSandbox:
    """One row: bytes, percent of memory that is dirty at a pause, pauses and checkpoints an hour.

    `others` are further columns.
    """

    attributes: SandboxAttributes
    memory: int
    dirty: float = ASSUMED_DIRTY
    pauses_per_hour: float = ASSUMED_PAUSES
    checkpoints_per_hour: float = 0.0
    page_size: int = 4096
    node: str | None = None
    others: Mapping[str, str] = field(default_factory=dict)


def read_user_table(path: Path) -> list[UserSandbox]:
    """Every row; unknown columns are attributes of the sandbox. DocumentError with every mistake."""
    text = read_text(path, MOST_TABLE_BYTES)
    readers = {**dict.fromkeys(_columns(text, path), _text), **_READERS}
    return [_sandbox(each) for each in table(text, path, readers, REQUIRED)]


def _columns(text: str, path: Path) -> list[str]:
    """The names of the columns of either form; none if it is not readable, which the reader reports."""
    if not text.lstrip().startswith(("[", "{")):
        return [str(cell.value) for cell in next(cells_of(text, path), []) if cell.value]
    try:
        rows = parse_json(text)
    except ValueError:
        return []
    rows = rows if isinstance(rows, list) else [rows]
    return list(dict.fromkeys(name for each in rows if isinstance(each, dict) for name in each))


def _sandbox(row: Mapping[str, Any]) -> UserSandbox:
    attributes = {ATTRIBUTES[name]: value for name, value in row.items() if name in ATTRIBUTES}
    known = {name: row[name] for name in _KNOWN if name in row}
    others = {name: value for name, value in row.items() if name not in _READERS or name == "region"}
    return UserSandbox(SandboxAttributes(**attributes), others=others, **known)


def as_group(sandbox: UserSandbox, scale: Fraction) -> dict[str, Any]:
    """One sandbox of a rehearsal under its own name, its memory at this scale, in whole pages."""
    attributes = sandbox.attributes
    page = sandbox.page_size if sandbox.memory * scale >= 8 * sandbox.page_size else 4096
    memory = max(_SMALLEST, round(sandbox.memory * scale / page) * page)
    dirty = max(1, round(sandbox.dirty))
    return {
        "name": attributes.sandbox,
        "exact": True,
        "memory": format_size(memory),
        "page_size": format_size(page),
        "template": attributes.template,
        "team": attributes.team,
        "cluster": attributes.cluster,
        "type": attributes.sandbox_type,
        **{name: getattr(attributes, name) for name in ("kernel_version", "firecracker_version", "envd_version")},
        "workload": {"dirty": f"{dirty}%", "pattern": "full" if dirty == 100 else "scattered"},
    }


def production(sandboxes: list[UserSandbox]) -> dict[str, Any]:
    """The plan's `production`, taken from the table."""
    nodes = {each.node for each in sandboxes if each.node is not None}
    said: dict[str, Any] = {
        "sandboxes": len(sandboxes),
        "pausesPerMinute": max(1e-6, sum(each.pauses_per_hour for each in sandboxes) / 60),
    }
    if checkpoints := sum(each.checkpoints_per_hour for each in sandboxes) / 60:
        said["checkpointsPerMinute"] = checkpoints
    return said | ({"nodes": len(nodes)} if nodes else {})
