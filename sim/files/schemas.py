"""The JSON Schema of each document that people write."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from sim.files.fleet_file import Fleet
from sim.files.plan import PLAN_BODIES, PLAN_STEPS, Plan
from sim.files.scenario import Scenario
from sim.files.steps import BODIES, STEPS
from sim.files.variables import with_references

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def plan_schema() -> dict[str, Any]:
    """Of a plan; sizes, shares and durations are strings with a pattern, a step is one key and its settings."""
    schema = Plan.model_json_schema()
    forms = [_step_form(kind, step, PLAN_BODIES.get(kind), schema["$defs"]) for kind, step in PLAN_STEPS.items()]
    schema["properties"]["steps"]["items"] = {"oneOf": forms}
    file = {"type": "string", "description": "A fleet file (`kind: fleet`), relative to the plan's folder."}
    schema["properties"]["fleet"] = {"anyOf": [schema["properties"]["fleet"], file]}
    return {"$schema": DRAFT, **schema}


def fleet_schema() -> dict[str, Any]:
    """Of a fleet."""
    return {"$schema": DRAFT, **Fleet.model_json_schema()}


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors; sizes, shares and durations are strings with a pattern.

    What a file does not say itself it may extend, and a reference may stand for any value.
    """
    schema = Scenario.model_json_schema()
    forms = [_step_form(kind, step, BODIES.get(kind), schema["$defs"]) for kind, step in STEPS.items()]
    schema["properties"]["steps"]["items"] = {"oneOf": forms}
    schema["anyOf"] = [{"required": schema["required"]}, {"required": ["name", "extends"]}]
    schema["required"] = ["name"]
    return {"$schema": DRAFT, **with_references(schema)}


def _step_form(kind: str, step: type[BaseModel], body_of: str | None, definitions: dict[str, Any]) -> dict[str, Any]:
    """A step as it is written: one key and its settings, or what its field `body_of` holds."""
    name = step.__name__
    definitions[name]["properties"].pop("kind")
    body = {"$ref": f"#/$defs/{name}"}
    if body_of is not None:
        body = definitions.pop(name)["properties"][body_of]
    return {"type": "object", "properties": {kind: body}, "required": [kind], "additionalProperties": False}
