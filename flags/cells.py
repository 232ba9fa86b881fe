"""The contexts that a flag can distinguish: one cell for each, made from what its clauses, targets and shares read.

An attribute is cut into classes: each constant and a step beside it, a fresh value, the joins of constants, and, beyond
the table of contexts, absent and of a wrong type. Values that every clause and share answers alike are one class.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

from flags.as_go import knows_re2
from flags.context import Shape
from flags.launchdarkly import make_context
from flags.launchdarkly_fleet import FixedFlags, bucket_in

LIMIT = 4_096
"""The most cells of one flag that are tried."""
KEYS = 4_096
"""How many made-up values are drawn to find one on each side of a share."""
WRONG_TYPE = 2.5
_FRESH = "any-other"
_VERSION = re.compile(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?")
_LITERAL = re.compile(r"\^?([\w\-/ :]+)\$?")


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
            f'{kind} {name} "{value}"'
            for kind, part in self.data.items()
            if kind != "kind"
            for name, value in part.items()
            if not str(value).startswith(_FRESH)
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

    lists: list[frozenset[str]] = field(default_factory=list)
    clauses: list[Any] = field(default_factory=list)
    shares: list[_Share] = field(default_factory=list)


class Reads:
    """What a flag, in the SDK's model, and the segments that it names read of the contexts of a shape."""

    def __init__(self, flag: Any, segments: Mapping[str, Any], shape: Shape) -> None:
        self._shape = shape
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
        return self._attributes.setdefault((kind, str(name)), _Attribute())

    def _list(self, kind: str | None, values: Iterable[Any]) -> None:
        if (attribute := self._at(kind, None)) is not None:
            attribute.lists.append(frozenset(each for each in values if isinstance(each, str)))

    def _clauses(self, clauses: Iterable[Any]) -> None:
        for clause in clauses:
            if clause.op == "segmentMatch" or clause.attribute is None or clause.attribute.error is not None:
                continue
            if clause.attribute.depth == 1 and clause.attribute[0] == "kind":
                self._kinds |= {each for each in clause.values if isinstance(each, str) and each in self._shape}
            elif (attribute := self._at(clause.context_kind, clause.attribute)) is None:
                continue
            elif clause.op == "in":
                attribute.lists.append(frozenset(each for each in clause.values if isinstance(each, str)))
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

    def _parts(self, kind: str, classes: Mapping[tuple[str, str], list[str]]) -> Iterator[dict[str, Any]]:
        read = {name: values for (its, name), values in classes.items() if its == kind}
        for values in product(*read.values()):
            yield dict.fromkeys(self._shape[kind], _FRESH) | dict(zip(read, values, strict=True))

    def _lacking(self, kind: str, classes: Mapping[tuple[str, str], list[str]]) -> Iterator[dict[str, Any] | None]:
        """Without the kind, and with each of its attributes left out or of another type."""
        if kind not in self._kinds:
            return
        yield None
        for _, name in (each for each in classes if each[0] == kind and each[1] != "key"):
            for part in self._parts(kind, {each: values for each, values in classes.items() if each != (kind, name)}):
                yield {each: value for each, value in part.items() if each != name}
                if name != "name":  # which is text in every context that there can be
                    yield {**part, name: WRONG_TYPE}

    def _classes(self, kind: str, name: str) -> list[str]:
        """One value of each class. A value of the table is text."""
        asked = self._attributes[kind, name]
        made = [_FRESH] if not asked.shares else [f"{_FRESH}-{n}" for n in range(KEYS)]
        found: dict[Any, str] = {}
        probe = FixedFlags({str(at): _probe(each) for at, each in enumerate(asked.clauses)}, {})
        member = _memberships(asked.lists)
        sides: list[set[int]] = [set() for _ in asked.shares]
        for value in dict.fromkeys((*made, *_candidates(asked, member))):
            context = make_context({"kind": "multi", kind: {"key": "k", name: value}})
            drawn = tuple(share.drawn(context, kind) for share in asked.shares)
            for seen, side in zip(sides, drawn, strict=True):
                seen.add(side)
            answers = (_matches(probe, at, context) for at in range(len(asked.clauses)))
            found.setdefault((member.get(value, ()), tuple(answers), drawn), value)
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
            if part.get(name, WRONG_TYPE) == WRONG_TYPE
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


def _memberships(lists: list[frozenset[str]]) -> dict[str, tuple[int, ...]]:
    """In which lists each value is."""
    found: dict[str, tuple[int, ...]] = {}
    for at, values in enumerate(lists):
        for value in values:
            found[value] = (*found.get(value, ()), at)
    return found


def _candidates(asked: _Attribute, members: Iterable[str]) -> Iterator[str]:
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
    try:
        number = isinstance(value, int | float)
        at = datetime.fromtimestamp(value / 1000, UTC) if number else datetime.fromisoformat(value)
        yield from ((at + timedelta(seconds=step)).isoformat() for step in (-1, 0, 1))
    except (OverflowError, TypeError, ValueError, OSError):
        return


def has_pattern(clauses: Iterable[Any]) -> bool:
    """True where a clause has a regular expression that RE2 can read: which texts meet it is not known."""
    return any(
        clause.op == "matches" and any(isinstance(each, str) and knows_re2(each) for each in clause.values)
        for clause in clauses
    )
