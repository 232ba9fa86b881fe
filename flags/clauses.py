"""Targets, rules and rollouts of a flag in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flags.problem import objects

_OPERATORS = {
    "in": ("is", "is not"),
    "startsWith": ("starts with", "does not start with"),
    "endsWith": ("ends with", "does not end with"),
    "contains": ("contains", "does not contain"),
    "matches": ("matches", "does not match"),
    "lessThan": ("is less than", "is not less than"),
    "lessThanOrEqual": ("is at most", "is not at most"),
    "greaterThan": ("is more than", "is not more than"),
    "greaterThanOrEqual": ("is at least", "is not at least"),
    "before": ("is before", "is not before"),
    "after": ("is after", "is not after"),
    "semVerEqual": ("is version", "is not version"),
    "semVerLessThan": ("is older than version", "is not older than version"),
    "semVerGreaterThan": ("is newer than version", "is not newer than version"),
}


def clause_words(clause: Mapping[str, Any]) -> str:
    """`team key is "acme" or "apex"`."""
    values = clause.get("values")
    said = " or ".join(json.dumps(each) for each in values) if isinstance(values, list) and values else "nothing"
    negate = bool(clause.get("negate"))
    if clause.get("op") == "segmentMatch":
        return f"{'not ' if negate else ''}in the segment {said}"
    if clause.get("attribute") == "kind" and clause.get("op") == "in":
        return f"{'without' if negate else 'with'} the kind {said}"
    kind, attribute, operator = clause.get("contextKind") or "user", clause.get("attribute"), str(clause.get("op"))
    verb = _OPERATORS.get(operator, (operator, f"not {operator}"))[negate]
    return f"{kind} {attribute} {verb} {said}"


def rule_words(rule: Mapping[str, Any]) -> str:
    """Its clauses, all of which must match; a rule without any matches everybody."""
    return " and ".join(clause_words(clause) for _, clause in objects(rule, "clauses")) or "everybody"


def target_words(target: Mapping[str, Any]) -> str:
    """`sandbox key is "web-0"`."""
    as_clause = {"attribute": "key", "op": "in", "values": target.get("values")}
    return clause_words({**as_clause, "contextKind": target.get("contextKind")})


def rollout_words(rollout: Mapping[str, Any], variations: list[Any]) -> str:
    """`false for 50 %, true for 50 %, by sandbox key`."""
    entries = rollout["variations"]
    shares = ", ".join(
        f"{json.dumps(variations[entry['variation']])} for {entry['weight'] / 1000:g} %" for entry in entries
    )
    return f"{shares}, by {rollout.get('contextKind') or 'user'} {rollout.get('bucketBy') or 'key'}"
