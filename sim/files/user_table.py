"""A plan's table of production's sandboxes: its rows as they are, not fitted or averaged, and as what is rehearsed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from flags.context import NAMES, OF_A_GROUP, SandboxAttributes
from sim.files.fleet import Absent, is_slug
from sim.files.fleet_table import SandboxRow
from sim.files.units import format_size

ASSUMED = {"dirty": 40.0, "resident": 100.0, "pauses_per_hour": 1.0, "checkpoints_per_hour": 0.0, "page_size": 4096.0}
"""What a row has that does not say: percent, an hour, bytes."""
_SMALLEST = 64 << 10


@dataclass(frozen=True, slots=True)
class UserSandbox:
    """One row: bytes, percent of memory that is dirty and that is resident at a pause, pauses and checkpoints an
    hour."""

    attributes: SandboxAttributes
    memory: int
    dirty: float
    resident: float
    pauses_per_hour: float
    checkpoints_per_hour: float
    page_size: int
    node: str | None


def user_sandbox(row: SandboxRow) -> UserSandbox:
    """The row with what is assumed where it says nothing; it has a memory."""
    said = {name: ASSUMED[name] if (value := getattr(row, name)) is None else value for name in ASSUMED}
    page = int(said.pop("page_size"))
    return UserSandbox(row.attributes, row.memory or 0, page_size=page, node=row.node, **said)


def assumed(rows: Sequence[SandboxRow]) -> list[str]:
    """What is assumed of how many rows, in words; nothing of the columns that every row has."""
    units = {"dirty": "% of memory", "resident": "% of memory"}
    found = []
    for name in ("dirty", "pauses_per_hour"):
        without = sum(getattr(each, name) is None for each in rows)
        if without:
            found.append(f"{name} {ASSUMED[name]:g} {units.get(name, 'an hour')} of {without:,} rows (assumed)")
    old = sum("firecracker_version" in each.attributes.absent for each in rows)
    if old:
        found.append(f"a memfd, as from Firecracker 1.14 on, of {old:,} rows (assumed)")
    return found


def rehearsed_name(sandbox: str) -> str:
    """The name that a sandbox is rehearsed under: its own where that can be the name of a file and a process."""
    if is_slug(sandbox):
        return sandbox
    return f"x-{hashlib.blake2b(sandbox.encode(), digest_size=8).hexdigest()}"


def as_group(sandbox: UserSandbox, scale: Fraction) -> dict[str, Any]:
    """One sandbox of a rehearsal, under its own name where it can be, its memory at this scale, in whole pages.

    Its flags are evaluated for what the row says of it, and for nothing else.
    """
    attributes, name = sandbox.attributes, rehearsed_name(sandbox.attributes.sandbox)
    page = sandbox.page_size if sandbox.memory * scale >= 8 * sandbox.page_size else 4096
    memory = max(_SMALLEST, round(sandbox.memory * scale / page) * page)
    dirty = max(1, round(sandbox.dirty))
    made: dict[str, Any] = {
        "name": name,
        "exact": True,
        "memory": format_size(memory),
        "page_size": format_size(page),
        "template": attributes.template,
        "team": attributes.team,
        "cluster": attributes.cluster,
        "type": attributes.sandbox_type,
        **{name: getattr(attributes, name) for name in OF_A_GROUP if name != "sandbox_type"},
        "workload": {"dirty": f"{dirty}%", "pattern": "full" if dirty == 100 else "scattered"},
    }
    if name != attributes.sandbox:
        made["key"] = attributes.sandbox
    if attributes.others:
        made["attributes"] = dict(attributes.others)
    absent: list[Absent] = [name for name, field in NAMES.items() if field in attributes.absent]
    return made | ({"absent": absent} if absent else {})


def production(sandboxes: Sequence[UserSandbox]) -> dict[str, Any]:
    """The plan's `production`, taken from the table."""
    nodes = {each.node for each in sandboxes if each.node is not None}
    said: dict[str, Any] = {
        "sandboxes": len(sandboxes),
        "pausesPerMinute": max(1e-6, sum(each.pauses_per_hour for each in sandboxes) / 60),
    }
    if checkpoints := sum(each.checkpoints_per_hour for each in sandboxes) / 60:
        said["checkpointsPerMinute"] = checkpoints
    return said | ({"nodes": len(nodes)} if nodes else {})
