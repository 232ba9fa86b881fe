"""Lint: shape and the whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flags import decode
from flags.catalog import CATALOG, DEDUP, FLAGS, IN_PLACE, PUNCH, USE_MEMFD, Value, did_you_mean, is_on, nearest
from flags.context import ORIGINAL, Contexts, Moment, Shape
from flags.decode import SECTIONS
from flags.document import JsonDocument, Path, Position, parse
from flags.lint_meaning import meet, prerequisites, reachable, served
from flags.lint_meaning import segments as named_segments
from flags.problem import Flags, Problem, Severity, index_problem, objects, present


@dataclass(frozen=True, slots=True, order=True)
class LintFinding:
    """One mistake: where it stands (1-based), what it is, what to do and what it does in production.

    Ordered by place.
    """

    line: int
    column: int
    severity: Severity
    message: str
    fix: str
    production: str = ""

    def text(self, path: str) -> str:
        return f"{path}:{self.line}:{self.column}: {self.severity}: {self.message}; {self.fix}"


def check(text: str, contexts: Contexts = ORIGINAL) -> tuple[JsonDocument | None, list[LintFinding]]:
    """A flag file's document (None where it is not JSON) and everything found wrong with it."""
    try:
        document = parse(text)
    except json.JSONDecodeError as error:
        fix = "write JSON: no comments, no trailing commas" if text.strip() else "write at least an empty set of flags"
        production = "the last good flags stay in force until the lease ends; at start, every safe value is served"
        return None, [LintFinding(error.lineno, error.colno, "error", f"not JSON: {error.msg}", fix, production)]
    duplicates = [
        LintFinding(
            *position, "error", f'duplicate key "{path[-1]}"', "keep one of the two", "the last one wins silently"
        )
        for path, position in document.duplicates
    ]
    return document, sorted(duplicates + lint(document.value, document.positions, contexts))


def lint(document: Any, positions: Mapping[Path, Position], contexts: Contexts = ORIGINAL) -> list[LintFinding]:
    """Everything wrong with a parsed flag file, by place."""
    return sorted(
        LintFinding(*place(each.path, positions), each.severity, each.message, each.fix, each.production)
        for each in _document(document, contexts)
    )


def place(path: Path, positions: Mapping[Path, Position]) -> Position:
    """Where a part stands; a missing part is reported where the part stands that lacks it."""
    while path and path not in positions:
        path = path[:-1]
    return positions.get(path, Position(1, 1))


def _document(document: Any, contexts: Contexts) -> Iterator[Problem]:
    if not isinstance(document, dict):
        yield Problem((), "the document is not an object", "every flag is off", 'write {"flags": {...}}')
        return
    known = (*SECTIONS, "flagValues")
    for key in document.keys() - set(known):
        production = "LaunchDarkly's file source ignores it silently"
        yield Problem((key,), f'unknown key "{key}"', production, did_you_mean(key, known))
    if document.get("flags") is None and document.get("flagValues") is None:
        fix = 'add "flags": {}, which serves every safe value'
        yield Problem((), '"flags" is missing', "every flag vanishes, and the code's defaults are served", fix)
    taken = decode.sections(document)
    refused = taken.refused | _refused(taken)
    for path, reason in refused.items():
        yield _refused_problem(path, reason)
    flags, segments = (
        {key: present(item) for key, item in items.items() if (section, key) not in refused and not item.get("deleted")}
        for section, items in (("flags", taken.flags), ("segments", taken.segments))
    )
    yield from _flags(flags, segments, contexts)


def _refused(taken: decode.Decoded) -> dict[tuple[str, ...], str]:
    """What LaunchDarkly's own decoder takes no flag or segment from."""
    from flags.launchdarkly import refusal  # it loads the SDK, which takes a while

    return {
        (section, key): reason
        for section, items in (("flags", taken.flags), ("segments", taken.segments))
        for key, item in items.items()
        if (reason := refusal(section, item, key)) is not None
    }


def _refused_problem(path: tuple[str, ...], reason: str) -> Problem:
    if reason.startswith('its "key" is '):
        message = f'{reason.removeprefix("its ")} inside "{path[-1]}"'
        production = "some SDKs serve it under one name, some under the other, some refuse the whole set of flags"
        return Problem((*path, "key"), message, production, f'write "key": "{path[-1]}"')
    return Problem(path, _refusal(path, reason), _REFUSED, _mend(path, reason))


def _refusal(path: tuple[str, ...], reason: str) -> str:
    if reason == "it is not an object":
        return f'"{path[-1]}" is not an object'
    if reason == '"key" is missing':
        return f'"{path[-1]}" has no "key"'
    return f'LaunchDarkly refuses "{path[-1]}": {reason}'


def _mend(path: tuple[str, ...], reason: str) -> str:
    if reason == "it is not an object":
        return "write it in full, as LaunchDarkly exports it" if len(path) > 1 else "write an entry for each key"
    return f'write "key": "{path[-1]}"' if reason == '"key" is missing' else "correct its type"


def _flags(flags: dict[str, Any], segments: dict[str, Any], contexts: Contexts) -> Iterator[Problem]:
    """Only flags of the pause path, and those that they ask for, are looked into."""
    required = _required(flags)
    yield from _unknown(flags, required)
    sound: dict[str, Mapping[str, Any]] = {}
    for key, flag in flags.items():
        if key in FLAGS or key in required:
            wrong = list(shape(("flags", key), key, flag))
            yield from wrong
            if not wrong:
                sound[key] = flag
    shapes = _shapes(flags, contexts)
    for key, flag in sound.items():
        yield from served(("flags", key), key, flag, required.get(key, set()), shapes[key])
    yield from prerequisites(flags, sound)
    yield from named_segments(segments, sound, shapes)
    yield from combinations(sound)


def _shapes(flags: Flags, contexts: Contexts) -> dict[str, Shape]:
    """What the contexts of each flag have at every moment when it, or one that asks for it, is read."""
    moments: dict[str, set[Moment]] = {key: set(FLAGS[key].moments) for key in flags if key in FLAGS}
    waiting = list(moments)
    while waiting:
        key = waiting.pop()
        for _, asked in objects(flags.get(key, {}), "prerequisites"):
            known = moments.setdefault(asked["key"], set())
            if not moments[key] <= known:
                known |= moments[key]
                waiting.append(asked["key"])
    return {key: meet([contexts.shapes[moment] for moment in found]) for key, found in moments.items()}


def _required(flags: Flags) -> dict[str, set[int]]:
    """The flags that the pause path's flags require, directly or not, with the variations they require."""
    required: dict[str, set[int]] = {}
    waiting = [key for key in flags if key in FLAGS]
    while waiting:
        flag = flags.get(waiting.pop())
        for _, asked in objects(flag, "prerequisites") if flag is not None else []:
            key = str(asked.get("key"))
            if key not in required:
                required[key] = set()
                waiting.append(key)
            if type(asked.get("variation")) is int:
                required[key].add(asked["variation"])
    return required


def _unknown(flags: dict[str, Any], required: Mapping[str, Any]) -> Iterator[Problem]:
    others = [key for key in flags if key not in FLAGS and key not in required]
    far = [key for key in others if nearest(key, FLAGS) is None]
    for key in others:
        if key not in far:
            production = "nothing asks for it; the flag that was meant serves its safe value"
            yield Problem(
                ("flags", key), f'unknown flag "{key}" is ignored', production, did_you_mean(key, FLAGS), "warning"
            )
    if far:
        message = f"not of the pause path, and ignored: {', '.join(far[:5])}" + (
            f" and {len(far) - 5} more" * (len(far) > 5)
        )
        yield Problem(("flags", far[0]), message, "no pause asks for them", "leave them, or take them out", "warning")


_MALFORMED = "LaunchDarkly calls the flag malformed and serves the code's default, whatever the flag says"
_REFUSED = "LaunchDarkly refuses the whole set of flags, and the last one stays in force"


def shape(path: Path, key: str, flag: Mapping[str, Any]) -> Iterator[Problem]:
    """What must be right before anything else about a flag can be checked."""
    variations = flag.get("variations")
    if not isinstance(variations, list) or not variations:
        fix = 'write "variations": [false, true]'
        yield Problem((*path, "variations"), f'"{key}" has no variations', _MALFORMED, fix)
        return
    if key in FLAGS:
        yield from _types(path, key, variations)
    if not isinstance(flag.get("on"), bool):
        fix = 'write "on": true or "on": false'
        yield Problem((*path, "on"), f'"{key}" is neither on nor off', "anything but false may count as on", fix)
    if flag.get("offVariation") is not None:
        yield from index_problem((*path, "offVariation"), flag["offVariation"], variations, _MALFORMED)
    for name in ("targets", "contextTargets"):
        for index, target in objects(flag, name):
            yield from index_problem((*path, name, index, "variation"), target.get("variation"), variations, _MALFORMED)
    yield from _served((*path, "fallthrough"), flag.get("fallthrough"), variations)
    for index, rule in objects(flag, "rules"):
        yield from _served((*path, "rules", index), rule, variations)


def _types(path: Path, key: str, variations: list[Any]) -> Iterator[Problem]:
    known = FLAGS[key]
    for index, value in enumerate(variations):
        if known.accepted(value) is None:
            what, fix = ("boolean", "write true or false") if known.type == "boolean" else _object_words(key)
            message = f"variation {json.dumps(value)} is not a{'n' * (what[0] in 'aeiou')} {what}"
            production = "the SDK checks no types: code that asks only whether it is truthy takes it for true"
            yield Problem((*path, "variations", index), message, production, fix)


def _object_words(key: str) -> tuple[str, str]:
    forms = ", ".join(f"{each.name}: {_KINDS[type(each.default)]}" for each in FLAGS[key].settings)
    return "object of its settings", f'write {{"enabled": true}}; settings are {forms}'


_KINDS = {bool: "true or false", int: "a number from 0"}


def _served(path: Path, served: Any, variations: list[Any]) -> Iterator[Problem]:
    """A fallthrough or a rule: exactly one of a variation and a rollout."""
    if not isinstance(served, dict) or ("variation" in served) == ("rollout" in served):
        fix = 'write "variation" or "rollout"'
        yield Problem(path, "neither one variation nor one rollout is served", _MALFORMED, fix)
    elif "variation" in served:
        yield from index_problem((*path, "variation"), served["variation"], variations, _MALFORMED)
    elif not isinstance(served["rollout"], dict) or not objects(served["rollout"], "variations"):
        yield Problem((*path, "rollout"), "the rollout has no variations", _MALFORMED, "list variations with weights")
    else:
        for index, entry in objects(served["rollout"], "variations"):
            yield from _entry((*path, "rollout", "variations", index), entry, variations)


def _entry(path: Path, entry: Mapping[str, Any], variations: list[Any]) -> Iterator[Problem]:
    yield from index_problem((*path, "variation"), entry.get("variation"), variations, _MALFORMED)
    weight = entry.get("weight")
    if type(weight) is not int or not 0 <= weight <= 100_000:
        message = f"weight {json.dumps(weight)} is not an integer from 0 to 100000"
        yield Problem((*path, "weight"), message, _REFUSED, "write thousandths of a percent: 1000 is 1 %")


INFLIGHT = "memfd-dedup-inflight-serve"


def combinations(sound: Flags) -> Iterator[Problem]:
    """Judged by what each flag can serve to any sandbox: whether two of them meet in one sandbox is not known."""
    values = {each.key: _values(each.key, sound) for each in CATALOG}
    for each in CATALOG:
        for needed in each.needs:
            if each.key in sound and any(map(is_on, values[each.key])) and not any(map(is_on, values[needed])):
                message = f'"{each.key}" has no effect: it needs "{needed}", which is never on'
                fix = f'switch "{needed}" on, or this off'
                yield Problem(("flags", each.key), message, "the flag does nothing", fix, "warning")
    if any(map(is_on, values[PUNCH])):
        yield from _with_punching(values)


def _with_punching(values: dict[str, list[Value]]) -> Iterator[Problem]:
    if not all(map(is_on, values[USE_MEMFD])):
        message = f'"{PUNCH}" is void where "{USE_MEMFD}" is off'
        production = "such a sandbox has no memfd: nothing is punched, and its pauses peak at about 2x"
        fix = f'serve "{USE_MEMFD}" true to every sandbox that may punch'
        yield Problem(("flags", USE_MEMFD), message, production, fix, "warning")
    if any(map(is_on, values[IN_PLACE])):
        message = f'"{PUNCH}" is void with "{IN_PLACE}"'
        production = "an in-place checkpoint borrows the memory of a guest that goes on: it must never be punched"
        fix = "count on punching at pauses only, or switch one of the two off"
        yield Problem(("flags", IN_PLACE), message, production, fix, "warning")
    if any(map(is_on, values[INFLIGHT])):
        dedup = any(map(is_on, values[DEDUP]))
        message = f'"{PUNCH}" is illegal with "{INFLIGHT}"' + ("" if dedup else f', once "{DEDUP}" is on')
        production = "readers are served from the memory that is being punched: they would read zeros"
        fix = f'switch "{INFLIGHT}" off for every sandbox that may punch'
        yield Problem(("flags", INFLIGHT), message, production, fix, "error" if dedup else "warning")


def _values(key: str, sound: Flags) -> list[Value]:
    """What the flag can serve; its safe value where the file does not have it."""
    if key not in sound:
        return [FLAGS[key].safe]
    accepted = [FLAGS[key].accepted(sound[key]["variations"][index]) for index in reachable(key, sound)]
    return [value for value in accepted if value is not None]
