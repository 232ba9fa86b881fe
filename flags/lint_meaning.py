"""Lint: what needs no trying: references, circles, weights, regular expressions, and whose values they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from flags.catalog import FLAGS, Flag, did_you_mean
from flags.context import Shape
from flags.document import Path
from flags.problem import Flags, Problem, kind_problem, objects, segments_named
from flags.unsafe import repeats_nest

_NOBODY = "it matches no sandbox, so it does nothing"
Served = Mapping[str, Collection[int]]
"""The variations that a flag can serve, as if it were on and had no prerequisites, by key."""


def meaning(path: Path, key: str, flag: Mapping[str, Any], shape: Shape) -> Iterator[Problem]:
    """Of a flag of sound shape; `shape` is that of the contexts at the moments when it is read."""
    if flag.get("offVariation") is None:
        production = "off serves the code's default: for this flag its safe value, elsewhere whatever the code says"
        yield Problem(
            path, f'"{key}" has no "offVariation"', production, "name the variation that off serves", "warning"
        )
    if key in FLAGS:
        yield from _settings(path, FLAGS[key], flag["variations"])
    yield from _targets(path, flag, shape)
    yield from _patterns(path, flag)
    for here, part in (
        (("fallthrough",), flag["fallthrough"]),
        *((("rules", i), r) for i, r in objects(flag, "rules")),
    ):
        if "rollout" in part and "variation" not in part:
            yield from _weights((*path, *here, "rollout", "variations"), part["rollout"])


def _weights(path: Path, rollout: Mapping[str, Any]) -> Iterator[Problem]:
    total = sum(entry["weight"] for _, entry in objects(rollout, "variations"))
    if total != 100_000:
        production = f"LaunchDarkly gives the {(100_000 - total) / 1000:g} % left over to the last entry"
        if total > 100_000:
            production = "entries past 100 % get less than their weight, or no sandbox"
        yield Problem(path, f"the weights sum to {total}", production, "make them sum to 100000")


def _patterns(path: Path, item: Mapping[str, Any]) -> Iterator[Problem]:
    """Of a flag or segment; one that has such a pattern is not tried."""
    for number, rule in objects(item, "rules"):
        for index, clause in objects(rule, "clauses"):
            if clause.get("op") == "matches" and any(
                isinstance(each, str) and repeats_nest(each) for each in clause["values"]
            ):
                production = (
                    "a following node does not obey the flag: Python's SDK may take seconds over a few characters"
                )
                message, fix = (
                    "a regular expression repeats a repeat without bound",
                    "write it without the inner repeat",
                )
                yield Problem((*path, "rules", number, "clauses", index, "values"), message, production, fix)


def _targets(path: Path, flag: Mapping[str, Any], shape: Shape) -> Iterator[Problem]:
    """Empty ones only keep a place in the order."""
    for index, target in objects(flag, "targets"):
        if target.get("values"):
            message, fix = '"targets" are of kind "user", which no sandbox has', 'move it to "contextTargets"'
            yield Problem((*path, "targets", index), message, _NOBODY, fix, "warning")
    for index, target in objects(flag, "contextTargets"):
        if target.get("values"):
            yield from kind_problem((*path, "contextTargets", index), target, _NOBODY, shape)


def _settings(path: Path, known: Flag, variations: list[Any]) -> Iterator[Problem]:
    names = [each.name for each in known.settings]
    for index, value in enumerate(variations):
        for name in (value if isinstance(value, dict) else {}).keys() - set(names):
            here = (*path, "variations", index, name)
            yield Problem(here, f'unknown setting "{name}"', "it is ignored", did_you_mean(name, names), "warning")


def prerequisites(flags: Flags, sound: Flags, served: Served) -> Iterator[Problem]:
    """Prerequisites of the flags of sound shape; `flags` are all that the file has."""
    for key, flag in sound.items():
        for index, asked in objects(flag, "prerequisites"):
            here = ("flags", key, "prerequisites", index)
            yield from _prerequisite(here, key, asked, flags)
            if str(asked["key"]) in sound and not _circle(key, str(asked["key"]), _asking(flags)):
                yield from _never_met(here, key, asked, sound, served)


def _asking(flags: Flags) -> Callable[[str], list[str]]:
    return lambda key: [str(each["key"]) for _, each in objects(flags.get(key, {}), "prerequisites")]


def _prerequisite(path: Path, key: str, asked: Mapping[str, Any], flags: Flags) -> Iterator[Problem]:
    needed = str(asked["key"])
    if needed not in flags:
        never = _never(key)
        yield Problem((*path, "key"), f'the prerequisite "{needed}" is not in the file', never, _near(needed, flags))
    elif circle := _circle(key, needed, _asking(flags)):
        production = "LaunchDarkly calls the flag malformed and serves the code's default"
        fix = "remove one of these prerequisites"
        yield Problem((*path, "key"), f"prerequisites in a circle: {' -> '.join(circle)}", production, fix)


def _never(key: str) -> str:
    return f'it is never met: "{key}" serves its off variation to every sandbox'


def _never_met(path: Path, key: str, asked: Mapping[str, Any], sound: Flags, served: Served) -> Iterator[Problem]:
    needed, variation, never = str(asked["key"]), asked.get("variation"), _never(key)
    variations = sound[needed]["variations"]
    if type(variation) is not int or not 0 <= variation < len(variations):
        message = f'"{needed}" has no variation {json.dumps(variation)}'
        yield Problem((*path, "variation"), message, never, f"use 0 to {len(variations) - 1}")
    elif not sound[needed]["on"]:
        message = f'the prerequisite "{needed}" is off'
        fix = f'switch "{needed}" on, unless it is a kill switch that was pulled'
        yield Problem((*path, "key"), message, f"off never counts, whatever off serves; {never}", fix, "warning")
    elif variation not in reachable(needed, sound, served):
        message = f'"{needed}" serves variation {variation} to no sandbox'
        fix = f'let "{needed}" serve it to some sandbox, or require a variation that it serves'
        yield Problem((*path, "variation"), message, never, fix, "warning")


def reachable(key: str, sound: Flags, served: Served, seen: frozenset[str] = frozenset()) -> set[int]:
    """The variations that a flag of sound shape can serve, given what its prerequisites can be."""
    flag = sound[key]
    off = set() if flag.get("offVariation") is None else {flag["offVariation"]}
    if not flag["on"]:
        return off
    prerequisites = objects(flag, "prerequisites")
    for _, asked in prerequisites:
        needed = str(asked.get("key"))
        if needed in seen | {key} or needed not in sound:
            return off
        if not sound[needed]["on"] or asked.get("variation") not in reachable(needed, sound, served, seen | {key}):
            return off
    return {*served[key], *(off if prerequisites else ())}


def _circle(key: str, first: str, following: Callable[[str], list[str]]) -> list[str]:
    """`[a, b, a]` where `first` leads back to `key`, else empty."""
    trails = [[key, first]]
    seen = {first}
    while trails:
        trail = trails.pop()
        if trail[-1] == key:
            return trail
        for name in following(trail[-1]):
            if name == key or name not in seen:
                seen.add(name)
                trails.append([*trail, name])
    return []


def references(known: Flags, sound: Flags, named: Mapping[str, Any]) -> Iterator[Problem]:
    """Segments that rules name and the file lacks, circles of them, and lists that match no sandbox.

    `known` are all segments of the file, `named` those that the flags name, directly or not.
    """
    places = [(("flags", key), flag) for key, flag in sound.items()]
    places += [(("segments", key), known[key]) for key in named]
    for path, item in places:
        for index, rule in objects(item, "rules"):
            yield from _named((*path, "rules", index), rule, known)
    for key in named:
        yield from _segment(("segments", key), known[key])
        yield from _patterns(("segments", key), known[key])
        yield from _segment_circle(key, known)


def _segment_circle(key: str, known: Flags) -> Iterator[Problem]:
    for index, rule in objects(known[key], "rules"):
        for at, clause in objects(rule, "clauses"):
            for name in map(str, clause["values"]) if clause.get("op") == "segmentMatch" else ():
                if circle := _circle(key, name, lambda each: segments_named(known.get(each, {}))):
                    message = f"segments in a circle: {' -> '.join(circle)}"
                    production = "LaunchDarkly calls a flag that reaches it malformed and serves the code's default"
                    here = ("segments", key, "rules", index, "clauses", at, "values")
                    yield Problem(here, message, production, "remove one of these clauses")


def _segment(path: Path, segment: Mapping[str, Any]) -> Iterator[Problem]:
    if segment.get("unbounded"):
        message = f'"{path[-1]}" is a big segment, whose members are not in the file'
        fix = "list its members under includedContexts"
        yield Problem((*path, "unbounded"), message, "without its store it matches no sandbox", fix)
    if segment.get("included") or segment.get("excluded"):
        name = "included" if segment.get("included") else "excluded"
        message = f'"{name}" lists keys of kind "user", which no sandbox has'
        fix = f'list them under "{name}Contexts" with a contextKind'
        yield Problem((*path, name), message, "they match no sandbox", fix, "warning")


def meet(shapes: Sequence[Shape]) -> Shape:
    """The kinds and attributes that all of them have."""
    first, *others = shapes
    return {
        kind: tuple(name for name in names if all(name in each[kind] for each in others))
        for kind, names in first.items()
        if all(kind in each for each in others)
    }


def _named(path: Path, rule: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[Problem]:
    for index, clause in objects(rule, "clauses"):
        if clause.get("op") != "segmentMatch":
            continue
        names = clause.get("values")
        for name in names if isinstance(names, list) else []:
            if str(name) not in known:
                matches = "every sandbox" if clause.get("negate") else "no sandbox"
                place = (*path, "clauses", index, "values")
                message = f'the segment "{name}" is not in the file'
                yield Problem(place, message, f"the clause silently matches {matches}", _near(str(name), known))


def _near(word: str, known: Mapping[str, Any]) -> str:
    return did_you_mean(word, known, "add it to the file, or remove what names it")
