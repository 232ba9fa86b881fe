"""JSON Schema of a plan file and of a fleet file, for editors."""

from __future__ import annotations

from typing import Any

from sim.event_schema import DRAFT
from sim.rehearsal.plan import Plan
from sim.rehearsal.plan_steps import PLAN_STEPS
from sim.scenario import step_form


def plan_schema() -> dict[str, Any]:
    """Of a plan; sizes, shares and durations are strings with a pattern, a step is one key and its settings."""
    schema = Plan.model_json_schema()
    bodies = {"setWeight": "weight"}
    forms = [step_form(kind, step, bodies.get(kind), schema["$defs"]) for kind, step in PLAN_STEPS.items()]
    schema["properties"]["steps"]["items"] = {"oneOf": forms}
    file = {"type": "string", "description": "A fleet file (`kind: fleet`), relative to the plan's folder."}
    schema["properties"]["fleet"] = {"anyOf": [schema["properties"]["fleet"], file]}
    return {"$schema": DRAFT, **schema}


def fleet_schema() -> dict[str, Any]:
    """Of a fleet."""
    from sim.fleet_file import Fleet

    return {"$schema": DRAFT, **Fleet.model_json_schema()}
