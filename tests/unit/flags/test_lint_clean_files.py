"""A file without an error of lint punches nobody but whom its author meant, whatever is random about both.

The meaning is kept beside each random file, as predicates in Python; mistakes are planted in the writing of it.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flags.context import ORIGINAL
from flags.inline import flag_from
from flags.launchdarkly import make_context
from flags.launchdarkly_fleet import FixedFlags
from flags.lint import check

PUNCH = "memfd-punch-on-snapshot"
FILES = 150
"""Lint-clean files in this test; 5,000 were tried by hand."""
CONTEXTS = 24
VERSIONS = ("5.10.0", "6.1.158", "6.2.0", "6.8.12")
KEYS = tuple(f"web-{n}" for n in range(6))
Data = Mapping[str, Any]


class Meant(NamedTuple):
    """A rule as its author means it, and as it is written; `segments` go with it."""

    matches: Callable[[Data], bool]
    punches: bool
    written: dict[str, Any]
    segments: dict[str, Any]


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def has(data: Data, name: str) -> bool:
    return "sandbox" in data and name in data["sandbox"]


def by_key(draw: random.Random) -> tuple[Callable[[Data], bool], dict[str, Any]]:
    keys = draw.sample(KEYS, draw.randint(1, 3))
    clause = {"contextKind": "sandbox", "attribute": "key", "op": "in", "values": keys}
    return lambda data: has(data, "key") and data["sandbox"]["key"] in keys, clause


def by_version(draw: random.Random) -> tuple[Callable[[Data], bool], dict[str, Any]]:
    than, negate = draw.choice(VERSIONS), draw.random() < 0.4
    clause = {"contextKind": "sandbox", "attribute": "kernel-version", "op": "semVerLessThan", "values": [than]}

    def matches(data: Data) -> bool:
        if not has(data, "kernel-version"):
            return False
        return (number(data["sandbox"]["kernel-version"]) < number(than)) is not negate

    return matches, {**clause, "negate": negate}


def by_template(draw: random.Random) -> tuple[Callable[[Data], bool], dict[str, Any]]:
    start = draw.choice(["py", "node", "w"])
    clause = {"contextKind": "sandbox", "attribute": "template-id", "op": "startsWith", "values": [start]}
    return lambda data: has(data, "template-id") and str(data["sandbox"]["template-id"]).startswith(start), clause


def spoilt(draw: random.Random, clause: dict[str, Any]) -> dict[str, Any]:
    """The clause with one mistake that people make."""
    return draw.choice(
        [
            {**clause, "op": clause["op"] + "s"},
            {**clause, "op": "lessThan"},
            {**clause, "values": []},
            {**clause, "values": [6.2]},
            {**clause, "op": "semVerEqual", "values": ["6.2.x"]},
            {**clause, "op": "before", "values": ["soon"]},
            {**clause, "op": "matches", "values": ["(?<=x)y"]},
            {**clause, "contextKind": "team"},
            {**clause, "contextKind": "sandbx"},
            {name: value for name, value in clause.items() if name != "contextKind"},
            {**clause, "attribute": "kernel"},
        ]
    )


def meant(draw: random.Random, index: int) -> Meant:
    matches, clause = draw.choice([by_key, by_version, by_template])(draw)
    punches = draw.random() < 0.5
    if draw.random() < 0.2:
        clause = spoilt(draw, clause)
    clauses, segments = [clause], dict[str, Any]()
    if draw.random() < 0.3:
        name = f"segment-{index}"
        named: dict[str, Any] = {"key": name, "salt": "s", "rules": [{"clauses": clauses}]}
        if punches and draw.random() < 0.4:
            kind = {"rolloutContextKind": draw.choice(["sandbox", "sandbox", "team"])}
            named["rules"][0] |= {"weight": draw.choice([0, 5_000, 100_000]), **(kind if draw.random() < 0.8 else {})}
        segments[draw.choice([name, name, name, "other"])] = named | {"key": name}
        segments = {key: {**each, "key": key} for key, each in segments.items()}
        clauses = [{"attribute": "", "op": "segmentMatch", "values": [name]}]
    if punches and draw.random() < 0.1:
        clauses = []
    return Meant(matches, punches, {"clauses": clauses, **served(draw, punches)}, segments)


def served(draw: random.Random, punches: bool) -> dict[str, Any]:
    """A variation, or a rollout, safe first or not, by a kind that is there or not."""
    if draw.random() < 0.5 or not punches:
        return {"variation": int(punches)}
    share = draw.choice([0, 1_000, 60_000])
    entries = [{"variation": 0, "weight": 100_000 - share}, {"variation": 1, "weight": share}]
    kind = draw.choice(["sandbox", "sandbox", "sandbox", "sandbox", "team"])
    order = entries if draw.random() < 0.8 else entries[::-1]
    return {"rollout": {"contextKind": kind, "variations": order}}


class File(NamedTuple):
    flag: dict[str, Any]
    segments: dict[str, Any]
    rules: list[Meant]
    punches: bool


GUARD = {"attribute": "kind", "op": "in", "values": ["sandbox"], "negate": True}


def random_file(draw: random.Random) -> File:
    rules = [meant(draw, index) for index in range(draw.randint(0, 4))]
    if draw.random() < 0.3:
        guard = {"variation": 0, "clauses": [GUARD]}
        rules.insert(0, Meant(lambda data: "sandbox" not in data, False, guard, {}))
    punches = draw.random() < 0.6
    flag = {
        **flag_from(PUNCH, True),
        "on": draw.random() < 0.9,
        "offVariation": int(draw.random() < 0.05),
        "rules": [each.written for each in rules],
        "fallthrough": served(draw, punches),
    }
    segments = {name: each for rule in rules for name, each in rule.segments.items()}
    return File(flag, segments, rules, punches)


def random_context(draw: random.Random) -> dict[str, Any]:
    sandbox = {
        "key": draw.choice([*KEYS, "other"]),
        "template-id": draw.choice(["python", "node", "web", "base"]),
        "sandbox-type": "default",
        "kernel-version": draw.choice([*VERSIONS, "6.2.1", "1.0.0"]),
        "firecracker-version": "1.14.1",
        "envd-version": "0.4.0",
    }
    whole = {"sandbox": sandbox, "deployment": {"key": "d"}, "orchestrator": {"key": "o", "commit": "c"}}
    if draw.random() < 0.3:
        del whole[draw.choice(list(whole))]
    return whole


def may_be_punched(file: File, data: Data) -> bool:
    """By the author's meaning: a share may draw a context only if it has the kind of the share."""
    for rule in file.rules:
        if rule.matches(data):
            return rule.punches and drawable(rule.written, data)
        if rule.punches and rule.segments:
            continue  # a member by a share, or none
    return file.punches and drawable(file.flag["fallthrough"], data)


def drawable(part: Data, data: Data) -> bool:
    return "rollout" not in part or part["rollout"]["contextKind"] in data


def unexpected(file: File, draw: random.Random) -> list[tuple[dict[str, Any], str]]:
    """The contexts that are punched and should not be, by either SDK."""
    found = []
    fixed = FixedFlags({PUNCH: file.flag}, file.segments)
    for _ in range(CONTEXTS):
        data = random_context(draw)
        context = make_context({"kind": "multi", **data})
        for as_go in (True, False):
            answer = fixed.answer(PUNCH, context, as_go=as_go)
            meaning = not file.flag["on"] or not may_be_punched(file, data)
            shared = any(rule.segments and "weight" in str(rule.segments) for rule in file.rules)
            if answer is not None and answer.value is True and meaning and not (shared and file.punches):
                found.append((data, f"as {'Go' if as_go else 'Python'}: {answer.reason}"))
    return found


def clean_files(count: int, seed: int = 19) -> Counter[str]:
    """Try random files until so many had no error; what was met. AssertionError for one that punches by mistake."""
    met: Counter[str] = Counter()
    draw = random.Random(seed)
    while met["clean"] < count:
        file = random_file(draw)
        text = json.dumps({"flags": {PUNCH: file.flag}, "segments": file.segments})
        errors = [each.text for each in check(text, ORIGINAL) if each.severity == "error"]
        wrong = unexpected(file, draw)
        if errors:
            met["with errors"] += 1
            met["with errors, punching by mistake"] += bool(wrong)
            continue
        assert not wrong, (text, wrong)
        met["clean"] += 1
        met["clean, with rules"] += bool(file.rules)
    return met


def test_a_file_without_an_error_punches_nobody_by_mistake() -> None:
    met = clean_files(FILES)
    assert met["clean, with rules"] > FILES / 4
    assert met["with errors, punching by mistake"] > FILES / 10  # so the mistakes matter
