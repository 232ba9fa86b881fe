from __future__ import annotations

import json
from typing import Any

import pytest

from flags import lint
from flags.context import ALL
from flags.document import Mistake, Position
from flags.inline import Rollout, flag_from
from flags.lint import check

PUNCH = "memfd-punch-on-snapshot"
BACKGROUND = "memfd-background-copy"
HALF = Rollout(50, "sandbox")


def findings(**changes: Any) -> list[Mistake]:
    return check(json.dumps({"flags": {PUNCH: {**flag_from(PUNCH, HALF), **changes}}}, indent=1), ALL)


def messages(**changes: Any) -> list[str]:
    return [each.text for each in findings(**changes)]


def rollout(*entries: tuple[int, object], **changes: Any) -> dict[str, Any]:
    weighted = [{"variation": variation, "weight": weight} for variation, weight in entries]
    return {"rollout": {"contextKind": "sandbox", "variations": weighted, **changes}}


def test_a_sound_file_has_no_findings() -> None:
    assert findings() == []


def test_the_order_of_the_variations_themselves_does_not_matter() -> None:
    served = rollout((1, 50_000), (0, 50_000))
    assert findings(variations=[True, False], offVariation=1, fallthrough=served) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": "other"}, f'"key" is "other" inside "{PUNCH}"'),
        ({"variations": []}, f'"{PUNCH}" has no variations'),
        ({"variations": [False, "true"]}, 'variation "true" is not a boolean'),
        ({"on": "yes"}, f'LaunchDarkly refuses "{PUNCH}": "on": it must be true or false, and it is text'),
        ({"offVariation": 2}, "variation 2 is out of range"),
        ({"offVariation": 1}, f'off serves true, so "{PUNCH}" cannot be switched off'),
        ({"fallthrough": None}, "neither a variation nor a rollout is served"),
        ({"fallthrough": {}}, "neither a variation nor a rollout is served"),
        ({"fallthrough": {"variation": 7}}, "variation 7 is out of range"),
        ({"fallthrough": {"variation": True}}, "variation true is out of range"),
        ({"fallthrough": {"variation": -1}}, "variation -1 is out of range"),
        ({"fallthrough": rollout()}, "the rollout has no variations"),
        ({"fallthrough": rollout((0, 50_000), (5, 50_000))}, "variation 5 is out of range"),
        (
            {"fallthrough": rollout((0, 50_000.0), (1, 50_000))},
            f'LaunchDarkly refuses "{PUNCH}": "weight": it must be a whole number, and it is a number with a point',
        ),
        ({"fallthrough": rollout((0, True), (1, 99_999))}, "weight true is not an integer from 0 to 100000"),
        (
            {"fallthrough": rollout((0, 50_000), (1, 10_000))},
            "the weights sum to 60000",
        ),
        (
            {"fallthrough": rollout((1, 0), (0, 100_000))},
            "the unsafe variation is listed first",
        ),
        ({"fallthrough": rollout((0, 100_000), contextKind="sandbx")}, 'unknown contextKind "sandbx"'),
        ({"rules": [{"variation": 9, "clauses": []}]}, "variation 9 is out of range"),
        (
            {"rules": [{"variation": 0, "clauses": [{"attribute": "key", "op": "in", "values": []}]}]},
            '"contextKind" is missing, which means "user"',
        ),
        ({"contextTargets": [{"variation": 0, "values": ["web-0"]}]}, '"contextKind" is missing, which means "user"'),
        (
            {"contextTargets": [{"contextKind": "team", "variation": 3, "values": ["acme"]}]},
            "variation 3 is out of range",
        ),
    ],
)
def test_one_mistake_is_one_error(changes: dict[str, Any], message: str) -> None:
    found = findings(**changes)
    assert [(each.severity, each.text) for each in found] == [("error", message)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offVariation": None}, f'"{PUNCH}" has no "offVariation"'),
        ({"fallthrough": {"variation": 0, **rollout((0, 100_000))}}, "a rollout beside a variation"),
    ],
)
def test_what_launchdarkly_takes_in_its_own_way_is_a_warning(changes: dict[str, Any], message: str) -> None:
    assert [(each.severity, each.text) for each in findings(**changes)] == [("warning", message)]


@pytest.mark.parametrize("missing", ["key", "variations", "fallthrough", "on"])
def test_a_missing_part_is_an_error_at_the_part_that_lacks_it(missing: str) -> None:
    broken = flag_from(PUNCH, True)
    del broken[missing]
    found = check(json.dumps({"flags": {PUNCH: broken}}, indent=1), ALL)
    assert [(*each.position, each.severity) for each in found] == [(3, 3, "error")]


def test_a_rollout_without_a_context_kind_is_an_error() -> None:
    served = rollout((0, 100_000))
    del served["rollout"]["contextKind"]
    assert messages(fallthrough=served) == ['"contextKind" is missing, which means "user"']


def test_a_segment_clause_needs_no_context_kind() -> None:
    clause = {"attribute": "", "op": "segmentMatch", "values": ["kept"]}
    flags = {PUNCH: {**flag_from(PUNCH, HALF), "rules": [{"variation": 0, "clauses": [clause]}]}}
    kept = {"key": "kept", "includedContexts": [{"contextKind": "sandbox", "values": ["web-0"]}]}
    assert check(json.dumps({"flags": flags, "segments": {"kept": kept}}), ALL) == []


def test_background_copy_may_be_switched_off_by_off() -> None:
    flag = {**flag_from(BACKGROUND, True), "offVariation": 1}
    assert check(json.dumps({"flags": {BACKGROUND: flag}})) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "the document is not an object"),
        ("{}", '"flags" is missing'),
        ('{"flags": []}', '"flags" is not an object'),
        ('{"flags": {}, "segments": 1}', '"segments" is not an object'),
        (f'{{"flags": {{"{PUNCH}": true}}}}', f'"{PUNCH}" is not an object'),
        ('{"flags": {}, "flagz": {}}', 'unknown key "flagz"'),
        ('{"flags": {}, "segments": {"kept": {}}}', '"kept" has no "key"'),
    ],
)
def test_a_misshapen_document_is_an_error(text: str, message: str) -> None:
    assert [(each.severity, each.text) for each in check(text)] == [("error", message)]


def test_an_unknown_top_level_key_is_answered_with_the_nearest_known_one() -> None:
    (found,) = check('{"flags": {}, "flagz": {}}')
    assert str(found) == ':1:15: error: unknown key "flagz"; did you mean "flags"?'


def test_an_unknown_flag_is_a_warning_with_the_nearest_known_one() -> None:
    key = "memfd-punch-on-snapshots"
    found = check(json.dumps({"flags": {key: {**flag_from(PUNCH, True), "key": key}}}))
    assert [str(each) for each in found] == [
        f':1:12: warning: unknown flag "{key}" is ignored; did you mean "memfd-punch-on-snapshot"?'
    ]


def test_flags_of_other_parts_are_one_warning_and_are_not_looked_into() -> None:
    found = check(json.dumps({"flags": {f"checkout-{n}": {"key": f"checkout-{n}"} for n in range(8)}}))
    assert [(each.severity, each.text) for each in found] == [
        (
            "warning",
            "not of the pause path, and ignored: checkout-0, checkout-1, checkout-2, checkout-3, checkout-4 and 3 more",
        )
    ]


def test_a_prerequisite_need_not_be_in_the_catalogue() -> None:
    allowed = {**flag_from(PUNCH, True), "key": "punch-allowed"}
    punch = {**flag_from(PUNCH, True), "prerequisites": [{"key": "punch-allowed", "variation": 1}]}
    assert check(json.dumps({"flags": {PUNCH: punch, "punch-allowed": allowed}})) == []


def test_a_duplicate_key_is_an_error_at_its_second_place() -> None:
    (found,) = check('{"flags": {},\n "flags": {}}')
    assert str(found) == ':2:2: error: duplicate key "flags"; keep one of the two'


def test_what_is_not_json_is_one_error_with_its_place() -> None:
    found = check('{"flags": {},}')
    assert [(*each.position, each.severity) for each in found] == [(1, 14, "error")]


def test_a_finding_reads_as_path_place_severity_what_and_what_to_do() -> None:
    finding = Mistake(Position(3, 7), "", "variation 7 is out of range", "use 0 to 1", "flags.json")
    assert str(finding) == "flags.json:3:7: error: variation 7 is out of range; use 0 to 1"


@pytest.mark.parametrize("junk", [None, 0, "x", [], [1], [[]], {}, {"variations": 3}, {"rollout": []}])
@pytest.mark.parametrize(
    "part",
    ["key", "on", "variations", "offVariation", "fallthrough", "rules", "targets", "contextTargets", "prerequisites"],
)
def test_junk_anywhere_is_a_finding_or_nothing_but_never_a_crash(part: str, junk: object) -> None:
    meant = {("offVariation", None)}
    assert all(each.severity == "error" for each in findings(**{part: junk})) or (part, junk) in meant


@pytest.mark.timeout(10)
def test_a_hundred_thousand_flags_that_no_pause_asks_for_are_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lint, "nearest", lambda *_: None)
    (found,) = vars(lint)["_unknown"]({f"f{number}": {} for number in range(100_000)}, {})
    assert found.message.endswith("f0, f1, f2, f3, f4 and 99995 more")
