"""A plan's `fleet: FILE`: the fleet file's groups at its scale, its node, and production's numbers."""

from __future__ import annotations

import pathlib
from typing import Any

from engine.errors import UserError
from sim.fleet_spec import Group
from sim.strict import Finding, finding
from sim.units import format_duration, format_size
from sim.yaml_positions import Document


def with_fleet(document: Document, folder: pathlib.Path) -> list[Finding]:
    """Put the groups of the fleet file in its place in `document`; what the plan says itself stays.

    A plan without a fleet file is left as it is. Mistakes of the fleet file are told as they are.
    """
    data = document.data
    if not isinstance(data, dict) or not isinstance(data.get("fleet"), str):
        return []
    try:
        data.update(
            {key: value for key, value in _said(folder / data["fleet"]).items() if key not in data}
            | {"fleet": _groups(folder / data["fleet"])}
        )
    except UserError as error:
        return [finding(document, ("fleet",), f"its file is not sound: {line}") for line in str(error).splitlines()]
    return []


def _groups(path: pathlib.Path) -> list[dict[str, Any]]:
    from sim.fleet_file import load
    from sim.fleet_scale import at_scale

    return [_group(each) for each in at_scale(load(path)).groups]


def _group(group: Group) -> dict[str, Any]:
    made: dict[str, Any] = {"name": group.name, "count": group.count, "memory": format_size(group.memory)}
    made["page_size"] = format_size(group.page_size)
    if group.block_size is not None:
        made["block_size"] = format_size(group.block_size)
    workload = {"dirty": f"{group.workload.dirty:g}%", "pattern": group.workload.pattern}
    names = {"template": group.template, "team": group.team, "cluster": group.cluster}
    return {**made, **names, "workload": workload}


def _said(path: pathlib.Path) -> dict[str, Any]:
    """What a fleet file says that a plan may say too: production's pauses are those of the day's peak."""
    from sim.fleet_file import load
    from sim.fleet_scale import at_scale

    fleet = load(path)
    node = at_scale(fleet).node
    pauses = sum(each.count * each.pauses_per_hour.top for each in fleet.groups) / 60
    said = {
        "node": {"memory": format_size(node.memory), "cache": node.cache},
        "production": {"sandboxes": fleet.count, "pausesPerMinute": pauses},
    }
    if fleet.propagation.origin != "assumed":
        written = fleet.propagation.model_dump(exclude_none=True)
        said["propagation"] = {
            key: [format_duration(v) for v in value] if isinstance(value, tuple | list) else format_duration(value)
            for key, value in written.items()
        }
    return said
