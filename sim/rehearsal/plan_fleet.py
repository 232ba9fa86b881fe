"""A plan's `fleet: FILE`: the fleet file's groups at its scale, its node, and production's numbers."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from engine.errors import UserError
from sim.fleet_spec import Group
from sim.strict import Finding, finding
from sim.units import format_duration, format_size
from sim.yaml_positions import Document

if TYPE_CHECKING:
    from sim.fleet_scale import ScaledFleet


def fleet_of(document: Document, folder: pathlib.Path) -> tuple[ScaledFleet | None, list[Finding]]:
    """The fleet of the file that a plan names, at its scale; None without one. Its mistakes are told as they are."""
    from sim.fleet_file import load
    from sim.fleet_scale import at_scale

    data = document.data
    if not isinstance(data, dict) or not isinstance(data.get("fleet"), str):
        return None, []
    try:
        return at_scale(load(folder / data["fleet"])), []
    except UserError as error:
        lines = str(error).splitlines()
        return None, [finding(document, ("fleet",), f"its file is not sound: {line}") for line in lines]


def put(document: Document, scaled: ScaledFleet) -> None:
    """What the fleet file says, in its place in the plan; what the plan says itself stays."""
    said, data = _said(scaled), document.data
    if isinstance(data.get("pacing"), dict):
        said["pacing"] |= data["pacing"]
        data.pop("pacing")
    data.update({key: value for key, value in said.items() if key not in data})
    data["fleet"] = [_group(each) for each in scaled.groups]


def _group(group: Group) -> dict[str, Any]:
    made: dict[str, Any] = {"name": group.name, "count": group.count, "memory": format_size(group.memory)}
    made["page_size"] = format_size(group.page_size)
    if group.block_size is not None:
        made["block_size"] = format_size(group.block_size)
    workload = {"dirty": f"{group.workload.dirty:g}%", "pattern": group.workload.pattern}
    names = {"template": group.template, "team": group.team, "cluster": group.cluster}
    return {**made, **names, "workload": workload}


def _said(scaled: ScaledFleet) -> dict[str, Any]:
    """What a plan may say too: production's pauses are those of the day's peak, and so are the rehearsed node's."""
    fleet, node = scaled.fleet, scaled.node
    pauses = sum(each.count * each.pauses_per_hour.top for each in fleet.groups) / 60
    share = pauses * scaled.sandboxes / fleet.count
    said: dict[str, Any] = {
        "node": {"memory": format_size(node.memory), "cache": node.cache},
        "production": {"sandboxes": fleet.count, "pausesPerMinute": pauses},
        "pacing": {"pausesPerMinute": share, "concurrency": fleet.node.concurrency},
    }
    if fleet.propagation.origin != "assumed":
        written = fleet.propagation.model_dump(exclude_none=True)
        said["propagation"] = {
            key: [format_duration(v) for v in value] if isinstance(value, tuple | list) else format_duration(value)
            for key, value in written.items()
        }
    return said
