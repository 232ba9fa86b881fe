"""Why one sandbox gets the value it gets: LaunchDarkly's own evaluation, told in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flags.bucket import Landing, landing
from flags.catalog import FLAGS, Flag
from flags.clauses import rollout_words, rule_words, target_words
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
