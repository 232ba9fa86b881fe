"""Which attributes a flag reads of a context, by its rules, shares, targets, segments and prerequisites."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flags.context import NAMES, SandboxAttributes, Shape, field_of
from flags.problem import objects, segments_named

Items = Mapping[str, Mapping[str, Any]]
Read = tuple[str, str]
"""A kind, and its attribute."""


@dataclass(frozen=True, slots=True)
class Lack:
    """An attribute that `flag` reads `where`, by the name of its column, and how many of how many rows lack it."""

    flag: str
    column: str
    where: str
    rows: int
    of: int

    def __str__(self) -> str:
        if self.rows == self.of:
            return f"{self.flag} reads {self.column} ({self.where}); the table has no such column: absent everywhere"
        return (
            f"{self.flag} reads {self.column} ({self.where}); {self.rows:,} of {self.of:,} rows have none: absent there"
        )


def lacking(key: str, flags: Items, segments: Items, fleet: Sequence[SandboxAttributes], shape: Shape) -> list[Lack]:
    """What the flag reads of the kinds of `shape` that the fleet's table does not give, in order of reading."""
    found = []
    for (kind, attribute), where in reads(key, flags, segments).items():
        if kind not in shape:
            continue  # contexts say that it is not there, whatever the table has
        field = field_of(kind, attribute)
        name = attribute if kind == "sandbox" else f"{kind}.{attribute}"
        column = name if field is None else next(word for word, known in NAMES.items() if known == field)
        without = sum(not _has(each, field, name) for each in fleet)
        if without:
            found.append(Lack(key, column, where, without, len(fleet)))
    return found


def _has(row: SandboxAttributes, field: str | None, name: str) -> bool:
    return field not in row.absent if field is not None else any(known == name for known, _ in row.others)


def reads(key: str, flags: Items, segments: Items) -> dict[Read, str]:
    """Each attribute with the first part that reads it: `rule ID`, `default rule`, `targets`, `segment KEY`, and of a
    prerequisite its key before that."""
    found: dict[Read, str] = {}
    waiting, met = [(key, "")], {key}
    while waiting:
        name, prefix = waiting.pop(0)
        item = flags.get(name, {})
        for read, where in _of_flag(item, segments):
            found.setdefault(read, prefix + where)
        for _, each in objects(item, "prerequisites"):
            other = each.get("key")
            if isinstance(other, str) and other in flags and other not in met:
                met.add(other)
                waiting.append((other, f"prerequisite {other}, "))
    return found


def _of_flag(item: Mapping[str, Any], segments: Items) -> Iterator[tuple[Read, str]]:
    for _, target in (*objects(item, "targets"), *objects(item, "contextTargets")):
        yield (_kind(target), "key"), "targets"
    for number, rule in objects(item, "rules"):
        where = f"rule {rule.get('id') or number}"
        yield from ((read, where) for read in (*_of_clauses(rule), *_of_rollout(rule)))
    served = item.get("fallthrough")
    if isinstance(served, Mapping):
        yield from ((read, "default rule") for read in _of_rollout(served))
    yield from _of_segments(item, segments)


def _of_clauses(rule: Mapping[str, Any]) -> Iterator[Read]:
    for _, clause in objects(rule, "clauses"):
        if clause.get("op") != "segmentMatch":
            yield from _attribute(_kind(clause), clause.get("attribute"))


def _of_rollout(served: Mapping[str, Any]) -> Iterator[Read]:
    rollout = served.get("rollout")
    if isinstance(rollout, Mapping):
        yield from _attribute(_kind(rollout), rollout.get("bucketBy") or "key")


def _of_segments(item: Mapping[str, Any], segments: Items) -> Iterator[tuple[Read, str]]:
    waiting, met = _named(item), set[str]()
    while waiting:
        name = waiting.pop(0)
        if name in met or not isinstance(segments.get(name), Mapping):
            continue
        met.add(name)
        segment, where = segments[name], f"segment {name}"
        for _, target in (*objects(segment, "includedContexts"), *objects(segment, "excludedContexts")):
            yield (_kind(target), "key"), where
        for _, rule in objects(segment, "rules"):
            yield from ((read, where) for read in _of_clauses(rule))
            if rule.get("weight") is not None:
                kind = rule.get("rolloutContextKind") or "user"
                yield from ((read, where) for read in _attribute(str(kind), rule.get("bucketBy") or "key"))
        waiting += _named(segment)


def _named(item: Mapping[str, Any]) -> list[str]:
    try:
        return segments_named(item)
    except (KeyError, TypeError):  # what is wrong with it, lint says
        return []


def _kind(item: Mapping[str, Any]) -> str:
    return str(item.get("contextKind") or "user")


def _attribute(kind: str, written: Any) -> Iterator[Read]:
    """`/a/b` reads the attribute `a`; a kind is always there itself."""
    if isinstance(written, str) and written and written != "kind":
        name = written.split("/")[1].replace("~1", "/").replace("~0", "~") if written.startswith("/") else written
        yield kind, name
