"""Why one sandbox gets its value: the SDK's own reasons, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flags.catalog import FLAGS
from flags.context import Moment
from flags.decision import Evaluation, reason_of, rule_of
from flags.launchdarkly import Evaluator, InProcessSource, Items, make_context
from flags.launchdarkly_fleet import bucket_in
from flags.unsafe import UNSAFE_FLAG


@dataclass(frozen=True, slots=True)
class Explanation:
    """One flag's evaluation, the sentences that lead to it, and where the context landed in a rollout, if in one."""

    evaluation: Evaluation
    because: tuple[str, ...]
    landing: Landing | None


def explain(sections: tuple[Items, Items], context: dict[str, Any], keys: list[str]) -> list[Explanation]:
    """Each of these flags for a multi-kind context in LaunchDarkly's JSON form, as production serves it.

    UserError where the context is invalid.
    """
    evaluator = Evaluator(InProcessSource(*sections))
    try:
        return [_Teller(evaluator, context, key).explanation() for key in keys]
    finally:
        evaluator.close()


class _Teller:
    """Finds the part of a flag that an answer names."""

    def __init__(self, evaluator: Evaluator, context: dict[str, Any], key: str) -> None:
        self._evaluator, self._key = evaluator, key
        self._context, self._data = make_context(context), context
        self._flag = evaluator.model("flags", key)
        self._answer = evaluator.answer(key, self._context)

    def explanation(self) -> Explanation:
        evaluation = self._evaluation()
        if self._flag is None:
            why = "it is not in the file, so its safe value is served"
            return Explanation(evaluation, (why,), None)
        lands = self._landing()
        return Explanation(evaluation, (*self._because(evaluation), *self._differences()), lands)

    def _evaluation(self) -> Evaluation:
        if self._key in FLAGS:
            return self._evaluator.evaluate(FLAGS[self._key], self._context)
        answer: Any = self._answer
        version = None if self._flag is None else self._flag.version
        said, rule = reason_of(answer.reason), rule_of(answer.reason)
        return Evaluation(self._key, answer.value, said, answer.variation_index, version, rule, "VALID")

    def _because(self, evaluation: Evaluation) -> Iterator[str]:
        flag, reason = self._flag, self._answer.reason
        if evaluation.reason == "WRONG_TYPE":
            yield f"variation {evaluation.variation} is not of this flag's type, so its safe value is served"
        elif reason["kind"] == "OFF":
            yield "the flag is off" + ("" if flag.off_variation is not None else " and has no off variation")
        elif reason["kind"] == "PREREQUISITE_FAILED":
            yield self._prerequisite(str(reason["prerequisiteKey"]))
        elif reason["kind"] == "TARGET_MATCH":
            yield self._target()
        elif reason["kind"] == "RULE_MATCH":
            index = int(reason["ruleIndex"])
            rule = flag.rules[index]
            yield f"rule {index + 1} matches: {rule_words(rule)}; it serves {self._serves(rule.variation_or_rollout)}"
        elif reason["kind"] == "FALLTHROUGH":
            yield f"{_unmatched(flag)} is served {self._serves(flag.fallthrough)}"
        else:
            yield "LaunchDarkly cannot evaluate the flag, so its safe value is served; `flags lint` says why"

    def _differences(self) -> Iterator[str]:
        """Where Python's SDK, or a following node, would serve something else."""
        python = self._evaluator.answer(self._key, self._context, as_go=False)
        if (python.variation_index, python.value) != (self._answer.variation_index, self._answer.value):
            yield f"Python's SDK serves {json.dumps(python.value)} instead; so may other SDKs"
        for why in self._evaluator.unsafe(self._data).get(self._key, ()):
            yield f"a following node serves the safe value ({UNSAFE_FLAG}): {why}"

    def _prerequisite(self, key: str) -> str:
        """The one that the SDK names: the first that is not met."""
        needed = self._evaluator.model("flags", key)
        wanted = next(each.variation for each in self._flag.prerequisites if each.key == key)
        if needed is None:
            return f'the prerequisite "{key}" is not in the file'
        if not needed.on:
            return f'the prerequisite "{key}" is off, which never counts as met'
        served = self._evaluator.answer(key, self._context).variation_index
        return f'the prerequisite "{key}" must serve variation {wanted} and serves {served}'

    def _target(self) -> str:
        variation = self._answer.variation_index
        for target in (*self._flag.context_targets, *self._flag.targets):
            kind = target.context_kind or "user"
            mine = self._data.get(kind, {}).get("key")
            if target.variation == variation and mine in target.values:
                return f'it is a target: {kind} "{mine}" is listed for variation {variation}'
        return f"it is a target of variation {variation}"

    def _serves(self, part: Any) -> str:
        if part.variation is None and part.rollout is not None:
            return rollout_words(part.rollout, self._flag.variations)
        return _variation(part.variation, self._flag.variations)

    def _landing(self) -> Landing | None:
        reason = self._answer.reason
        if reason["kind"] == "RULE_MATCH":
            part = self._flag.rules[int(reason["ruleIndex"])].variation_or_rollout
        elif reason["kind"] == "FALLTHROUGH":
            part = self._flag.fallthrough
        else:
            return None
        if part.variation is not None or part.rollout is None or not part.rollout.variations:
            return None
        return landing(self._flag, part.rollout, self._context, self._data)


def _variation(index: int | None, variations: list[Any]) -> str:
    if index is None:
        return "nothing"
    return json.dumps(variations[index]) if 0 <= index < len(variations) else f"variation {index}, which it has not"


def _unmatched(flag: Any) -> str:
    rules = [rule_words(rule) for rule in flag.rules]
    targets = [target_words(target) for target in (*flag.targets, *flag.context_targets) if target.values]
    missed = [*(f"target {each}" for each in targets), *(f"rule {i} ({each})" for i, each in enumerate(rules, 1))]
    return f"no match: {'; '.join(missed)}; every other context" if missed else "every context"


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


def clause_words(clause: Any) -> str:
    """`team key is "acme" or "apex"`, of a clause in the SDK's model."""
    return _words(
        clause.context_kind or "user", clause.attribute.path, clause.op, clause.values, negate=bool(clause.negate)
    )


def _words(kind: str, attribute: str, operator: str, values: Any, *, negate: bool = False) -> str:
    said = " or ".join(map(json.dumps, values)) or "nothing"
    if operator == "segmentMatch":
        return f"{'not ' if negate else ''}in the segment {said}"
    if attribute == "kind" and operator == "in":
        return f"{'without' if negate else 'with'} the kind {said}"
    verb = _OPERATORS.get(operator, (operator, f"not {operator}"))[negate]
    return f"{kind} {attribute} {verb} {said}"


def rule_words(rule: Any) -> str:
    """Its clauses, all of which must match; a rule without any matches every context."""
    return " and ".join(map(clause_words, rule.clauses)) or "every context"


def target_words(target: Any) -> str:
    """`sandbox key is "web-0"`."""
    return _words(target.context_kind or "user", "key", "in", sorted(target.values))


def rollout_words(rollout: Any, variations: list[Any]) -> str:
    """`false for 50 %, true for 50 %, by sandbox key`."""
    shares = ", ".join(
        f"{_variation(entry.variation, variations)} for {entry.weight / 1000:g} %" for entry in rollout.variations
    )
    return f"{shares}, by {rollout.context_kind or 'user'} {_bucket_by(rollout)}"


def _bucket_by(rollout: Any) -> str:
    return "key" if rollout.is_experiment or rollout.bucket_by is None else str(rollout.bucket_by.path)


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


def landing(flag: Any, rollout: Any, context: Any, data: Mapping[str, Any]) -> Landing:
    """Where a context lands in one rollout of a flag; both are the SDK's models, `data` is the context as JSON."""
    kind, by = rollout.context_kind or "user", _bucket_by(rollout)
    reference = None if rollout.is_experiment else rollout.bucket_by
    bucket = bucket_in(context, rollout.context_kind, flag.key, flag.salt, reference, rollout.seed)
    value = _looked_up(data, kind, by)
    hashed = str(value) if isinstance(value, str) or type(value) is int else None
    entry, low, high = _entry(rollout.variations, max(bucket, 0.0))
    return Landing(kind, by, hashed, None if bucket < 0 else bucket, entry, low, high)


def _looked_up(data: Mapping[str, Any], kind: str, by: str) -> Any:
    value: Any = kind if by == "kind" and kind in data else data.get(kind)
    if by == "kind":
        return value
    for name in by.removeprefix("/").split("/"):
        value = value.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(value, Mapping) else None
    return value


def _entry(entries: Any, bucket: float) -> tuple[int, float, float]:
    """The entry whose share holds the bucket, the last where none does: as the SDK adds the weights up."""
    low = 0.0
    for index, entry in enumerate(entries):
        high = low + entry.weight / 100_000.0
        if bucket < high or index == len(entries) - 1:
            return index, low, high if bucket < high else 1.0
        low = high
    raise ValueError("a rollout has at least one entry")


def moment_of(key: str, moment: Moment | None) -> Moment:
    """When a flag is looked at: as asked, else when it is read; a pause for one that is not of the pause path."""
    if moment is not None:
        return moment
    return FLAGS[key].moments[0] if key in FLAGS else "pause"
