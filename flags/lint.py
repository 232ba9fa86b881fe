"""Lint: shape and the whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from flags import decode
from flags.catalog import CATALOG, DEDUP, FLAGS, IN_PLACE, PUNCH, USE_MEMFD, Value, did_you_mean, is_on, nearest
from flags.context import ORIGINAL, Contexts, Moment, Shape, Types
from flags.decode import SECTIONS, parse_json, uncollected
from flags.document import Mistake, Path, Position, parse, places
from flags.lint_meaning import Served, meaning, meet, prerequisites, reachable, references
from flags.problem import Flags, Problem, Who, index_problem, members_of, objects, present
from flags.unsafe import is_destructive

if TYPE_CHECKING:
    from flags.trying import FlagQuestion, Tried


def check(text: str, contexts: Contexts = ORIGINAL) -> list[Mistake]:
    """Everything wrong with a flag file, by place."""
    return [mistake for mistake, _ in tried(text, contexts)]


def tried(text: str, contexts: Contexts = ORIGINAL) -> list[tuple[Mistake, Who | None]]:
    """Everything wrong with a flag file, by place, and who gets an unsafe value by it."""
    try:
        with uncollected():
            pairs = _Pairs()
            document = parse_json(text, pairs.members)
            problems = list(_document(document, contexts))
            where = places(text, (each.path for each in problems))
            twice = parse(text).duplicates if pairs.has_duplicates else ()
    except json.JSONDecodeError as error:
        fix = "write JSON: no comments, no trailing commas" if text.strip() else "write at least an empty set of flags"
        production = "the last good flags stay in force until the lease ends; at start, every safe value is served"
        place = Position(error.lineno, error.colno)
        return [(Mistake(place, "", f"not JSON: {error.msg}", fix, production=production), None)]
    except RecursionError:
        return [(Mistake(Position(), "", "nested too deeply", "write it as LaunchDarkly does"), None)]
    found: list[tuple[Mistake, Who | None]] = [
        (
            Mistake(
                position,
                "",
                f'duplicate key "{path[-1]}"',
                "keep one of the two",
                production="the last one wins silently",
            ),
            None,
        )
        for path, position in twice
    ]
    found += [(_mistake(each, where), each.who) for each in problems]
    return sorted(found, key=lambda each: each[0])


class _Pairs:
    """Makes the objects of a document, and notices a key that one has twice."""

    def __init__(self) -> None:
        self.has_duplicates = False

    def members(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        self.has_duplicates = self.has_duplicates or len(made) != len(pairs)
        return made


def _mistake(each: Problem, where: Mapping[Path, Position]) -> Mistake:
    place = place_of(each.path, where)
    return Mistake(place, "", each.message, each.fix, severity=each.severity, production=each.production)


def place_of(path: Path, positions: Mapping[Path, Position]) -> Position:
    """Where a part stands; a missing part is reported where the part stands that lacks it."""
    while path and path not in positions:
        path = path[:-1]
    return positions.get(path, Position())


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
        {key: item for key, item in items.items() if (section, key) not in refused and not item.get("deleted")}
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
    from flags.trying import Tried, claims  # they load the SDK

    required = _required(flags)
    yield from _unknown(flags, required)
    sound: dict[str, Mapping[str, Any]] = {}
    for key, item in flags.items():
        if key in FLAGS or key in required:
            flag = present(item)
            wrong = list(shape(("flags", key), key, flag))
            yield from wrong
            if not any(each.severity == "error" for each in wrong):
                sound[key] = flag
    named = {name: present(segments[name]) for flag in sound.values() for name in sorted(members_of(flag, segments))}
    shapes = _shapes({key: present(item) for key, item in flags.items() if key in FLAGS or key in required}, contexts)
    tried = {key: Tried(_question(key, sound, named, required, shapes[key], contexts.types)) for key in sound}
    for key, each in tried.items():
        yield from meaning(("flags", key), key, sound[key], shapes[key])
        yield from claims(("flags", key), each)
    served = {key: each.served for key, each in tried.items()}
    yield from prerequisites(flags, sound, served)
    yield from references({**segments, **named}, sound, named)
    yield from _segments(named, tried, contexts.types)
    yield from combinations(sound, served)


def _question(
    key: str, sound: Flags, segments: Flags, required: Mapping[str, set[int]], shape: Shape, types: Types
) -> FlagQuestion:
    """What the flag is asked, with the flags and segments that it takes to answer."""
    from flags.trying import FlagQuestion

    asking, flags = [key], dict[str, Mapping[str, Any]]()
    while asking:
        if (name := asking.pop()) not in flags and name in sound:
            flags[name] = sound[name]
            asking += [str(each["key"]) for _, each in objects(sound[name], "prerequisites")]
    named = {name: segments[name] for flag in flags.values() for name in members_of(flag, segments)}
    known, variations = FLAGS.get(key), sound[key]["variations"]
    if known is None:
        return FlagQuestion(key, flags, named, shape, frozenset(required[key]), True, "another variation", types)
    unsafe = frozenset(index for index, value in enumerate(variations) if known.accepted(value) != known.safe)
    destructive = any(is_destructive(known, value) for value in variations)
    return FlagQuestion(key, flags, named, shape, unsafe, destructive, json.dumps(known.safe), types)


def _segments(named: Flags, tried: Mapping[str, Tried], types: Types) -> Iterator[Problem]:
    """Each with the shape of the contexts that all flags have which name it."""
    from flags.trying_segments import segment_claims

    users = {name: [each for each in tried.values() if name in each.asked.direct] for name in named}
    for name, flags in users.items():
        denies = any(name in each.denying for each in flags)
        yield from segment_claims(name, named, meet([each.asked.shape for each in flags]), types, denies=denies)


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
    far: list[str] = []
    for key in others:
        if nearest(key, FLAGS) is None:
            far.append(key)
            continue
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
    """A fallthrough or a rule: a variation or a rollout."""
    if not isinstance(served, dict) or not served.keys() & {"variation", "rollout"}:
        fix = 'write "variation" or "rollout"'
        yield Problem(path, "neither a variation nor a rollout is served", _MALFORMED, fix)
    elif "variation" in served:
        if "rollout" in served:
            production, fix = "LaunchDarkly serves the variation, and the rollout does nothing", "remove one of the two"
            yield Problem((*path, "rollout"), "a rollout beside a variation", production, fix, "warning")
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


def combinations(sound: Flags, served: Served) -> Iterator[Problem]:
    """Judged by what each flag can serve to any sandbox: whether two of them meet in one sandbox is not known."""
    values = {each.key: _values(each.key, sound, served) for each in CATALOG}
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


def _values(key: str, sound: Flags, served: Served) -> list[Value]:
    """What the flag can serve; its safe value where the file does not have it."""
    if key not in sound:
        return [FLAGS[key].safe]
    accepted = [FLAGS[key].accepted(sound[key]["variations"][index]) for index in sorted(reachable(key, sound, served))]
    return [value for value in accepted if value is not None]
