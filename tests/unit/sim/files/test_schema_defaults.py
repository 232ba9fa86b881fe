"""A default in a published schema is what a file may say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from sim.files.schemas import fleet_schema, json_schema, plan_schema

TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def defaults(schema: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Every default with the schema that it stands in; a property may be called `default` too."""
    if isinstance(schema, dict):
        if "default" in schema and not isinstance(schema["default"], dict):
            yield schema["default"], schema
        for each in schema.values():
            yield from defaults(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from defaults(each)


def is_valid(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """By the keywords that our schemas use for values."""
    if "$ref" in schema:
        return is_valid(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    if "anyOf" in schema:
        return any(is_valid(value, each, root) for each in schema["anyOf"])
    if "type" in schema and not isinstance(value, TYPES[schema["type"]]):
        return False
    if isinstance(value, bool) and schema.get("type") in {"integer", "number"}:
        return False
    allowed = schema.get("enum", [schema["const"]] if "const" in schema else [value])
    matches = not isinstance(value, str) or re.search(schema.get("pattern", ""), value)
    items = value if isinstance(value, list) else []
    return value in allowed and bool(matches) and all(is_valid(each, schema.get("items", {}), root) for each in items)


@pytest.mark.parametrize("make", [json_schema, plan_schema, fleet_schema], ids=["scenario", "plan", "fleet"])
def test_every_default_is_valid_by_the_schema_that_it_stands_in(make: Any) -> None:
    schema = make()
    found = list(defaults(schema))
    assert len(found) > 10
    assert [(value, part) for value, part in found if not is_valid(value, part, schema)] == []


def test_sizes_durations_and_shares_have_their_units() -> None:
    written = {str(value) for value, part in defaults(json_schema()) if part.get("type") == "string"}
    assert {"4KiB", "1GiB", "1m", "40%", "scattered"} <= written
