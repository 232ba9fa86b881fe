"""Where two sets of flags differ, in what changes an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flags.catalog import FLAGS
from flags.launchdarkly import Items
from flags.problem import objects

Sections = tuple[Items, Items]
_REMARKS = frozenset(
    ("version", "sel", "clientSide", "clientSideAvailability", "trackEvents", "trackEventsFallthrough",
     "debugEventsUntilDate", "samplingRatio", "excludeFromSummaries", "migration", "id", "_id")
)  # fmt: skip

_DEFAULTS = {"contextKind": ("", "user"), "bucketBy": ("", "key"), "kind": ("rollout",)}


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference: `key` of a flag or segment, the part of it (empty for the whole), and both values.

    None stands for a part that is not there, or is empty, which means the same to LaunchDarkly.
    """

    section: str
    key: str
    part: str
    here: Any
    live: Any


def drift(here: Sections, live: Sections) -> list[Drift]:
    """Every difference in the flags of the pause path, those they ask for, all that `here` has, and their segments."""
    wanted = _wanted(here[0], live[0])
    found = [each for key in sorted(wanted) for each in _item("flags", key, here[0], live[0])]
    named = {name for flags in (here[0], live[0]) for key in wanted & flags.keys() for name in _segments(flags[key])}
    named |= here[1].keys()
    return found + [each for key in sorted(named) for each in _item("segments", key, here[1], live[1])]


def _wanted(here: Items, live: Items) -> set[str]:
    wanted = set(here) | (FLAGS.keys() & live.keys())
    waiting = list(wanted)
    while waiting:
        key = waiting.pop()
        for flags in (here, live):
            for _, asked in objects(flags.get(key, {}), "prerequisites"):
                if asked.get("key") not in wanted:
                    wanted.add(str(asked.get("key")))
                    waiting.append(str(asked.get("key")))
    return wanted


def _segments(flag: Mapping[str, Any]) -> Iterator[str]:
    for _, rule in objects(flag, "rules"):
        for _, clause in objects(rule, "clauses"):
            if clause.get("op") == "segmentMatch":
                yield from map(str, clause.get("values") or [])


def _item(section: str, key: str, here: Items, live: Items) -> Iterator[Drift]:
    mine, theirs = here.get(key), live.get(key)
    if mine is None or theirs is None:
        if mine is not theirs:
            yield Drift(section, key, "", None if mine is None else "there", None if theirs is None else "there")
        return
    for part, one, other in _differences("", _telling_item(mine), _telling_item(theirs)):
        yield Drift(section, key, part, one, other)


def _telling_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """What is served counts to the letter; a segment's salt only where it takes a share of its members."""
    told: dict[str, Any] = _as_sets(_telling(item))
    if "variations" in item:
        return {**told, "variations": item["variations"]}
    weighted = any("weight" in rule for _, rule in objects(item, "rules"))
    return told if weighted else {name: each for name, each in told.items() if name not in ("salt", "generation")}


def _telling(value: Any) -> Any:
    """Without remarks, and without what is as good as absent."""
    if isinstance(value, Mapping):
        kept = {name: _telling(each) for name, each in value.items() if name not in _REMARKS}
        return {name: each for name, each in kept.items() if not _is_default(name, each)}
    return [_telling(each) for each in value] if isinstance(value, list) else value


def _as_sets(item: dict[str, Any]) -> dict[str, Any]:
    """The keys of targets are sets, of which the order is of no account."""
    sorted_keys = {name: sorted(item[name]) for name in ("included", "excluded") if _is_text(item.get(name))}
    listed = {
        name: [{**each, "values": sorted(each["values"])} if _is_text(each.get("values")) else each for each in found]
        for name in ("targets", "contextTargets", "includedContexts", "excludedContexts")
        if isinstance(found := item.get(name), list) and all(isinstance(each, dict) for each in found)
    }
    return {**item, **sorted_keys, **listed}


def _is_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_default(name: str, value: Any) -> bool:
    if value is False:
        return name != "on"
    return value in (None, [], {}) or (isinstance(value, str) and value in _DEFAULTS.get(name, ()))


def _differences(part: str, here: Any, live: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(here, dict) and isinstance(live, dict):
        for name in sorted(here.keys() | live.keys()):
            yield from _differences(f"{part}.{name}" if part else name, here.get(name), live.get(name))
    elif isinstance(here, list) and isinstance(live, list) and len(here) == len(live):
        for index, (one, other) in enumerate(zip(here, live, strict=True)):
            yield from _differences(f"{part}[{index}]", one, other)
    elif here != live or type(here) is not type(live):  # in Python, true equals 1
        yield part, here, live
