from __future__ import annotations

import json
from typing import Any

import pytest

from flags.context import ALL
from flags.document import Mistake
from flags.inline import Rollout, flag_from
from flags.lint import check

PUNCH = "memfd-punch-on-snapshot"
MEMFD = "use-memfd"
DEDUP = "memfile-diff-dedup"
INFLIGHT = "memfd-dedup-inflight-serve"
IN_PLACE = "in-place-checkpoint"
HALF = Rollout(50, "sandbox")
NO_SANDBOX = {"attribute": "kind", "op": "in", "values": ["sandbox"], "negate": True}


def found(*flags: dict[str, Any], segments: dict[str, Any] | None = None) -> list[Mistake]:
    document = {"flags": {each["key"]: each for each in flags}, "segments": segments or {}}
    return check(json.dumps(document, indent=1), ALL)


def said(*flags: dict[str, Any], segments: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    return [(each.severity, each.text) for each in found(*flags, segments=segments)]


def unsafe_first(kind: str = "sandbox", **changes: Any) -> dict[str, Any]:
    entries = [{"variation": 1, "weight": 0}, {"variation": 0, "weight": 100_000}]
    rollout = {"rollout": {"contextKind": kind, "variations": entries}}
    return {**flag_from(PUNCH, False), "fallthrough": rollout, **changes}


def guard(*values: str, **changes: Any) -> dict[str, Any]:
    return {"variation": 0, "clauses": [{**NO_SANDBOX, "values": list(values)}], **changes}


UNSAFE_FIRST = ("error", "the unsafe variation is listed first")


def test_a_file_is_safe_by_a_first_rule_that_serves_safe_to_contexts_without_the_kind() -> None:
    assert said(unsafe_first()) == [UNSAFE_FIRST]
    assert said(unsafe_first(rules=[guard("sandbox")])) == []


@pytest.mark.parametrize(
    "rules",
    [
        [guard("team")],
        [guard("sandbox", "team")],
        [{"variation": 0, "clauses": [{**NO_SANDBOX, "negate": False}]}],
        [{"variation": 0, "clauses": [NO_SANDBOX, {**NO_SANDBOX, "values": ["team"]}]}],
    ],
)
def test_a_rule_that_lets_such_a_context_through_makes_nothing_safe(rules: list[dict[str, Any]]) -> None:
    assert UNSAFE_FIRST in said(unsafe_first(rules=rules))


def test_a_rule_for_those_who_lack_a_kind_must_not_serve_what_it_should_refuse() -> None:
    message = "rule 1 serves only contexts that lack a kind"
    assert said(unsafe_first(rules=[guard("sandbox", variation=1)])) == [("error", message)]


def test_the_guard_must_come_before_the_rollout_that_it_guards() -> None:
    rollout = {**unsafe_first()["fallthrough"], "clauses": []}
    safe_fallthrough = {"variation": 0}
    assert said(unsafe_first(rules=[guard("sandbox"), rollout], fallthrough=safe_fallthrough)) == []
    late = ("warning", "rule 2 is never reached: rule 1 takes every context that it matches")
    assert said(unsafe_first(rules=[rollout, guard("sandbox")], fallthrough=safe_fallthrough)) == [UNSAFE_FIRST, late]


def test_a_rule_that_only_matches_contexts_with_the_kind_needs_no_guard() -> None:
    clause = {"contextKind": "sandbox", "attribute": "key", "op": "startsWith", "values": ["web-"]}
    rule = {**unsafe_first()["fallthrough"], "clauses": [clause]}
    assert said(unsafe_first(rules=[rule], fallthrough={"variation": 0})) == []
    assert said(unsafe_first("team", rules=[{**rule, **unsafe_first("team")["fallthrough"]}])) == [UNSAFE_FIRST] * 2


def test_launchdarklys_boolean_default_is_judged_by_the_order_of_the_rollout_not_of_the_variations() -> None:
    entries = [{"variation": 1, "weight": 100_000}, {"variation": 0, "weight": 0}]
    rollout = {"rollout": {"contextKind": "sandbox", "variations": entries}}
    assert (
        said({**flag_from(PUNCH, False), "variations": [True, False], "offVariation": 1, "fallthrough": rollout}) == []
    )


def test_the_mend_is_a_first_rule_and_never_another_order_which_would_draw_another_cohort() -> None:
    (finding,) = found(unsafe_first())
    assert finding.hint.startswith("let a first rule serve false to contexts without the kind, by the clause {")
    assert "list" not in finding.hint
    assert "at any weight" in finding.production


@pytest.mark.parametrize("by", ["zone", "/zone", "template"])
def test_an_unknown_bucket_by_is_an_error(by: str) -> None:
    flag = flag_from(PUNCH, HALF)
    flag["fallthrough"]["rollout"]["bucketBy"] = by
    message = f'unknown bucketBy "{by.removeprefix("/")}": kind "sandbox" has no such attribute'
    assert said(flag) == [("error", message)]


@pytest.mark.parametrize("by", ["key", "/key", "template-id", "/kernel-version"])
def test_a_known_bucket_by_is_none(by: str) -> None:
    flag = flag_from(PUNCH, HALF)
    flag["fallthrough"]["rollout"]["bucketBy"] = by
    assert said(flag) == []


@pytest.mark.parametrize(("variation", "severity"), [(0, "error"), (1, "warning")])
def test_an_attribute_that_the_kind_lacks_is_an_error_where_the_rule_should_deny(variation: int, severity: str) -> None:
    clause = {"contextKind": "sandbox", "attribute": "template", "op": "in", "values": ["python"]}
    flag = {**flag_from(PUNCH, HALF), "rules": [{"variation": variation, "clauses": [clause]}]}
    (finding,) = found(flag)
    assert (finding.severity, finding.hint) == (severity, 'did you mean "template-id"?')


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"targets": [{"values": [], "variation": 0}]}, None),
        ({"contextTargets": [{"contextKind": "user", "values": [], "variation": 0}]}, None),
        (
            {"targets": [{"values": ["web-0"], "variation": 0}]},
            ("warning", '"targets" are of kind "user", which no sandbox has'),
        ),
        (
            {"contextTargets": [{"contextKind": "user", "values": ["web-0"], "variation": 0}]},
            ("warning", 'unknown contextKind "user"'),
        ),
        (
            {"contextTargets": [{"contextKind": "host", "values": ["h1"], "variation": 0}]},
            ("error", 'unknown contextKind "host"'),
        ),
    ],
)
def test_what_is_meant_for_users_is_a_warning_and_an_empty_target_nothing(
    changes: dict[str, Any], finding: tuple[str, str] | None
) -> None:
    assert said({**flag_from(PUNCH, HALF), **changes}) == ([finding] if finding else [])


def test_a_rollout_by_user_is_an_error() -> None:
    flag = flag_from(PUNCH, HALF)
    flag["fallthrough"]["rollout"]["contextKind"] = "user"
    assert said(flag) == [("error", 'unknown contextKind "user"')]


def test_the_weights_past_the_whole_are_told_as_such() -> None:
    flag = flag_from(PUNCH, HALF)
    flag["fallthrough"]["rollout"]["variations"][0]["weight"] = 90_000
    (finding,) = found(flag)
    assert finding.production == "entries past 100 % get less than their weight, or no sandbox"


def test_an_object_of_the_wrong_shape_is_an_error_and_an_unknown_setting_a_warning() -> None:
    flag = {**flag_from(DEDUP, {"enabled": True}), "variations": [{"enabled": False}, {"enabled": 1}]}
    assert said(flag) == [("error", 'variation {"enabled": 1} is not an object of its settings')]
    flag = {**flag, "variations": [{"enabled": False}, {"enabled": True, "directIo": True}]}
    assert said(flag) == [("warning", 'unknown setting "directIo"')]


def allowed(**changes: Any) -> dict[str, Any]:
    return {**flag_from(PUNCH, True), "key": "punch-allowed", "salt": "x", **changes}


def asking(*wanted: tuple[str, object]) -> dict[str, Any]:
    asked = [{"key": key, "variation": variation} for key, variation in wanted]
    return {**flag_from(PUNCH, True), "prerequisites": asked}


@pytest.mark.parametrize(
    ("flags", "finding"),
    [
        ([asking(("punch-allowed", 1)), allowed()], None),
        ([asking(("punch-alowed", 1)), allowed()], ("error", 'the prerequisite "punch-alowed" is not in the file')),
        ([asking(("punch-allowed", 5)), allowed()], ("error", '"punch-allowed" has no variation 5')),
        ([asking(("punch-allowed", 1)), allowed(on=False)], ("warning", 'the prerequisite "punch-allowed" is off')),
        ([asking(("punch-allowed", 0)), allowed()], ("warning", '"punch-allowed" serves variation 0 to no sandbox')),
        (
            [asking((PUNCH, 1))],
            ("error", f"prerequisites in a circle: {PUNCH} -> {PUNCH}"),
        ),
    ],
)
def test_a_prerequisite_that_can_never_hold_is_found(
    flags: list[dict[str, Any]], finding: tuple[str, str] | None
) -> None:
    kept = [each for each in said(*flags) if not each[1].startswith("not of the pause path")]
    assert kept == ([] if finding is None else [finding])


def test_a_circle_is_told_with_all_its_flags() -> None:
    flags = [asking(("a", 1)), allowed(key="a", prerequisites=[{"key": "b", "variation": 1}])]
    flags.append(allowed(key="b", prerequisites=[{"key": PUNCH, "variation": 1}]))
    assert ("error", f"prerequisites in a circle: {PUNCH} -> a -> b -> {PUNCH}") in said(*flags)


def test_a_prerequisite_of_a_prerequisite_counts() -> None:
    between = allowed(prerequisites=[{"key": "root", "variation": 1}])
    flags = [asking(("punch-allowed", 1)), between, allowed(key="root", on=False)]
    assert said(*flags) == [
        ("warning", '"punch-allowed" serves variation 1 to no sandbox'),
        ("warning", 'the prerequisite "root" is off'),
    ]


def test_a_flag_that_others_ask_for_must_not_list_the_asked_variation_first() -> None:
    rollout = unsafe_first()["fallthrough"]
    assert said(asking(("punch-allowed", 1)), allowed(fallthrough=rollout)) == [
        ("warning", '"punch-allowed" serves variation 1 to no sandbox'),
        UNSAFE_FIRST,
    ]


def in_segment(name: str, **changes: Any) -> dict[str, Any]:
    clause = {"attribute": "", "op": "segmentMatch", "values": [name], **changes}
    return {**flag_from(PUNCH, HALF), "rules": [{"variation": 0, "clauses": [clause]}]}


@pytest.mark.parametrize(("negate", "which"), [(False, "no sandbox"), (True, "every sandbox")])
def test_a_segment_that_is_not_in_the_file_is_found(negate: bool, which: str) -> None:
    (finding,) = found(in_segment("kept", negate=negate))
    assert finding.text == 'the segment "kept" is not in the file'
    assert finding.production == f"the clause silently matches {which}"


@pytest.mark.parametrize(
    ("segment", "finding"),
    [
        ({"includedContexts": [{"contextKind": "team", "values": ["acme"]}]}, None),
        ({"included": ["acme"]}, ("warning", '"included" lists keys of kind "user", which no sandbox has')),
        ({"excluded": ["acme"]}, ("warning", '"excluded" lists keys of kind "user", which no sandbox has')),
        ({"unbounded": True}, ("error", '"kept" is a big segment, whose members are not in the file')),
        (
            {"rules": [{"clauses": [{"contextKind": "host", "attribute": "key", "op": "in", "values": []}]}]},
            ("error", 'unknown contextKind "host"'),
        ),
    ],
)
def test_a_segment_that_matches_no_sandbox_is_found(segment: dict[str, Any], finding: tuple[str, str] | None) -> None:
    severity = "error" if segment.keys() & {"included", "rules"} else "warning"  # else it may be empty on purpose
    nobody = (severity, 'no sandbox is in the segment "kept"')
    expected = [nobody, finding] if finding else []
    assert said(in_segment("kept"), segments={"kept": {"key": "kept", **segment}}) == expected


DEDUP_ON = flag_from(DEDUP, {"enabled": True})


@pytest.mark.parametrize(
    ("flags", "finding"),
    [
        ([flag_from(MEMFD, True)], None),
        ([flag_from(MEMFD, Rollout(99, "sandbox"))], ("warning", f'"{PUNCH}" is void where "{MEMFD}" is off')),
        ([flag_from(MEMFD, False)], ("warning", f'"{PUNCH}" is void where "{MEMFD}" is off')),
        (
            [flag_from(IN_PLACE, True), flag_from("use-sync-wp", True)],
            ("warning", f'"{PUNCH}" is void with "{IN_PLACE}"'),
        ),
        ([flag_from(INFLIGHT, True), DEDUP_ON], ("error", f'"{PUNCH}" is illegal with "{INFLIGHT}"')),
        ([flag_from(INFLIGHT, Rollout(1, "team")), DEDUP_ON], ("error", f'"{PUNCH}" is illegal with "{INFLIGHT}"')),
        ([flag_from(INFLIGHT, False), DEDUP_ON], None),
        ([DEDUP_ON], None),
    ],
)
@pytest.mark.parametrize("punch", [flag_from(PUNCH, True), flag_from(PUNCH, Rollout(1, "sandbox"))])
def test_a_void_or_illegal_combination_is_found(
    punch: dict[str, Any], flags: list[dict[str, Any]], finding: tuple[str, str] | None
) -> None:
    assert said(punch, *flags) == ([finding] if finding else [])


@pytest.mark.parametrize(
    "punch",
    [
        flag_from(PUNCH, False),
        flag_from(PUNCH, Rollout(0, "sandbox")),
        {**flag_from(PUNCH, True), "on": False},
        None,
    ],
)
def test_what_nobody_is_served_combines_with_nothing(punch: dict[str, Any] | None) -> None:
    flags = [flag_from(MEMFD, False), flag_from(INFLIGHT, True), DEDUP_ON, *([punch] if punch else [])]
    assert said(*flags) == []


def test_in_flight_serving_without_dedup_is_void_and_a_trap() -> None:
    assert said(flag_from(PUNCH, True), flag_from(INFLIGHT, True)) == [
        ("warning", f'"{INFLIGHT}" has no effect: it needs "{DEDUP}", which is never on'),
        ("warning", f'"{PUNCH}" is illegal with "{INFLIGHT}", once "{DEDUP}" is on'),
    ]
