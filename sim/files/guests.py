"""`--guest`: every sandbox of a file with one kind of guest, whatever the file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sim.files.fleet import GuestKind
from sim.files.loader import Drilled
from sim.files.scenario import Scenario
from sim.files.yaml import parse, scenario_text

if TYPE_CHECKING:
    from sim.files.plan import Plan  # it loads the flag SDK, which a scenario may not need


def with_guests(scenario: Scenario, kind: GuestKind | None) -> Scenario:
    """The same scenario with guests of this kind, in the text that a run stores too; None: as it is."""
    if kind is None:
        return scenario
    data = dict(parse(scenario.source_text).data)
    text = scenario_text(_with(data, kind), f"{scenario.path.name} with guest: {kind}.")
    return scenario.model_copy(update=_groups(scenario, kind)).with_source(text=text, guest=kind)


def plan_with_guests(plan: Plan, kind: GuestKind | None) -> Plan:
    """The same plan with guests of this kind; its text stays that of its file. None: as it is."""
    if kind is None:
        return plan
    document = replace(plan.document, data=_with(plan.document.data, kind))
    return plan.model_copy(update=_groups(plan, kind)).with_source(document=document, guest=kind)


def _groups(file: Drilled, kind: GuestKind) -> dict[str, Any]:
    return {"fleet": tuple(group.model_copy(update={"guest": kind}) for group in file.fleet)}


def _with(data: Mapping[str, Any], kind: GuestKind) -> dict[str, Any]:
    return {**data, "fleet": [{**group, "guest": kind} for group in data["fleet"]]}
