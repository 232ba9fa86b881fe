"""The JSON Schema of each document that people write."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from sim.files.fleet_file import Fleet
from sim.files.plan import PLAN_BODIES, PLAN_STEPS, Plan
from sim.files.scenario import Scenario
from sim.files.steps import BODIES, STEPS
from sim.files.units import format_duration, format_size
from sim.files.variables import with_references

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def plan_schema() -> dict[str, Any]:
    """Of a plan; sizes, shares and durations are strings with a pattern, a step is one key and its settings."""
    schema = Plan.model_json_schema()
    forms = [_step_form(kind, step, PLAN_BODIES.get(kind), schema["$defs"]) for kind, step in PLAN_STEPS.items()]
    schema["properties"]["steps"]["items"] = {"oneOf": forms}
    file = {"type": "string", "description": "A fleet file (`kind: fleet`), relative to the plan's folder."}
    schema["properties"]["fleet"] = {"anyOf": [schema["properties"]["fleet"], file]}
    return {"$schema": DRAFT, **_as_written(schema)}


def fleet_schema() -> dict[str, Any]:
    """Of a fleet."""
    return {"$schema": DRAFT, **_as_written(Fleet.model_json_schema())}


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors; sizes, shares and durations are strings with a pattern.

    A key that is missing may come from the file that it extends, and a reference may stand for any value.
    """
    schema = Scenario.model_json_schema()
    forms = [_step_form(kind, step, BODIES.get(kind), schema["$defs"]) for kind, step in STEPS.items()]
    schema["properties"]["steps"]["items"] = {"oneOf": forms}
    schema["anyOf"] = [{"required": schema["required"]}, {"required": ["name", "extends"]}]
    schema["required"] = ["name"]
    return {"$schema": DRAFT, **with_references(_as_written(schema))}


def _as_written(schema: Any) -> Any:
    """The schema with each default as a file writes it: `32MiB` for a number of bytes, `60s`, `40%`, `1-3`.

    A default that is a whole mapping is left out: its own keys have theirs.
    """
    if isinstance(schema, list):
        return [_as_written(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _as_written(each) for key, each in schema.items() if key != "default"}
    if "default" in schema:
        default = _default(schema["default"], schema)
        made |= {} if default is _UNWRITTEN else {"default": default}
    return made


_UNWRITTEN = object()


def _default(value: Any, schema: dict[str, Any]) -> Any:
    if isinstance(value, dict) and set(value) == {"low", "high"}:
        return f"{value['low']}-{value['high']}"
    if isinstance(value, dict) or value is None:
        return _UNWRITTEN
    if isinstance(value, int | float) and not isinstance(value, bool) and schema.get("type") == "string":
        unit = schema.get("pattern", "")
        if "KiB" in unit or "4KiB" in schema.get("enum", ()):
            return format_size(int(value)) if value else "0KiB"
        return f"{value:g}%" if "%" in unit else format_duration(value)
    return list(value) if isinstance(value, tuple) else value


def _step_form(kind: str, step: type[BaseModel], body_of: str | None, definitions: dict[str, Any]) -> dict[str, Any]:
    """A step as it is written: one key and its settings, or the value of its field `body_of`."""
    name = step.__name__
    definitions[name]["properties"].pop("kind")
    body = {"$ref": f"#/$defs/{name}"}
    if body_of is not None:
        body = definitions.pop(name)["properties"][body_of]
    return {"type": "object", "properties": {kind: body}, "required": [kind], "additionalProperties": False}
