"""Who is served what by one flag of sound shape: rollouts, targets, rules, and what off serves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flags.catalog import FLAGS, Flag, did_you_mean, is_on
from flags.context import ATTRIBUTES, KINDS
from flags.document import Path
from flags.problem import Problem, kind_problem, objects

_NOBODY = "it matches no sandbox, so it does nothing"
_FIRST = "every sandbox gets the entry listed first, whatever the weights say"


def served(path: Path, key: str, flag: Mapping[str, Any], required: set[int]) -> Iterator[Problem]:
    """What a flag serves to whom; `required` are the variations that other flags' prerequisites ask of it."""
    variations = flag["variations"]
    known = FLAGS.get(key)
    yield from _off(path, key, flag)
    if known is not None:
        yield from _settings(path, known, variations)
    unsafe, safe = _unsafe(known, variations, required), json.dumps(known.safe) if known else "another variation"
    yield from _targets(path, flag)
    guarded: set[str] = set()
    for index, rule in objects(flag, "rules"):
        here = (*path, "rules", index)
        yield from _clauses(here, rule)
        yield from _rollout(here, rule, unsafe, safe, guarded | _demanded(rule))
        guarded |= _guarded_by(rule, unsafe)
    yield from _rollout((*path, "fallthrough"), flag["fallthrough"], unsafe, safe, guarded)


def _unsafe(known: Flag | None, variations: list[Any], required: set[int]) -> Callable[[int], bool]:
    """Whether a variation is one that nobody should get by mistake."""
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


def _targets(path: Path, flag: Mapping[str, Any]) -> Iterator[Problem]:
    """Empty ones only keep a place in the order."""
    for index, target in objects(flag, "targets"):
        if target.get("values"):
            message, fix = '"targets" are of kind "user", which no sandbox has', 'move it to "contextTargets"'
            yield Problem((*path, "targets", index), message, _NOBODY, fix, "warning")
    for index, target in objects(flag, "contextTargets"):
        if target.get("values"):
            yield from kind_problem((*path, "contextTargets", index), target, _NOBODY)


def _settings(path: Path, known: Flag, variations: list[Any]) -> Iterator[Problem]:
    names = [each.name for each in known.settings]
    for index, value in enumerate(variations):
        for name in (value if isinstance(value, dict) else {}).keys() - set(names):
            here = (*path, "variations", index, name)
            yield Problem(here, f'unknown setting "{name}"', "it is ignored", did_you_mean(name, names), "warning")


def _clauses(path: Path, rule: Mapping[str, Any]) -> Iterator[Problem]:
    for index, clause in objects(rule, "clauses"):
        if clause.get("op") != "segmentMatch" and clause.get("attribute") != "kind":
            yield from clause_problem((*path, "clauses", index), clause)


def clause_problem(path: Path, clause: Mapping[str, Any]) -> Iterator[Problem]:
    """An unknown kind, or an attribute that a sandbox's context of that kind does not have."""
    unknown = list(kind_problem(path, clause, "the clause matches no sandbox, so the rule does nothing"))
    yield from unknown
    if not unknown:
        production = "the clause matches no sandbox, so the rule does nothing"
        yield from _attribute((*path, "attribute"), clause, "attribute", clause["contextKind"], production, "warning")


def _attribute(
    path: Path, item: Mapping[str, Any], name: str, kind: str, production: str, severity: Any
) -> Iterator[Problem]:
    given = str(item.get(name, "key")).removeprefix("/")
    if given not in ATTRIBUTES[kind]:
        message = f'unknown {name} "{given}": kind "{kind}" has no such attribute'
        yield Problem(path, message, production, did_you_mean(given, ATTRIBUTES[kind]), severity)


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
    path: Path, part: Mapping[str, Any], unsafe: Callable[[int], bool], safe: str, guarded: set[str]
) -> Iterator[Problem]:
    if "rollout" not in part:
        return
    rollout, here = part["rollout"], (*path, "rollout")
    yield from kind_problem(here, rollout, _FIRST)
    kind = rollout.get("contextKind", "user")
    if kind in KINDS and rollout.get("kind") != "experiment":  # an experiment does not read bucketBy
        production = "without the attribute everybody is in bucket 0: all get the first entry that has any weight"
        yield from _attribute((*here, "bucketBy"), rollout, "bucketBy", kind, production, "error")
    entries = [entry for _, entry in objects(rollout, "variations")]
    total = sum(entry["weight"] for entry in entries)
    if total != 100_000:
        production = f"LaunchDarkly gives the {(100_000 - total) / 1000:g} % left over to the last entry"
        if total > 100_000:
            production = "entries past 100 % get less than their weight, or nobody"
        yield Problem((*here, "variations"), f"the weights sum to {total}", production, "make them sum to 100000")
    if unsafe(entries[0]["variation"]) and kind not in guarded:
        production = f'a context without the kind "{kind}" gets it at any weight, 0 % included'
        fix = f"list {safe} first, or let the first rule serve it to contexts without that kind"
        yield Problem((*here, "variations", 0), "the unsafe variation is listed first", production, fix)
