"""What lint finds before it knows the line, and the little that all its checks share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from flags.catalog import did_you_mean
from flags.context import KINDS, Shape
from flags.document import Path, Severity

Flags = Mapping[str, Mapping[str, Any]]
"""Flags in LaunchDarkly's JSON form, by key."""


@dataclass(frozen=True, slots=True)
class Who:
    """Which contexts get an unsafe value by a mistake: those that get it from `flags`, and not from `without`.

    `segments` go with both. Without `without`, all that get it from `flags`. `lost` is a kind that they have lost then.
    """

    key: str
    flags: Flags
    segments: Flags
    without: Flags | None = None
    lost: str | None = None
    when: str = "as the flag stands"


class Problem(NamedTuple):
    """A mistake at a path of the document, what it does in production, and what to do about it.

    `who` is for a mistake by which sandboxes get an unsafe value.
    """

    path: Path
    message: str
    production: str
    fix: str
    severity: Severity = "error"
    who: Who | None = None


def present(value: Any) -> Any:
    """Without the members that are null: to LaunchDarkly's decoder they are absent. What is served stays as it is."""
    if isinstance(value, Mapping):
        kept = {name: each for name, each in value.items() if each is not None}
        return {
            name: each if name in {"variations", "values"} and _is_plain(each) else present(each)
            for name, each in kept.items()
        }
    return [present(each) for each in value] if isinstance(value, list) else value


def _is_plain(items: Any) -> bool:
    """Variations of a flag and values of a clause; those of a rollout have members of their own."""
    return not (
        isinstance(items, list) and items and all(isinstance(each, dict) and "weight" in each for each in items)
    )


def objects(item: Mapping[str, Any], name: str) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a list, with their index; what is of another type, LaunchDarkly's own parser refuses."""
    items = item.get(name)
    return [(i, each) for i, each in enumerate(items) if isinstance(each, dict)] if isinstance(items, list) else []


def index_problem(path: Path, index: Any, variations: list[Any], production: str) -> Iterator[Problem]:
    """Out of range, or not an index at all."""
    if type(index) is not int or not 0 <= index < len(variations):
        fix = f"use 0 to {len(variations) - 1}"
        yield Problem(path, f"variation {json.dumps(index)} is out of range", production, fix)


def kind_problem(
    path: Path, item: Mapping[str, Any], production: str, shape: Shape, name: str = "contextKind"
) -> Iterator[Problem]:
    """Without one LaunchDarkly means `user`, which no sandbox has; written out, it may be meant for others."""
    kind = item.get(name)
    if not kind:
        fix = f"use one of: {', '.join(shape)}"
        yield Problem(path, f'"{name}" is missing, which means "user"', production, fix)
    elif kind not in KINDS:
        message = f"unknown {name} {json.dumps(kind)}"
        severity: Severity = "warning" if kind == "user" and "variations" not in item else "error"
        yield Problem((*path, name), message, production, did_you_mean(str(kind), KINDS), severity)
    elif kind not in shape:
        message = f'no context has the kind "{kind}" when the flag is read'
        fix = f"use one of: {', '.join(shape)}; or say with --kinds which kinds your contexts have"
        yield Problem((*path, name), message, production, fix)


def members_of(item: Mapping[str, Any], known: Flags) -> set[str]:
    """The known segments that a flag or segment names, directly or not."""
    found: set[str] = set()
    waiting = segments_named(item)
    while waiting:
        if (name := waiting.pop()) not in found and name in known:
            found.add(name)
            waiting += segments_named(known[name])
    return found


def segments_named(item: Mapping[str, Any]) -> list[str]:
    """The segments that the rules of a flag or segment name."""
    return [str(name) for each in clauses_of(item) if each.get("op") == "segmentMatch" for name in each["values"]]


def clauses_of(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every clause of the rules of a flag or segment."""
    return [clause for _, rule in objects(item, "rules") for _, clause in objects(rule, "clauses")]
