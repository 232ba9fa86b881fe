"""The contexts that a flag can distinguish: one cell for each, made from what its clauses, targets and shares read.

An attribute is cut into classes: each constant and a step beside it, a fresh value, the joins of constants, and, beyond
the table of contexts, absent and of a wrong type. Values that every clause and share answers alike are one class.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

from flags.as_go import knows_re2
from flags.context import TEXT, Attribute, Shape, Types, ValueType, type_of
from flags.launchdarkly import make_context
from flags.launchdarkly_fleet import FixedFlags, bucket_in

LIMIT = 4_096
"""The most cells of one flag that are tried."""
KEYS = 4_096
"""How many made-up values are drawn to find one on each side of a share."""
WRONG_TYPE = 2.5
"""Stands for a value of a type that an attribute does not have; known by identity, for 2.5 can be a value."""
_FRESH_NUMBER = 987_654_321
_FRESH = "any-other"
_ONE_TYPE = ("name", "anonymous")
"""Of one type in every context that there can be."""
_VERSION = re.compile(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?")
_LITERAL = re.compile(r"\^?([\w\-/ :]+)\$?")


_Constant = tuple[bool, Attribute]
"""A value of a list, and whether it is true or false: to Python, but not to a rule, true is 1."""
_Classes = Mapping[tuple[str, str], list[Attribute]]
"""One value of each class of an attribute of a kind."""


@dataclass(frozen=True, slots=True)
class ContextCell:
    """A context in LaunchDarkly's JSON form and as the SDK's. `lacks` names what of the table of contexts it lacks."""

    data: Mapping[str, Any]
    context: Any
    lacks: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """True where each kind that it has is as in the table of contexts."""
        return not any("." in each for each in self.lacks)

    def words(self) -> str:
        """`sandbox kernel-version "6.2.0", without the kind "team"`; `a context that no clause names`."""
        named = [
            f'{kind} {name} "{value}"' if isinstance(value, str) else f"{kind} {name} {json.dumps(value)}"
            for kind, part in self.data.items()
            if kind != "kind"
            for name, value in part.items()
            if not str(value).startswith(_FRESH) and value != _FRESH_NUMBER
        ]
        missing = [f'without the {"attribute" if "." in each else "kind"} "{each}"' for each in self.lacks]
        return (
            ", ".join([*named, *missing]).replace("without", "a context without", not named)
            or "a context that no clause names"
        )


@dataclass(frozen=True, slots=True)
class _Share:
    """What a rollout of another flag or a segment draws by one attribute; `ends` are the upper ends of its shares."""

    key: str
    salt: str
    seed: int | None
    by: Any
    ends: tuple[float, ...]

    def drawn(self, context: Any, kind: str) -> int:
        bucket = bucket_in(context, kind, self.key, self.salt, self.by, self.seed)
        return next((at for at, end in enumerate(self.ends) if bucket < end), len(self.ends))

    def sides(self) -> set[int]:
        """The shares that some value must be in, the one past the last end with them."""
        ends = [0.0, *self.ends, 1.0]
        return {at for at in range(len(self.ends) + 1) if ends[at] < min(ends[at + 1], 1.0)}


@dataclass(slots=True)
class _Attribute:
    """What is asked about one attribute of one kind."""

    lists: list[frozenset[_Constant]] = field(default_factory=list)
    clauses: list[Any] = field(default_factory=list)
    shares: list[_Share] = field(default_factory=list)
    types: frozenset[ValueType] = TEXT


class Reads:
    """What a flag, in the SDK's model, and the segments that it names read of the contexts of a shape."""

    def __init__(self, flag: Any, segments: Mapping[str, Any], shape: Shape, types: Types) -> None:
        self._shape = shape
        self._types = types
        self._attributes: dict[tuple[str, str], _Attribute] = {}
        self._kinds: set[str] = set()
        self.unseen = False
        """True where a share is so small, or so large, that no made-up value was found on one side of it."""
        for target in flag.context_targets:
            self._list(target.context_kind, target.values)
        for rule in flag.rules:
            self._clauses(rule.clauses)
        for part in (*(rule.variation_or_rollout for rule in flag.rules), flag.fallthrough):
            if part.variation is None and part.rollout is not None:
                self._at(part.rollout.context_kind, None if part.rollout.is_experiment else part.rollout.bucket_by)
        for key, segment in segments.items():
            self._segment(key, segment)

    def _segment(self, key: str, segment: Any) -> None:
        for target in (*segment.included_contexts, *segment.excluded_contexts):
            self._list(target.context_kind, target.values)
        for rule in segment.rules:
            self._clauses(rule.clauses)
            if rule.weight is not None:
                attribute = self._at(rule.rollout_context_kind, rule.bucket_by)
                if attribute is not None:
                    share = _Share(key, segment.salt, None, rule.bucket_by, (rule.weight / 100_000,))
                    attribute.shares.append(share)

    def _at(self, kind: str | None, reference: Any) -> _Attribute | None:
        """Where the table of contexts has it; else it is absent from every context."""
        kind = kind or "user"
        if kind not in self._shape:
            return None
        self._kinds.add(kind)
        name = "key" if reference is None else reference[0]
        if (reference is not None and reference.depth != 1) or name not in self._shape[kind]:
            return None
        at = kind, str(name)
        return self._attributes.setdefault(at, _Attribute(types=self._types_of(*at)))

    def _types_of(self, kind: str, name: str) -> frozenset[ValueType]:
        return self._types.get((kind, name), TEXT)

    def _list(self, kind: str | None, values: Iterable[Any]) -> None:
        if (attribute := self._at(kind, None)) is not None:
            attribute.lists.append(_constants(values))

    def _clauses(self, clauses: Iterable[Any]) -> None:
        for clause in clauses:
            if clause.op == "segmentMatch" or clause.attribute is None or clause.attribute.error is not None:
                continue
            if clause.attribute.depth == 1 and clause.attribute[0] == "kind":
                self._kinds |= {each for each in clause.values if isinstance(each, str) and each in self._shape}
            elif (attribute := self._at(clause.context_kind, clause.attribute)) is None:
                continue
            elif clause.op == "in":
                attribute.lists.append(_constants(clause.values))
            else:
                attribute.clauses.append(clause)

    def cells(self) -> tuple[list[ContextCell], int]:
        """The cells, none where there are more than LIMIT, and how many there are.

        Kinds and attributes that the table has are left out too, in every way where that keeps to the limit.
        """
        classes = {where: self._classes(*where) for where in self._attributes}
        inside = {kind: list(self._parts(kind, classes)) for kind in self._shape}
        count = math.prod(map(len, inside.values()))
        if count > LIMIT:
            return [], count
        cells = list(_cells(inside))
        whole = {kind: [*parts, *self._lacking(kind, classes)] for kind, parts in inside.items()}
        if math.prod(map(len, whole.values())) <= LIMIT:
            return [*cells, *(each for each in _cells(whole) if each.lacks)], count
        for kind in self._kinds:
            others = {each: parts if each != kind else [None] for each, parts in inside.items()}
            cells += [each for each in _cells(others) if each.data.keys() != {"kind"}]
        return cells, count

    def _parts(self, kind: str, classes: _Classes) -> Iterator[dict[str, Any]]:
        read = {name: values for (its, name), values in classes.items() if its == kind}
        types = {name: self._types_of(kind, name) for name in self._shape[kind]}
        # what is true or false has no value that no clause names
        fresh = {name: _fresh(of_it) for name, of_it in types.items() if of_it != {"boolean"}}
        for values in product(*read.values()):
            yield fresh | dict(zip(read, values, strict=True))

    def _lacking(self, kind: str, classes: _Classes) -> Iterator[dict[str, Any] | None]:
        """Without the kind, and with each of its attributes left out or of another type."""
        if kind not in self._kinds:
            return
        yield None
        for _, name in (each for each in classes if each[0] == kind and each[1] != "key"):
            for part in self._parts(kind, {each: values for each, values in classes.items() if each != (kind, name)}):
                yield {each: value for each, value in part.items() if each != name}
                types = self._types_of(kind, name)
                if name not in _ONE_TYPE and not types & {"whole", "fraction"}:
                    yield {**part, name: WRONG_TYPE}

    def _classes(self, kind: str, name: str) -> list[Attribute]:
        """One value of each class, of the types that the table of contexts has there."""
        asked = self._attributes[kind, name]
        found: dict[Any, Attribute] = {}
        probe = FixedFlags({str(at): _probe(each) for at, each in enumerate(asked.clauses)}, {})
        member = _memberships(asked.lists)
        sides: list[set[int]] = [set() for _ in asked.shares]
        for _, value in dict.fromkeys((type(each), each) for each in _candidates(asked, member)):
            context = make_context({"kind": "multi", kind: {"key": "k", name: value}})
            drawn = tuple(share.drawn(context, kind) for share in asked.shares)
            for seen, side in zip(sides, drawn, strict=True):
                seen.add(side)
            answers = (_matches(probe, at, context) for at in range(len(asked.clauses)))
            listed = member.get((type_of(value) == "boolean", value), ())
            found.setdefault((type(value), listed, tuple(answers), drawn), value)
        if any(share.sides() - seen for share, seen in zip(asked.shares, sides, strict=True)):
            self.unseen = True
        return list(found.values())


def _cells(parts: Mapping[str, list[Any]]) -> Iterator[ContextCell]:
    whole = {kind: set().union(*(part or () for part in given)) for kind, given in parts.items()}
    for each in product(*parts.values()):
        data = {kind: part for kind, part in zip(parts, each, strict=True) if part is not None}
        if not data:
            continue
        lacks = [kind for kind in parts if kind not in data]
        lacks += [
            f"{kind}.{name}"
            for kind, part in data.items()
            for name in sorted(whole[kind])
            if part.get(name, WRONG_TYPE) is WRONG_TYPE
        ]
        yield ContextCell(data, make_context({"kind": "multi", **data}), tuple(lacks))


def _probe(clause: Any) -> dict[str, Any]:
    """A flag that says whether a context meets one clause."""
    return probe([clause_json(clause)])


def probe(clauses: list[Any]) -> dict[str, Any]:
    """A flag whose one rule has these clauses, in LaunchDarkly's JSON form."""
    rule = {"variation": 0, "clauses": clauses}
    served = {"on": True, "variations": [True, False], "offVariation": 1, "fallthrough": {"variation": 1}}
    return {"key": "probe", **served, "rules": [rule]}


def clause_json(clause: Any) -> dict[str, Any]:
    """A clause of the SDK's model in LaunchDarkly's JSON form."""
    given = {"attribute": clause.attribute.path, "op": clause.op, "values": clause.values, "negate": clause.negate}
    return given if clause.context_kind is None else {**given, "contextKind": clause.context_kind}


def meets(clause: Mapping[str, Any], value: Any) -> bool:
    """Whether the SDK finds that a value meets a clause, whatever its kind and attribute are."""
    written = {**clause, "contextKind": "sandbox", "attribute": "value"}
    context = make_context({"kind": "multi", "sandbox": {"key": "k", "value": value}})
    return _matches(FixedFlags({"0": probe([written])}, {}), 0, context)


def _matches(probes: FixedFlags, at: int, context: Any) -> bool:
    answer = probes.answer(str(at), context)
    return answer is not None and answer.variation_index == 0


def _constants(values: Iterable[Any]) -> frozenset[_Constant]:
    return frozenset((isinstance(each, bool), each) for each in values if isinstance(each, str | int | float))


def _memberships(lists: list[frozenset[_Constant]]) -> dict[_Constant, tuple[int, ...]]:
    """In which lists each value is."""
    found: dict[_Constant, tuple[int, ...]] = {}
    for at, values in enumerate(lists):
        for value in values:
            found[value] = (*found.get(value, ()), at)
    return found


def _fresh(types: frozenset[ValueType]) -> Attribute:
    """A value that no clause names."""
    if "text" in types:
        return _FRESH
    return _FRESH_NUMBER if "whole" in types else float(_FRESH_NUMBER)


def _candidates(asked: _Attribute, members: Iterable[_Constant]) -> Iterator[Attribute]:
    listed = [value for _, value in members]
    if "text" in asked.types:
        yield from [_FRESH] if not asked.shares else (f"{_FRESH}-{n}" for n in range(KEYS))
        yield from _texts(asked, [each for each in listed if isinstance(each, str)])
    if asked.types & {"whole", "fraction"}:
        points = [point for value in listed for point in _points("in", value)]
        points += [point for clause in asked.clauses for value in clause.values for point in _points(clause.op, value)]
        yield from numbers_about(points, asked.types)
        yield from range(KEYS) if asked.shares and "whole" in asked.types else ()
    if "boolean" in asked.types:
        yield from (False, True)


def _texts(asked: _Attribute, members: list[str]) -> Iterator[str]:
    yield from (each for each in members if each)
    if asked.lists:
        yield from (f"{value}-{_FRESH}" for value in sorted(members)[:16])
    for clause in asked.clauses:
        for value in clause.values:
            yield from _beside(clause.op, value)
    yield from _joins(asked)


def _joins(asked: _Attribute) -> Iterator[str]:
    """Text that several clauses can meet at once: a beginning, what is inside, an end."""
    said: dict[str, dict[str, None]] = {
        "startsWith": {"": None},
        "contains": {},
        "endsWith": {"": None, f"-{_FRESH}": None},
    }
    for clause in asked.clauses:
        if clause.op in said:
            said[clause.op] |= {each: None for each in clause.values if isinstance(each, str)}
    inside = list(said["contains"])
    for start, middle, end in product(said["startsWith"], ["", *inside, "".join(inside)], said["endsWith"]):
        yield from [start + middle + end] if start + middle + end else []
        if inside and end:
            yield start + _FRESH + middle + end


def _beside(operator: str, value: Any) -> Iterator[str]:
    """The constant of a clause and a step beside it, as text."""
    if isinstance(value, str) and value:
        yield value
        yield f"{value}-{_FRESH}"
        yield f"{_FRESH}-{value}"
    if operator.startswith("semVer") and isinstance(value, str) and (found := _VERSION.match(value)) is not None:
        major, minor, patch = (int(each or 0) for each in found.groups())
        yield from (f"{major}.{minor}.{patch}", f"{major}.{minor}.{patch}-0", f"{major}.{minor}.{patch + 1}", "0.0.0-0")
    if operator in {"before", "after"}:
        yield from _instants(value)
    if operator == "matches" and isinstance(value, str) and (literal := _LITERAL.fullmatch(value)) is not None:
        yield literal[1]


def _instants(value: Any) -> Iterator[str]:
    at = _instant(value)
    with contextlib.suppress(OverflowError):  # one of the two ends is beside it
        yield from [] if at is None else ((at + timedelta(seconds=step)).isoformat() for step in (-1, 0, 1))
    yield from ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z")


def _instant(value: Any) -> datetime | None:
    try:
        number = isinstance(value, int | float)
        return datetime.fromtimestamp(value / 1000, UTC) if number else datetime.fromisoformat(value)
    except (OverflowError, TypeError, ValueError, OSError):
        return None


def _points(operator: str, value: Any) -> Iterator[float]:
    """The number that a constant stands for to its operator; a time is one of milliseconds."""
    if type_of(value) in {"whole", "fraction"}:
        yield value
    elif operator in {"before", "after"} and (at := _instant(value)) is not None:
        yield at.timestamp() * 1000


def numbers_about(points: Iterable[float], types: frozenset[ValueType]) -> Iterator[int | float]:
    """Numbers of these types: each point, the nearest on both sides of it, the ends of all, one that is no point."""
    for point in points:
        if not abs(point) <= sys.float_info.max:
            continue
        if "whole" in types:
            yield from sorted({step + near for step in (math.floor(point), math.ceil(point)) for near in (-1, 0, 1)})
        if "fraction" in types:
            near = float(point)
            yield from (near, math.nextafter(near, -math.inf), math.nextafter(near, math.inf))
    for kind, make in (("whole", int), ("fraction", float)):
        if kind in types:
            yield from (make(_FRESH_NUMBER), make(sys.float_info.max), make(-sys.float_info.max))


def has_pattern(clauses: Iterable[Any]) -> bool:
    """True where a clause has a regular expression that RE2 can read: which texts meet it is not known."""
    return any(
        clause.op == "matches" and any(isinstance(each, str) and knows_re2(each) for each in clause.values)
        for clause in clauses
    )
