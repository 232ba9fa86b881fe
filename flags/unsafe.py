"""What a following node does not obey: a destructive flag with one of a fixed list of mistakes.

LaunchDarkly serves such a flag, and more sandboxes get the value that cannot be undone than the flag's author meant.
The list is in docs/flags.md; it looks at the flag, its prerequisites and the segments of all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flags.catalog import FLAGS, Flag, is_on

UNSAFE_FLAG = "UNSAFE_FLAG"
"""The reason of a safe value that is served in place of what LaunchDarkly would serve."""

Shape = Mapping[str, Collection[str]]
"""The kinds of a context, each with the names of its attributes."""
Find = Callable[[str], Any]
"""The SDK's model of the flag or segment of that key, None where there is none."""
_WHOLE = 100_000


@dataclass(frozen=True, slots=True)
class Served:
    """The flags and segments in force, and the shape of the contexts that they are evaluated for."""

    flag: Find
    segment: Find
    shape: Shape


def unsafe(key: str, served: Served) -> tuple[str, ...]:
    """Why this flag of the catalogue must not be obeyed, a sentence each; empty where it may be.

    Of a flag that cannot serve a destructive value only the regular expressions count, for the time they take.
    """
    flag = served.flag(key)
    if flag is None or flag.get("deleted"):
        return ()
    wanted = {index for index, value in enumerate(flag.variations) if is_destructive(FLAGS[key], value)}
    off = _off(key, flag, wanted)
    if not flag.on:
        return off
    found = list(off) if flag.prerequisites else []
    asked, seen, segments = {key: wanted}, set[str](), dict[str, None]()
    while waiting := [name for name in asked if name not in seen]:
        name = waiting[0]
        seen.add(name)
        if (item := served.flag(name)) is None or item.get("deleted"):
            continue
        found += _flag(name, item, asked[name], served.shape if wanted else None)
        segments |= dict.fromkeys(each for rule in item.rules for each in _segments_of(rule))
        for prerequisite in item.prerequisites:
            asked.setdefault(prerequisite.key, set()).add(prerequisite.variation)
    return tuple(dict.fromkeys([*found, *_segments(segments, served, destructive=bool(wanted))]))


class Judge:
    """Which of these flags must not be obeyed, kept for one state of the flags and each shape of context."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys
        self._of: object = None
        self._found: dict[Any, dict[str, tuple[str, ...]]] = {}

    def unsafe(self, state: object, served: Served) -> dict[str, tuple[str, ...]]:
        """The reasons of unsafe(), by key, of those that have any."""
        if self._of is not state:
            self._of, self._found = state, {}
        known, shape = self._found, tuple(served.shape.items())
        if shape not in known:
            found = {key: unsafe(key, served) for key in self._keys}
            known[shape] = {key: reasons for key, reasons in found.items() if reasons}
        return dict(known[shape])


def is_destructive(known: Flag, value: Any) -> bool:
    """True for a value that switches on what the flag's safe value leaves off."""
    accepted = known.accepted(value)
    return accepted is not None and is_on(accepted) and not is_on(known.safe)


def _off(key: str, flag: Any, wanted: set[int]) -> tuple[str, ...]:
    return (f'"{key}": off serves what it should switch off',) if flag.off_variation in wanted else ()


def _flag(key: str, flag: Any, wanted: set[int], shape: Shape | None) -> Iterator[str]:
    """Of its regular expressions and, with a shape, its rollouts; no sandbox should get `wanted` by mistake."""
    for index, rule in enumerate(flag.rules):
        yield from _patterns(f'"{key}", rule {index + 1}', rule.clauses)
        if shape is not None:
            yield from _rollout(f'"{key}", rule {index + 1}', rule.variation_or_rollout, wanted, shape)
    if shape is not None:
        yield from _rollout(f'"{key}", the default rule', flag.fallthrough, wanted, shape)


def _rollout(where: str, part: Any, wanted: set[int], shape: Shape) -> Iterator[str]:
    rollout = part.rollout
    if part.variation is not None or rollout is None or not rollout.variations:
        return
    total = sum(entry.weight for entry in rollout.variations)
    if total != _WHOLE:
        yield f"{where}: the weights sum to {total}, not to {_WHOLE}"
    kind = rollout.context_kind or "user"
    if kind not in shape:
        if rollout.variations[0].variation in wanted:
            yield f'{where}: the unsafe variation is listed first, and no context has the kind "{kind}"'
    elif not rollout.is_experiment:
        yield from _bucket_by(where, rollout.bucket_by, kind, shape)


def _bucket_by(where: str, reference: Any, kind: str, shape: Shape) -> Iterator[str]:
    if reference is not None and (name := reference[0]) not in {"key", "kind", *shape[kind]}:
        yield f'{where}: no {kind} has the attribute "{name}" of bucketBy'


def _segments_of(rule: Any) -> list[str]:
    return [name for clause in rule.clauses if clause.op == "segmentMatch" for name in map(str, clause.values)]


def _segments(names: dict[str, None], served: Served, *, destructive: bool) -> Iterator[str]:
    seen: set[str] = set()
    while waiting := [name for name in names if name not in seen]:
        name = waiting[0]
        seen.add(name)
        segment = served.segment(name)
        if segment is None or segment.get("deleted"):
            if destructive:
                yield f'the segment "{name}" is not served'
            continue
        for index, rule in enumerate(segment.rules):
            where = f'segment "{name}", rule {index + 1}'
            yield from _patterns(where, rule.clauses)
            if destructive and rule.weight is not None:
                yield from _share(where, rule, served.shape)
            names |= dict.fromkeys(_segments_of(rule))


def _share(where: str, rule: Any, shape: Shape) -> Iterator[str]:
    kind = rule.rollout_context_kind or "user"
    if kind in shape:
        yield from _bucket_by(where, rule.bucket_by, kind, shape)


def _patterns(where: str, clauses: Any) -> Iterator[str]:
    for clause in clauses:
        if clause.op == "matches" and any(isinstance(each, str) and repeats_nest(each) for each in clause.values):
            yield f"{where}: a regular expression repeats a repeat without bound"


_UNBOUNDED = re.compile(r"[*+]|\{\d*,\}")
_ATOM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[^()|]", re.DOTALL)


def repeats_nest(pattern: str) -> bool:
    """True where an unbounded repeat is in another, such as `(a+)+`: Python may take seconds over a few characters."""
    inside = [False]  # for each open group, whether it holds an unbounded repeat
    at = 0
    while at < len(pattern):
        if pattern[at] == "(":
            inside.append(False)
            at += 1
            continue
        repeated = False
        if pattern[at] == ")" and len(inside) > 1:
            repeated = inside.pop()
            at += 1
        elif (atom := _ATOM.match(pattern, at)) is not None:
            at = atom.end()
        else:
            at += 1
        repeat = _UNBOUNDED.match(pattern, at)
        if repeat is not None and repeated:
            return True
        inside[-1] = inside[-1] or repeated or repeat is not None
        at = repeat.end() if repeat is not None else at
    return False
