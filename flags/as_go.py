"""Flags rewritten so that Python's SDK serves what Go's, production's, would: the two differ where a kind is absent.

Without the kind of a rollout, Python's SDK has no bucket and serves the first entry at any weight; Go's takes bucket 0
and serves the first entry that has any. Without the kind of a segment's share, Python's SDK counts every context as a
member, Go's none. And Go's regular expressions (RE2) know no lookaround and no back-references.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

_NOT_RE2 = re.compile(r"(?:^|[^\\])(?:\\\\)*(?:\(\?(?:[=!>(]|<[=!]|P=)|\\[1-9])")
Item = Mapping[str, Any]


def flag_as_go(flag: Item, kinds: Collection[str]) -> Item:
    """The flag for contexts of these kinds; the same object where the SDKs agree."""
    parts = {"rules": [_part(_rule(each), kinds) for each in flag.get("rules") or ()]} if flag.get("rules") else {}
    if isinstance(flag.get("fallthrough"), dict):
        parts["fallthrough"] = _part(flag["fallthrough"], kinds)
    return _changed(flag, parts)


def segment_as_go(segment: Item, kinds: Collection[str]) -> Item:
    """The segment for contexts of these kinds; the same object where the SDKs agree."""
    if not segment.get("rules"):
        return segment
    kept = [_rule(each) for each in segment["rules"] if each.get("weight") is None or _kind(each, "rollout") in kinds]
    return _changed(segment, {"rules": kept})


def _changed(item: Item, parts: dict[str, Any]) -> Item:
    same = all(
        item[name] is made or (isinstance(made, list) and _same(item[name], made)) for name, made in parts.items()
    )
    return item if same else {**item, **parts}


def _same(before: list[Any], after: list[Any]) -> bool:
    return len(before) == len(after) and all(one is other for one, other in zip(before, after, strict=True))


def _kind(item: Item, prefix: str = "") -> str:
    return item.get("rolloutContextKind" if prefix else "contextKind") or "user"


def _part(part: Any, kinds: Collection[str]) -> Any:
    """A rule or a default rule."""
    rollout = part.get("rollout")
    if part.get("variation") is not None or not rollout or not rollout.get("variations") or _kind(rollout) in kinds:
        return part
    return {**part, "variation": _first_of_any_weight(rollout["variations"])}


def _first_of_any_weight(entries: list[Any]) -> int:
    total = 0
    for entry in entries:
        total += entry["weight"]
        if total > 0:
            return int(entry["variation"])
    return int(entries[-1]["variation"])


def _rule(rule: Any) -> Any:
    clauses = [_clause(each) for each in rule.get("clauses") or ()]
    return rule if _same(rule.get("clauses") or [], clauses) else {**rule, "clauses": clauses}


def _clause(clause: Any) -> Any:
    if clause.get("op") != "matches":
        return clause
    known = [each for each in clause["values"] if not isinstance(each, str) or knows_re2(each)]
    return clause if len(known) == len(clause["values"]) else {**clause, "values": known}


def knows_re2(pattern: str) -> bool:
    """False for a regular expression with syntax that RE2 does not have: it matches nothing there."""
    return _NOT_RE2.search(pattern) is None


class AsGo:
    """What was rewritten of one state of the flags."""

    def __init__(self) -> None:
        self._of: object = None
        self._made: dict[Any, Any] = {}

    def made(
        self, state: object, name: Any, item: Any, rewrite: Callable[[Item], Item], decode: Callable[[Item], Any]
    ) -> Any:
        """The SDK's model of the rewritten item of that name; `item` itself where that is the same."""
        if self._of is not state:
            self._of, self._made = state, {}
        made = self._made
        if name not in made:
            data = item.to_json_dict()
            rewritten = rewrite(data)
            made[name] = item if rewritten is data else decode(rewritten)
        return made[name]
