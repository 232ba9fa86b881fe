"""Evaluation is LaunchDarkly's: what its public test harness asks of every server SDK, asked of ours and of explain.

conformance.json has the inputs and outcomes of the server-side evaluation cases of
https://github.com/launchdarkly/sdk-test-harness (v2.41.0, Apache-2.0), in a form of our own. `clauses` are cases of a
boolean flag with one rule: its clauses, a context, and whether it matches, null for a flag that is malformed.
Left out: values of another type than was asked for, which Python's SDK does not check (flags/catalog.py does).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flags.explain import explain
from flags.launchdarkly import Evaluator, InProcessSource, Items, make_context

CASES = Path(__file__).with_name("conformance.json")
RULE = "ruleid"
MATCHES: dict[bool | None, dict[str, Any]] = {
    True: {"reason": "RULE_MATCH", "value": True, "variation": 0, "rule": 0, "id": RULE},
    False: {"reason": "FALLTHROUGH", "value": False, "variation": 1},
    None: {"reason": "ERROR", "error": "MALFORMED_FLAG"},
}


class Group(NamedTuple):
    """Flags and segments, and for each case the flag's key, a context and what is expected."""

    of: str
    flags: Items
    segments: Items
    cases: list[tuple[str, dict[str, Any], dict[str, Any]]]


def groups() -> Iterator[Group]:
    for each in json.loads(CASES.read_text()):
        flags, cases = each.get("flags", {}), each.get("cases", [])
        for number, (clauses, context, matches) in enumerate(each.get("clauses", [])):
            rule = {"id": RULE, "variation": 0, "clauses": clauses}
            served = {"on": True, "variations": [True, False], "fallthrough": {"variation": 1}}
            flags[f"flag-{number}"] = {**served, "rules": [rule]}
            cases.append((f"flag-{number}", context, MATCHES[matches]))
        keyed = [
            {key: {"key": key, **item} for key, item in items.items()} for items in (flags, each.get("segments", {}))
        ]
        yield Group(each["of"], keyed[0], keyed[1], cases)


GROUPS = list(groups())


def said(detail: Any) -> dict[str, Any]:
    """An answer of the SDK in the form of the file."""
    reason = detail.reason
    names = {"ruleIndex": "rule", "ruleId": "id", "prerequisiteKey": "prerequisite", "errorKind": "error"}
    found = {"reason": reason["kind"]} | {name: reason[each] for each, name in names.items() if each in reason}
    if reason.get("inExperiment"):
        found["inExperiment"] = True
    if detail.variation_index is not None:
        found |= {"value": detail.value, "variation": detail.variation_index}
    return found


def multi(context: dict[str, Any]) -> dict[str, Any]:
    """The same context in the form that names each kind."""
    if context["kind"] == "multi":
        return context
    return {"kind": "multi", context["kind"]: {name: each for name, each in context.items() if name != "kind"}}


def test_all_of_the_harness_is_there() -> None:
    assert sum(len(group.cases) for group in GROUPS) > 600
    assert len({group.of for group in GROUPS}) == 26


@pytest.mark.parametrize("of", sorted({group.of for group in GROUPS}))
def test_each_case_has_its_value_and_reason_and_explain_says_the_same(of: str) -> None:
    for group in (each for each in GROUPS if each.of == of):
        with closing(Evaluator(InProcessSource(group.flags, group.segments))) as evaluator:
            for key, context, expected in group.cases:
                found = said(evaluator.answer(key, make_context(context)))
                assert found == expected, (key, context)
                (told,) = explain((group.flags, group.segments), multi(context), [key])
                assert (told.evaluation.reason.partition(":")[0], told.evaluation.variation) == (
                    expected["reason"],
                    expected.get("variation"),
                )
                assert told.because
