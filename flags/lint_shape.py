"""The shape of one flag: what LaunchDarkly refuses, calls malformed, or serves to nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from flags.catalog import FLAGS
from flags.document import Path
from flags.problem import Problem, index_problem, objects

_MALFORMED = "LaunchDarkly calls the flag malformed and serves the code's default, whatever the flag says"
_REFUSED = "LaunchDarkly refuses the whole set of flags, and the last one stays in force"


def shape(path: Path, key: str, flag: Mapping[str, Any]) -> Iterator[Problem]:
    """What must be right before anything else can be said of a flag."""
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
