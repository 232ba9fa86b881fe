"""Scenario documents as text: plain data in, YAML to read and edit out, one line a group, step or expectation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from sim.yaml_positions import parse

_PLAIN = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.%/+-]*")
_LISTS = ("fleet", "steps", "expect")


def scenario_text(document: Mapping[str, Any], comment: str = "") -> str:
    """The text of a scenario file; `comment` goes in front of it, each of its lines behind a `#`.

    `document` is what such a file holds as dict, list and scalars, sizes and shares as written (`32MiB`, `40%`).
    """
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    for key, value in document.items():
        if key in _LISTS and value and isinstance(value, list):
            lines += [f"{key}:", *(f"  - {_entry(each)}" for each in value)]
        else:
            lines.append(f"{_scalar(key)}: {flow(value)}")
    return "\n".join(lines) + "\n"


def _entry(value: Any) -> str:
    """A step without the braces that a mapping of one key does not need."""
    if isinstance(value, Mapping) and len(value) == 1:
        ((key, body),) = value.items()
        return f"{_scalar(key)}: {flow(body)}"
    return flow(value)


def flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """A string is quoted where a reader would take it for anything else; JSON's quotes are YAML's too."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and parse(value).data == value:
        return value
    return json.dumps(value, ensure_ascii=False)
