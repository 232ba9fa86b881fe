"""Lint: rollouts and references."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from flags.catalog import FLAGS, Flag, did_you_mean, is_on
from flags.context import ATTRIBUTES, Shape
from flags.document import Path
from flags.problem import Flags, Problem, kind_problem, objects, off, outcomes
from flags.unsafe import repeats_nest

_NOBODY = "it matches no sandbox, so it does nothing"
_FIRST = "every sandbox gets the first entry of any weight, all at once; other SDKs than Go's serve the first entry"


def served(path: Path, key: str, flag: Mapping[str, Any], required: set[int], shape: Shape) -> Iterator[Problem]:
    """What a flag serves to which sandboxes; `required` are the variations that other flags' prerequisites require.

    `shape` is that of the contexts at the moments when it is read.
    """
    variations = flag["variations"]
    known = FLAGS.get(key)
    yield from _off(path, key, flag)
    if known is not None:
        yield from _settings(path, known, variations)
    unsafe, safe = _unsafe(known, variations, required), json.dumps(known.safe) if known else "another variation"
    yield from _targets(path, flag, shape)
    guarded: set[str] = set()
    for index, rule in objects(flag, "rules"):
        here = (*path, "rules", index)
        yield from _clauses(here, rule, shape)
        yield from _rollout(here, rule, (unsafe, safe), guarded | _demanded(rule), shape)
        guarded |= _guarded_by(rule, unsafe)
    yield from _rollout((*path, "fallthrough"), flag["fallthrough"], (unsafe, safe), guarded, shape)


def _unsafe(known: Flag | None, variations: list[Any], required: set[int]) -> Callable[[int], bool]:
    """Whether a variation is one that no sandbox should get by mistake."""
    if known is None:
        return lambda index: index in required
    return lambda index: known.accepted(variations[index]) != known.safe


def _off(path: Path, key: str, flag: Mapping[str, Any]) -> Iterator[Problem]:
    if flag.get("offVariation") is None:
        production = "off serves the caller's default: where that is true, switching the flag off switches it on"
        yield Problem(path, f'"{key}" has no "offVariation"', production, "name the variation that off serves")
    elif key in FLAGS and is_on(value := flag["variations"][flag["offVariation"]]) and not is_on(FLAGS[key].safe):
        message = f'off serves {json.dumps(value)}, so "{key}" cannot be switched off'
        fix = f"let off serve {json.dumps(FLAGS[key].safe)}"
        yield Problem((*path, "offVariation"), message, "the kill switch does nothing", fix)


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


def _clauses(path: Path, rule: Mapping[str, Any], shape: Shape) -> Iterator[Problem]:
    for index, clause in objects(rule, "clauses"):
        if clause.get("op") == "matches" and any(
            isinstance(each, str) and repeats_nest(each) for each in clause["values"]
        ):
            production = "a following node does not obey the flag: Python's SDK may take seconds over a few characters"
            message = "a regular expression repeats a repeat without bound"
            yield Problem((*path, "clauses", index, "values"), message, production, "write it without the inner repeat")
        if clause.get("op") != "segmentMatch" and clause.get("attribute") != "kind":
            yield from _clause((*path, "clauses", index), clause, shape)


def _clause(path: Path, clause: Mapping[str, Any], shape: Shape) -> Iterator[Problem]:
    """An unknown kind, or an attribute that a sandbox's context of that kind does not have."""
    production = "the clause matches no sandbox, so the rule does nothing"
    unknown = list(kind_problem(path, clause, production, shape))
    yield from unknown
    if not unknown:
        known = shape[clause["contextKind"]]
        yield from _attribute((*path, "attribute"), clause, "attribute", known, production, "warning")


def _attribute(
    path: Path, item: Mapping[str, Any], name: str, known: Sequence[str], production: str, severity: Any
) -> Iterator[Problem]:
    given = str(item.get(name) or "key").removeprefix("/")
    if given not in known:
        kind = item.get("contextKind") or item.get("rolloutContextKind")
        message = f'unknown {name} "{given}": kind "{kind}" has no such attribute'
        yield Problem(path, message, production, did_you_mean(given, known), severity)


def _guarded_by(rule: Mapping[str, Any], unsafe: Callable[[int], bool]) -> set[str]:
    """`sandbox` for the rule "no sandbox kind → safe": contexts that lack the kind come no further than it."""
    clauses = [clause for _, clause in objects(rule, "clauses")]
    if len(clauses) != 1 or "variation" not in rule or unsafe(rule["variation"]):
        return set()
    return _kinds_named(clauses[0], negate=True)


def _demanded(rule: Mapping[str, Any]) -> set[str]:
    """The kinds that every context has which this rule matches."""
    found: set[str] = set()
    for _, clause in objects(rule, "clauses"):
        if clause.get("attribute") == "kind":
            found |= _kinds_named(clause, negate=False)
        elif clause.get("op") != "segmentMatch":
            found.add(str(clause.get("contextKind", "user")))
    return found


def _kinds_named(clause: Mapping[str, Any], negate: bool) -> set[str]:
    """The one kind that a clause on `kind` names; naming several says nothing about any one of them."""
    values = clause.get("values")
    simple = clause.get("attribute") == "kind" and clause.get("op") == "in" and bool(clause.get("negate")) is negate
    return set(map(str, values)) if simple and isinstance(values, list) and len(values) == 1 else set()


def _rollout(
    path: Path, part: Mapping[str, Any], judged: tuple[Callable[[int], bool], str], guarded: set[str], shape: Shape
) -> Iterator[Problem]:
    if "rollout" not in part:
        return
    (unsafe, safe), rollout, here = judged, part["rollout"], (*path, "rollout")
    yield from kind_problem(here, rollout, _FIRST, shape)
    kind = rollout.get("contextKind") or "user"
    if kind in shape and rollout.get("kind") != "experiment":  # an experiment does not read bucketBy
        production = "without the attribute every sandbox is in bucket 0: all get the first entry that has any weight"
        yield from _attribute((*here, "bucketBy"), rollout, "bucketBy", shape[kind], production, "error")
    entries = [entry for _, entry in objects(rollout, "variations")]
    total = sum(entry["weight"] for entry in entries)
    if total != 100_000:
        production = f"LaunchDarkly gives the {(100_000 - total) / 1000:g} % left over to the last entry"
        if total > 100_000:
            production = "entries past 100 % get less than their weight, or no sandbox"
        yield Problem((*here, "variations"), f"the weights sum to {total}", production, "make them sum to 100000")
    if unsafe(entries[0]["variation"]) and kind not in guarded:
        production = f'a context without the kind "{kind}" gets it at any weight; with some SDKs at 0 % too'
        fix = f"list {safe} first, or let the first rule serve it to contexts without that kind"
        yield Problem((*here, "variations", 0), "the unsafe variation is listed first", production, fix)


def prerequisites(flags: Flags, sound: Flags) -> Iterator[Problem]:
    """Prerequisites of the flags of sound shape; `flags` are all that the file has."""
    for key, flag in sound.items():
        for index, asked in objects(flag, "prerequisites"):
            yield from _prerequisite(("flags", key, "prerequisites", index), key, asked, flags, sound)


def _prerequisite(path: Path, key: str, asked: Mapping[str, Any], flags: Flags, sound: Flags) -> Iterator[Problem]:
    needed, variation = str(asked.get("key")), asked.get("variation")
    never = f'it is never met: "{key}" serves its off variation to every sandbox'
    cycle = _cycle(key, needed, sound)
    if needed not in flags:
        yield Problem((*path, "key"), f'the prerequisite "{needed}" is not in the file', never, _near(needed, flags))
    elif cycle:
        production = "LaunchDarkly calls the flag malformed and serves the code's default"
        fix = "remove one of these prerequisites"
        yield Problem((*path, "key"), f"prerequisites in a circle: {' -> '.join(cycle)}", production, fix)
    elif needed in sound:
        yield from _never_met(path, needed, variation, sound, never)


def _never_met(path: Path, needed: str, variation: Any, sound: Flags, never: str) -> Iterator[Problem]:
    variations = sound[needed]["variations"]
    if type(variation) is not int or not 0 <= variation < len(variations):
        message = f'"{needed}" has no variation {json.dumps(variation)}'
        yield Problem((*path, "variation"), message, never, f"use 0 to {len(variations) - 1}")
    elif not sound[needed]["on"]:
        message = f'the prerequisite "{needed}" is off'
        fix = f'switch "{needed}" on, unless it is a kill switch that was pulled'
        yield Problem((*path, "key"), message, f"off never counts, whatever off serves; {never}", fix, "warning")
    elif variation not in reachable(needed, sound):
        message = f'"{needed}" serves variation {variation} to no sandbox'
        fix = f'let "{needed}" serve it to some sandbox, or require a variation that it serves'
        yield Problem((*path, "variation"), message, never, fix, "warning")


def reachable(key: str, sound: Flags, seen: frozenset[str] = frozenset()) -> set[int]:
    """The variations that a flag of sound shape can serve, given what its prerequisites can be."""
    flag = sound[key]
    for _, asked in objects(flag, "prerequisites"):
        needed = str(asked.get("key"))
        if needed in seen | {key} or needed not in sound:
            return off(flag)
        if not sound[needed]["on"] or asked.get("variation") not in reachable(needed, sound, seen | {key}):
            return off(flag)
    return outcomes(flag)


def _cycle(key: str, needed: str, sound: Flags) -> list[str]:
    """`[a, b, a]` where `needed` leads back to `key`, else empty."""
    trails = [[key, needed]]
    seen = {needed}
    while trails:
        trail = trails.pop()
        if trail[-1] == key:
            return trail
        for _, asked in objects(sound.get(trail[-1], {}), "prerequisites"):
            following = str(asked.get("key"))
            if following == key or following not in seen:
                seen.add(following)
                trails.append([*trail, following])
    return []


def segments(known: Flags, sound: Flags, shapes: Mapping[str, Shape]) -> Iterator[Problem]:
    """Segments that rules name and the file lacks, and segments that match no sandbox; `shapes` are by flag."""
    places = [(("flags", key), flag) for key, flag in sound.items()]
    places += [(("segments", key), segment) for key, segment in known.items() if isinstance(segment, dict)]
    for path, item in places:
        for index, rule in objects(item, "rules"):
            yield from _named((*path, "rules", index), rule, known)
    asked = {key: shapes[key] for key in sound}
    for key, segment in known.items():
        yield from _segment(("segments", key), segment, _shape_of(key, known, sound, asked))


def _shape_of(name: str, known: Flags, sound: Flags, shapes: Mapping[str, Shape]) -> Shape:
    """What all flags that name this segment, directly or not, have in their contexts."""
    found = [shapes[key] for key, flag in sound.items() if name in _members_of(flag, known)]
    return meet(found) if found else ATTRIBUTES


def _members_of(flag: Mapping[str, Any], known: Flags) -> set[str]:
    found: set[str] = set()
    waiting = list(_segments_named(flag))
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += _segments_named(known.get(name, {}))
    return found


def _segments_named(item: Mapping[str, Any]) -> list[str]:
    clauses = [clause for _, rule in objects(item, "rules") for _, clause in objects(rule, "clauses")]
    return [str(value) for each in clauses if each.get("op") == "segmentMatch" for value in each.get("values") or []]


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


def _segment(path: Path, segment: Mapping[str, Any], shape: Shape) -> Iterator[Problem]:
    if segment.get("unbounded"):
        message = f'"{path[-1]}" is a big segment, whose members are not in the file'
        fix = "list its members under includedContexts"
        yield Problem((*path, "unbounded"), message, "without its store it matches no sandbox", fix)
    if segment.get("included") or segment.get("excluded"):
        name = "included" if segment.get("included") else "excluded"
        message = f'"{name}" lists keys of kind "user", which no sandbox has'
        fix = f'list them under "{name}Contexts" with a contextKind'
        yield Problem((*path, name), message, "they match no sandbox", fix, "warning")
    for index, rule in objects(segment, "rules"):
        yield from _clauses((*path, "rules", index), rule, shape)
        yield from _share((*path, "rules", index), rule, shape)


def _share(path: Path, rule: Mapping[str, Any], shape: Shape) -> Iterator[Problem]:
    """A share of a segment's members, which is none or all of them without its kind."""
    if rule.get("weight") is None:
        return
    production = "no sandbox is a member with Go's SDK, every sandbox with Python's, whatever the weight says"
    yield from kind_problem(path, rule, production, shape, "rolloutContextKind")
    if rule.get("rolloutContextKind") in shape:
        missing = "without the attribute every sandbox is in bucket 0: a member"
        yield from _attribute(
            (*path, "bucketBy"), rule, "bucketBy", shape[rule["rolloutContextKind"]], missing, "error"
        )


def _near(word: str, known: Mapping[str, Any]) -> str:
    return did_you_mean(word, known, "add it to the file, or remove what names it")
