"""What flags say of other flags and of segments: prerequisites that can never hold, members nobody lists."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from flags.catalog import did_you_mean
from flags.document import Path
from flags.lint_rollouts import clause_problem
from flags.problem import Flags, Problem, objects, off, outcomes


def prerequisites(flags: Flags, sound: Flags) -> Iterator[Problem]:
    """Prerequisites of the flags of sound shape; `flags` are all that the file has."""
    for key, flag in sound.items():
        for index, asked in objects(flag, "prerequisites"):
            yield from _prerequisite(("flags", key, "prerequisites", index), key, asked, flags, sound)


def _prerequisite(path: Path, key: str, asked: Mapping[str, Any], flags: Flags, sound: Flags) -> Iterator[Problem]:
    needed, variation = str(asked.get("key")), asked.get("variation")
    never = f'it is never met: "{key}" serves its off variation to everybody'
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
        message = f'"{needed}" serves variation {variation} to nobody'
        fix = f'let "{needed}" serve it to somebody, or ask for a variation that it serves'
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


def segments(document: Mapping[str, Any], sound: Flags) -> Iterator[Problem]:
    """Segments that rules name and the file lacks, and segments that match no sandbox."""
    known = document.get("segments")
    known = known if isinstance(known, dict) else {}
    places = [(("flags", key), flag) for key, flag in sound.items()]
    places += [(("segments", key), segment) for key, segment in known.items() if isinstance(segment, dict)]
    for path, item in places:
        for index, rule in objects(item, "rules"):
            yield from _named((*path, "rules", index), rule, known)
    for path, segment in places[len(sound) :]:
        yield from _segment(path, segment)


def _named(path: Path, rule: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[Problem]:
    for index, clause in objects(rule, "clauses"):
        if clause.get("op") != "segmentMatch":
            continue
        names = clause.get("values")
        for name in names if isinstance(names, list) else []:
            if str(name) not in known:
                matches = "everybody" if clause.get("negate") else "nobody"
                place = (*path, "clauses", index, "values")
                message = f'the segment "{name}" is not in the file'
                yield Problem(place, message, f"the clause silently matches {matches}", _near(str(name), known))


def _segment(path: Path, segment: Mapping[str, Any]) -> Iterator[Problem]:
    if segment.get("unbounded"):
        message = f'"{path[-1]}" is a big segment, whose members are not in the file'
        fix = "list its members under includedContexts"
        yield Problem((*path, "unbounded"), message, "without its store it matches nobody", fix)
    if segment.get("included") or segment.get("excluded"):
        name = "included" if segment.get("included") else "excluded"
        message = f'"{name}" lists keys of kind "user", which no sandbox has'
        fix = f'list them under "{name}Contexts" with a contextKind'
        yield Problem((*path, name), message, "they match no sandbox", fix, "warning")
    for index, rule in objects(segment, "rules"):
        for number, clause in objects(rule, "clauses"):
            if clause.get("op") != "segmentMatch" and clause.get("attribute") != "kind":
                yield from clause_problem((*path, "rules", index, "clauses", number), clause)


def _near(word: str, known: Mapping[str, Any]) -> str:
    hint = did_you_mean(word, known)
    return hint if hint.startswith("did") else "add it to the file, or remove what names it"
