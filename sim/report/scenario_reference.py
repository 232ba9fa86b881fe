"""The reference part of docs/scenarios.md: every key, metric and fault of a scenario file, from its own schema."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sim.files.expectations import METRICS
from sim.files.faults import CATALOGUE, KINDS
from sim.files.fleet import PATTERNS
from sim.files.lifecycle import MEANING
from sim.files.schemas import json_schema
from sim.report.table import Paragraph, Section, Table, code, markdown

MARK = "<!-- Below this line: `snapdrill schema reference`. -->"
"""Separates what is written by hand in docs/scenarios.md from what is made here."""
_TOP = "A scenario"
_NAMES = {
    "NodeSpec": "node",
    "Group": "a group of the fleet",
    "Workload": "workload, of a group",
    "Engine": "engine",
    "FlagFile": "flags, as a file",
    "ServedFlags": "flags, served",
    "Matrix": "matrix",
    "Swarm": "swarm",
    "SwarmFleet": "swarm: fleet",
    "SwarmFlags": "swarm: flags",
    "SwarmSteps": "swarm: steps",
    "SwarmFaults": "swarm: faults",
    "InvariantExpectation": "expect: an invariant",
    "MetricExpectation": "expect: a metric",
    "PauseFilter": "where, of a metric",
    "StateExpectation": "expect: states",
    "ViolationExpectation": "expect: a canary",
    "Eventually": "eventually",
    "Where": "where, of a selection",
    "CrashPoint": "crash: at",
}


def reference() -> str:
    """As Markdown, with a final newline."""
    return markdown([*_keys(), *_words()], level=3) + "\n"


def _keys() -> Iterator[Section]:
    schema = json_schema()
    definitions: Mapping[str, Any] = schema["$defs"]
    yield _section(_TOP, schema)
    for form in schema["properties"]["steps"]["items"]["oneOf"]:
        ((kind, body),) = form["properties"].items()
        name = body.get("$ref", "").rpartition("/")[2]
        yield _section(f"step: {kind}", definitions[name]) if name else _value(kind, body)
    for name, title in _NAMES.items():
        yield _section(title, definitions[name])


def _section(title: str, definition: Mapping[str, Any]) -> Section:
    required = definition.get("required", ())
    rows = [
        (code(key), _takes(each), "required" if key in required else _default(each))
        for key, each in definition.get("properties", {}).items()
    ]
    said = "" if title == _TOP else re.sub(r"\s+", " ", definition.get("description", "").replace("`", ""))
    return Section(title, (Paragraph(said), *([Table(("key", "takes", "default"), rows)] if rows else [])))


def _value(kind: str, body: Mapping[str, Any]) -> Section:
    """A step that is written as one value."""
    return Section(f"step: {kind}", (Paragraph(f"One value: {_takes(body)}."),))


def _takes(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "" if name == "Reference" else f"see {_NAMES.get(name, 'the schema')}"
    if "anyOf" in schema or "oneOf" in schema:
        found = dict.fromkeys(filter(None, map(_takes, schema.get("anyOf", schema.get("oneOf", ())))))
        return " or ".join(found)
    if "enum" in schema or "const" in schema:
        return ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        return f"a list of: {_takes(schema.get('items', {})) or 'anything'}"
    return _of_type(schema)


_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a mapping",
    "null": "",
}


def _of_type(schema: Mapping[str, Any]) -> str:
    kind, pattern = schema.get("type"), schema.get("pattern", "")
    for unit, words in (
        ("KiB", "a size such as 32MiB"),
        ("ms", "a duration such as 300ms or 2s"),
        ("%", "a share such as 40%"),
    ):
        if unit in pattern:
            return words
    limits = [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    return " ".join([_TYPES.get(str(kind), "anything"), *limits])


def _default(schema: Mapping[str, Any]) -> str:
    for each in (schema, *schema.get("anyOf", ())):
        if "default" in each and each["default"] not in ([], ""):
            value = each["default"]
            return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
    return ""


def _words() -> Iterator[Section]:
    yield Section(
        "Patterns", (Table(("pattern", "what each tick dirties"), [(code(k), v) for k, v in PATTERNS.items()]),)
    )
    yield Section("States", (Table(("state", "meaning"), [(code(k.value), v) for k, v in MEANING.items()]),))
    metrics = [(code(name), unit, sentence) for name, (unit, sentence) in METRICS.items()]
    yield Section("Metrics", (Table(("metric", "unit of min and max", "what is measured"), metrics),))
    points = [
        (code(spec.point), spec.sentence, "each chunk" if spec.chunked else "once", ", ".join(spec.kinds))
        for spec in CATALOGUE.values()
    ]
    yield Section("Fault points", (Table(("point", "the act", "passed", "kinds of fault"), points),))
    yield Section("Kinds of fault", (Table(("kind", "what it does"), [(code(k), v) for k, v in KINDS.items()]),))
