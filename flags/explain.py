"""Why one sandbox gets its value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flags.catalog import FLAGS, Flag
from flags.decision import Evaluation
from flags.launchdarkly import Evaluator, InProcessSource, Items, make_context
from flags.problem import objects


@dataclass(frozen=True, slots=True)
class Explanation:
    """One flag's evaluation, the sentences that lead to it, and where the context landed in a rollout, if in one."""

    evaluation: Evaluation
    because: tuple[str, ...]
    landing: Landing | None


def explain(flags: Items, segments: Items, context: dict[str, Any], keys: list[str]) -> list[Explanation]:
    """Each of these flags of the catalogue for a context of to_context()'s form; UserError where that is invalid."""
    evaluator = Evaluator(InProcessSource(flags, segments))
    try:
        made = make_context(context)
        teller = _Teller(evaluator, flags, context)
        return [teller.explain(key, evaluator.evaluate(FLAGS[key], made)) for key in keys]
    finally:
        evaluator.close()


class _Teller:
    """Finds the part of a flag that an evaluation names."""

    def __init__(self, evaluator: Evaluator, flags: Items, context: dict[str, Any]) -> None:
        self._evaluator = evaluator
        self._flags = flags
        self._context = context

    def explain(self, key: str, evaluation: Evaluation) -> Explanation:
        flag = self._flags.get(key)
        if flag is None:
            return Explanation(evaluation, ("it is not in the file, so its safe value is served",), None)
        because = tuple(self._because(flag, evaluation))
        part = _part(flag, evaluation)
        lands = landing(flag, part["rollout"], self._context) if "rollout" in part else None
        return Explanation(evaluation, because, lands)

    def _because(self, flag: Mapping[str, Any], evaluation: Evaluation) -> Iterator[str]:
        reason = evaluation.reason.partition(":")[0]
        if reason == "OFF":
            yield "the flag is off" + ("" if flag.get("offVariation") is not None else " and has no off variation")
        elif reason == "PREREQUISITE_FAILED":
            yield from self._prerequisites(flag)
        elif reason == "TARGET_MATCH":
            yield self._target(flag, evaluation)
        elif reason == "RULE_MATCH":
            index, rule = _rule(flag, evaluation)
            yield f"rule {index + 1} matches: {rule_words(rule)}; it serves {_serves(flag, rule)}"
        elif reason == "FALLTHROUGH":
            yield f"{_unmatched(flag)} is served {_serves(flag, flag['fallthrough'])}"
        elif reason == "WRONG_TYPE":
            yield f"variation {evaluation.variation} is not of this flag's type, so its safe value is served"
        else:
            yield "LaunchDarkly cannot evaluate the flag, so its safe value is served; `flags lint` says why"

    def _prerequisites(self, flag: Mapping[str, Any]) -> Iterator[str]:
        """Each one that is not met, in the order LaunchDarkly asks; the first decides."""
        for _, asked in objects(flag, "prerequisites"):
            key, wanted = str(asked.get("key")), asked.get("variation")
            needed = self._flags.get(key)
            if needed is None:
                yield f'the prerequisite "{key}" is not in the file'
            elif not needed.get("on"):
                yield f'the prerequisite "{key}" is off, which never counts as met'
            elif (served := self._variation(key)) != wanted:
                yield f'the prerequisite "{key}" must serve variation {wanted} and serves {served}'

    def _variation(self, key: str) -> int | None:
        asked = Flag(key, "json", safe={}, read="each pause", effect=False, summary="")
        return self._evaluator.evaluate(asked, make_context(self._context)).variation

    def _target(self, flag: Mapping[str, Any], evaluation: Evaluation) -> str:
        for name in ("contextTargets", "targets"):
            for _, target in objects(flag, name):
                kind = target.get("contextKind") or "user"
                mine = self._context.get(kind, {}).get("key")
                if mine in (target.get("values") or []) and target["variation"] == evaluation.variation:
                    return f'it is a target: {kind} "{mine}" is listed for variation {evaluation.variation}'
        return f"it is a target of variation {evaluation.variation}"


def _part(flag: Mapping[str, Any], evaluation: Evaluation) -> Mapping[str, Any]:
    """The rule or fallthrough that served, empty where neither did."""
    if evaluation.reason == "FALLTHROUGH":
        part: Mapping[str, Any] = flag["fallthrough"]
        return part
    return _rule(flag, evaluation)[1] if evaluation.reason == "RULE_MATCH" else {}


def _rule(flag: Mapping[str, Any], evaluation: Evaluation) -> tuple[int, dict[str, Any]]:
    rules = objects(flag, "rules")
    for index, rule in rules:
        if rule.get("id") == evaluation.rule:
            return index, rule
    return rules[int(evaluation.rule or 0)]  # a rule without an id is named by its index


def _serves(flag: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    variations = flag["variations"]
    if "rollout" in part:
        return rollout_words(part["rollout"], variations)
    return json.dumps(variations[part["variation"]])


def _unmatched(flag: Mapping[str, Any]) -> str:
    rules = [rule_words(rule) for _, rule in objects(flag, "rules")]
    targets = [
        target_words(target)
        for name in ("targets", "contextTargets")
        for _, target in objects(flag, name)
        if target.get("values")
    ]
    missed = [*(f"target {each}" for each in targets), *(f"rule {i} ({each})" for i, each in enumerate(rules, 1))]
    return f"no match: {'; '.join(missed)}; everybody else" if missed else "everybody"


_OPERATORS = {
    "in": ("is", "is not"),
    "startsWith": ("starts with", "does not start with"),
    "endsWith": ("ends with", "does not end with"),
    "contains": ("contains", "does not contain"),
    "matches": ("matches", "does not match"),
    "lessThan": ("is less than", "is not less than"),
    "lessThanOrEqual": ("is at most", "is not at most"),
    "greaterThan": ("is more than", "is not more than"),
    "greaterThanOrEqual": ("is at least", "is not at least"),
    "before": ("is before", "is not before"),
    "after": ("is after", "is not after"),
    "semVerEqual": ("is version", "is not version"),
    "semVerLessThan": ("is older than version", "is not older than version"),
    "semVerGreaterThan": ("is newer than version", "is not newer than version"),
}


def clause_words(clause: Mapping[str, Any]) -> str:
    """`team key is "acme" or "apex"`."""
    values = clause.get("values")
    said = " or ".join(json.dumps(each) for each in values) if isinstance(values, list) and values else "nothing"
    negate = bool(clause.get("negate"))
    if clause.get("op") == "segmentMatch":
        return f"{'not ' if negate else ''}in the segment {said}"
    if clause.get("attribute") == "kind" and clause.get("op") == "in":
        return f"{'without' if negate else 'with'} the kind {said}"
    kind, attribute, operator = clause.get("contextKind") or "user", clause.get("attribute"), str(clause.get("op"))
    verb = _OPERATORS.get(operator, (operator, f"not {operator}"))[negate]
    return f"{kind} {attribute} {verb} {said}"


def rule_words(rule: Mapping[str, Any]) -> str:
    """Its clauses, all of which must match; a rule without any matches everybody."""
    return " and ".join(clause_words(clause) for _, clause in objects(rule, "clauses")) or "everybody"


def target_words(target: Mapping[str, Any]) -> str:
    """`sandbox key is "web-0"`."""
    as_clause = {"attribute": "key", "op": "in", "values": target.get("values")}
    return clause_words({**as_clause, "contextKind": target.get("contextKind")})


def rollout_words(rollout: Mapping[str, Any], variations: list[Any]) -> str:
    """`false for 50 %, true for 50 %, by sandbox key`."""
    entries = rollout["variations"]
    shares = ", ".join(
        f"{json.dumps(variations[entry['variation']])} for {entry['weight'] / 1000:g} %" for entry in entries
    )
    return f"{shares}, by {rollout.get('contextKind') or 'user'} {rollout.get('bucketBy') or 'key'}"


_LONGEST = 0xFFFFFFFFFFFFFFF


@dataclass(frozen=True, slots=True)
class Landing:
    """`bucket` is from 0 to 1, None where the context lacks the rollout's kind; `by` says what was hashed.

    The entry served covers buckets from `low` up to `high`, where the weights leave it.
    """

    kind: str
    by: str
    hashed: str | None
    bucket: float | None
    entry: int
    low: float
    high: float


def bucket_of(key: str, salt: str, value: str, seed: int | None = None) -> float:
    """From 0 to 1: the first 60 bits of SHA-1 (SDK evaluator, bucket_context); with a seed, key and salt count not."""
    prefix = f"{key}.{salt}" if seed is None else str(seed)
    digest = hashlib.sha1(f"{prefix}.{value}".encode(), usedforsecurity=False).hexdigest()
    return int(digest[:15], 16) / _LONGEST


def landing(flag: Mapping[str, Any], rollout: Mapping[str, Any], context: Mapping[str, Any]) -> Landing:
    """Where a context (to_context()'s data) lands in one rollout of a flag."""
    kind = rollout.get("contextKind") or "user"
    experiment = rollout.get("kind") == "experiment"
    by = "key" if experiment else str(rollout.get("bucketBy") or "key").removeprefix("/")
    part = context.get(kind)
    hashed = None if part is None else _hashable(part.get(by))
    bucket = None if part is None else 0.0
    if hashed is not None:
        bucket = bucket_of(flag["key"], str(flag.get("salt") or ""), hashed, rollout.get("seed"))
    entry, low, high = _entry(rollout["variations"], bucket)
    return Landing(kind, by, hashed, bucket, entry, low, high)


def _hashable(value: Any) -> str | None:
    """Text and whole numbers; anything else lands in bucket 0."""
    return str(value) if isinstance(value, str) or type(value) is int else None


def _entry(entries: list[dict[str, Any]], bucket: float | None) -> tuple[int, float, float]:
    """The entry whose share holds the bucket: the first without a bucket, the last past all shares."""
    low = 0.0
    for index, entry in enumerate(entries):
        high = low + entry["weight"] / 100_000
        if bucket is None or bucket < high or index == len(entries) - 1:
            return index, low, high if bucket is None or bucket < high else 1.0
        low = high
    raise ValueError("a rollout has at least one entry")
