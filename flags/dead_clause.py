"""Why a clause matches no context where the SDK found none that it matches, and what to write instead."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flags.as_go import knows_re2
from flags.catalog import did_you_mean
from flags.cells import clause_json, meets
from flags.context import ATTRIBUTES, TEXT, Shape, Types, ValueType, type_of
from flags.document import Path, Severity
from flags.problem import Problem, kind_problem

_NUMBERS = ("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual")
_VERSIONS = ("semVerEqual", "semVerLessThan", "semVerGreaterThan")
_TIMES = ("before", "after")
_TEXTS = ("startsWith", "endsWith", "contains", "matches")
OPERATORS = ("in", *_TEXTS, *_NUMBERS, *_VERSIONS, *_TIMES, "segmentMatch")


class Cause(NamedTuple):
    """What of the clause it is, what is the matter, and the mend. `may_be_meant`: also where it should deny."""

    place: Path
    message: str
    fix: str
    severity: Severity = "warning"
    may_be_meant: bool = False


def why_dead(clause: Any, shape: Shape, types: Types, segments: Mapping[str, Any]) -> Cause | None:
    """The first reason that holds, of a clause in the SDK's model; None where another check names the place."""
    operator, values = clause.op, list(clause.values)
    if operator not in OPERATORS:
        return Cause(("op",), f'unknown operator "{operator}"', did_you_mean(operator, OPERATORS), "error")
    if operator == "segmentMatch" and values:
        return _no_member(values, segments)
    is_kind = clause.attribute is not None and clause.attribute.depth == 1 and clause.attribute[0] == "kind"
    if is_kind and values:
        message = f"no context has the kind {_listed(values)} when the flag is read"
        return Cause(("values",), message, f"use one of: {', '.join(shape)}", "error")
    its_kind = None if is_kind or operator == "segmentMatch" else _of_its_kind(clause, shape)
    if its_kind is None and not values:
        return Cause(("values",), "the clause has no values", "list them, or remove the clause")
    if its_kind is not None:
        return its_kind
    of_it = TEXT if is_kind else types.get((clause.context_kind, clause.attribute[0]), TEXT)
    return _of_its_values(clause, values) if of_it == TEXT else _of_typed(clause, values, of_it)


def _no_member(values: list[Any], segments: Mapping[str, Any]) -> Cause | None:
    if any(str(each) not in segments for each in values):
        return None
    lists = ("included", "includedContexts", "rules")
    is_empty = not any(segments[str(each)].get(name) for each in values for name in lists)
    message, fix = f"no sandbox is in the segment {_listed(values)}", "give it members, or remove the clause"
    return Cause(("values",), message, fix, may_be_meant=is_empty)


def _of_its_kind(clause: Any, shape: Shape) -> Cause | None:
    """The table of contexts lacks its kind or attribute."""
    written = clause_json(clause)
    for problem in kind_problem((), written, "", shape):
        return Cause(problem.path, problem.message, problem.fix, problem.severity, problem.severity == "warning")
    unknown = attribute_problem((), written, "attribute", shape[clause.context_kind], "")
    return None if unknown is None else Cause(unknown.path, unknown.message, unknown.fix)


def attribute_problem(
    path: Path, item: Mapping[str, Any], name: str, known: Sequence[str], production: str
) -> Problem | None:
    """An attribute, named by the member `name` of an item, that contexts of its kind do not have."""
    given = str(item.get(name) or "key").removeprefix("/")
    if given in known:
        return None
    kind = item.get("contextKind") or item.get("rolloutContextKind")
    message = f'unknown {name} "{given}": kind "{kind}" has no such attribute'
    return Problem((*path, name), message, production, did_you_mean(given, known), "error")


def _of_its_values(clause: Any, values: list[Any]) -> Cause | None:
    operator, said, place = clause.op, _listed(values), ("values",)
    name = f"{clause.context_kind} {clause.attribute.path}"
    if operator in _NUMBERS:
        fix = f"for versions use {'semVerLessThan' if operator.startswith('less') else 'semVerGreaterThan'}"
        if clause.attribute[0] not in ATTRIBUTES[clause.context_kind]:
            fix += "; a table of JSON or Parquet can have numbers"
        return Cause(("op",), f"{operator} compares numbers, and {name} is text", fix)
    if operator in _VERSIONS and not any(_is_read(operator, each) for each in values):
        return Cause(place, f"{said} is no version", "write a whole one, such as 6.2.0")
    if operator in _TIMES and not any(_is_read(operator, each) for each in values):
        return Cause(place, f"{said} is no time", "write one such as 2026-01-31T12:00:00Z, or milliseconds")
    if operator == "matches" and not any(isinstance(each, str) and knows_re2(each) for each in values):
        fix = "write it without lookaround and back-references, or with startsWith, endsWith, contains"
        return Cause(place, f"RE2, which production uses, has no such syntax: {said}", fix)
    if not any(isinstance(each, str) for each in values):
        return Cause(place, f"{said} is not text, and {name} is text", f"write {_listed(map(_text, values))}")
    if operator in _TIMES:
        return Cause(("op",), f"{operator} compares times, and {name} is none", "use another operator")
    return Cause(place, f"no {name} meets {'not ' if clause.negate else ''}{operator} {said}", "correct the values")


_WORDS: Mapping[ValueType, str] = {
    "text": "text",
    "whole": "a number",
    "fraction": "a number",
    "boolean": "true or false",
}


def _of_typed(clause: Any, values: list[Any], types: frozenset[ValueType]) -> Cause:
    """Of an attribute whose values, in a table, are not all text."""
    operator, said = clause.op, _listed(values)
    name = f"{clause.context_kind} {clause.attribute.path}"
    has = dict.fromkeys(word for each, word in _WORDS.items() if each in types)
    is_it = f"{name} is {' or '.join(has)}"
    for operators, what, fitting in ((_NUMBERS, "numbers", {"a number"}), ((*_TEXTS, *_VERSIONS), "text", {"text"})):
        if operator in operators and not fitting & has.keys():
            return Cause(("op",), f"{operator} compares {what}, and {is_it}", "use another operator, such as in")
    given = dict.fromkeys(_WORDS[type_of(each)] for each in values if isinstance(each, str | int | float))
    if operator in {"in", *_NUMBERS} and not given.keys() & has.keys():
        kinds = " or ".join(given) or "no such value"
        return Cause(("values",), f"{said} is {kinds}, and {is_it}", "write values of that type")
    met = f"{'not ' if clause.negate else ''}{operator} {said}"
    return Cause(("values",), f"no {name} meets {met}", "correct the values")


def _is_read(operator: str, value: Any) -> bool:
    """Whether the SDK makes anything of a constant: a version equals itself, a time comes before the last one."""
    if operator in _VERSIONS:
        return meets({"op": "semVerEqual", "values": [value]}, value)
    return meets({"op": "before", "values": ["9999-01-01T00:00:00Z"]}, value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _listed(values: Any) -> str:
    return " or ".join(map(json.dumps, values))
