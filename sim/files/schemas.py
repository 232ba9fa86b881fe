"""The JSON Schema of each document that people write."""

from __future__ import annotations

from typing import Any

from sim.files.plan import PLAN_STEPS, Plan
from sim.files.scenario import Scenario, step_form
from sim.files.steps import (
    BODIES,
    STEPS,
)
from sim.files.variables import with_references


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
    from sim.files.fleet_file import Fleet

    return {"$schema": DRAFT, **Fleet.model_json_schema()}


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors; sizes, shares and durations are strings with a pattern.

    What a file does not say itself it may extend, and a reference may stand for any value.
    """
    schema = Scenario.model_json_schema()
    forms = [step_form(kind, step, BODIES.get(kind), schema["$defs"]) for kind, step in STEPS.items()]
    schema["properties"]["steps"]["items"] = {"oneOf": forms}
    schema["anyOf"] = [{"required": schema["required"]}, {"required": ["name", "extends"]}]
    schema["required"] = ["name"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **with_references(schema)}


DRAFT = "https://json-schema.org/draft/2020-12/schema"
