"""A fleet file made from the rows of a table: a group for each template and page size, values as distributions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from flags.context import DEFAULTS, NAMES
from sim.files.fleet import PAGE_SIZES
from sim.files.fleet_table import SandboxRow
from sim.files.units import format_size
from sim.files.yaml import flow

NEEDED = ("memory",)
"""The columns that `fleet import` needs of every row."""
_COLUMNS = (
    *("memory", "dirty", "resident", "page_size", "team", "template", "node", "pauses_per_hour"),
    *("peak_pauses_per_hour", "checkpoints_per_hour", "firecracker-version"),
)
"""Those that a fleet file takes something from."""
_FEW = 4
_NEVER = 1e-6  # pauses an hour: once in a century
_SHARES = (10, 50, 90, 99)


def fleet_text(
    sandboxes: Sequence[SandboxRow], *, name: str, node_memory: int, hugetlb: int, scale: str, origin: str
) -> str:
    """A fleet file: a group for each template and page size. What the table does not give is left out, so assumed."""
    kinds: dict[_Kind, list[SandboxRow]] = {}
    for each in sandboxes:
        of = each.attributes
        kinds.setdefault((of.template, each.page_size or PAGE_SIZES[0], of.firecracker_version), []).append(each)
    silent = [column for column in _COLUMNS if not any(_says(each, column) for each in sandboxes)]
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


_Kind = tuple[str, int, str]
"""Template, page size and Firecracker's version."""


def _says(row: SandboxRow, column: str) -> bool:
    field = NAMES.get(column)
    return getattr(row, column) is not None if field is None else field not in row.attributes.absent


def _group(key: _Kind, members: Sequence[SandboxRow], number: int) -> dict[str, Any]:
    template, page_size, firecracker = key
    slug = re.sub(r"[^a-z0-9-]+", "-", template.lower()).strip("-")[:40] or "group"
    group: dict[str, Any] = {
        "name": f"{slug}-{number}",
        "count": len(members),
        "memory": _distribution([float(each.memory or 0) for each in members], _as_size),
    }
    for column in ("dirty", "resident"):
        shares = [value for each in members if (value := getattr(each, column)) is not None]
        if shares:
            group[column] = f"{fmean(shares):.4g}%" if column == "resident" else _distribution(shares, _as_percent)
    group |= {"page_size": format_size(page_size), "template": template}
    teams = Counter(each.team for each in members if each.team is not None)
    if teams:
        group["team_size"] = _distribution([float(count) for count in teams.values()], int)
    if firecracker != DEFAULTS.firecracker_version:
        group["firecracker_version"] = firecracker
    return group | _pauses(members)


def _pauses(members: Sequence[SandboxRow]) -> dict[str, Any]:
    """Rates of single sandboxes add up: their mean is the group's."""
    rates = [each.pauses_per_hour for each in members if each.pauses_per_hour is not None]
    peaks = [each.peak_pauses_per_hour for each in members if each.peak_pauses_per_hour is not None]
    checkpoints = [each.checkpoints_per_hour for each in members if each.checkpoints_per_hour is not None]
    made: dict[str, Any] = {"checkpoints_per_hour": round(fmean(checkpoints), 6)} if checkpoints else {}
    if not rates:
        return made
    found = {"median": round(max(_NEVER, fmean(rates)), 6)}
    most = {"peak": max(round(fmean(peaks), 6), found["median"])} if peaks else {}
    return {"pauses_per_hour": found | most} | made


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
