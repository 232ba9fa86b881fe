"""Lint that tries: each kind of mistake is planted and found, with who is punched by it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flags import lint, trying
from flags.cohort import Member, fleet_of, struck
from flags.context import ALL, ORIGINAL, Contexts
from flags.document import Mistake
from flags.inline import Rollout, flag_from
from flags.lint import check, tried

PUNCH = "memfd-punch-on-snapshot"
MEMFD = "use-memfd"
ON = flag_from(PUNCH, True)
SAFE = {**ON, "fallthrough": {"variation": 0}}
EVERY_SANDBOX = "a context that no clause names is punched"


def clause(name: str, op: str, *values: Any, kind: str = "sandbox", **more: Any) -> dict[str, Any]:
    return {"contextKind": kind, "attribute": name, "op": op, "values": list(values), **more}


def in_segment(name: str, **more: Any) -> dict[str, Any]:
    return {"attribute": "", "op": "segmentMatch", "values": [name], **more}


def rule(variation: int, *clauses: dict[str, Any]) -> dict[str, Any]:
    return {"variation": variation, "clauses": list(clauses)}


def share(*weights: tuple[int, int], kind: str = "sandbox", **more: Any) -> dict[str, Any]:
    entries = [{"variation": variation, "weight": weight} for variation, weight in weights]
    return {"rollout": {"contextKind": kind, "variations": entries, **more}}


def text_of(*flags: dict[str, Any], **segments: dict[str, Any]) -> str:
    named = {name: {"key": name, "salt": "s", **each} for name, each in segments.items()}
    return json.dumps({"flags": {each["key"]: each for each in flags}, "segments": named}, indent=1)


def found(*flags: dict[str, Any], contexts: Contexts = ORIGINAL, **segments: dict[str, Any]) -> list[Mistake]:
    return check(text_of(*flags, **segments), contexts)


def said(*flags: dict[str, Any], contexts: Contexts = ORIGINAL, **segments: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each.severity, each.text) for each in found(*flags, contexts=contexts, **segments)]


DEAD: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt operator": (clause("kernel-version", "semVerLessThen", "6.2.0"), 'unknown operator "semVerLessThen"'),
    "no values": (clause("kernel-version", "in"), "the clause has no values"),
    "no version": (clause("kernel-version", "semVerLessThan", "6.2.x"), '"6.2.x" is no version'),
    "a version compared as a number": (
        clause("kernel-version", "lessThan", "6.2"),
        "lessThan compares numbers, and sandbox kernel-version is text",
    ),
    "a number": (clause("template-id", "in", 7), "7 is not text, and sandbox template-id is text"),
    "no time": (clause("envd-version", "before", "yesterday"), '"yesterday" is no time'),
    "a kind that is not there": (
        clause("key", "in", "acme", kind="team"),
        'no context has the kind "team" when the flag is read',
    ),
    "an unknown kind": (clause("key", "in", "h1", kind="host"), 'unknown contextKind "host"'),
    "no kind": (
        {"attribute": "key", "op": "in", "values": ["web-0"]},
        '"contextKind" is missing, which means "user"',
    ),
    "an unknown attribute": (
        clause("kernel", "in", "6.1.158"),
        'unknown attribute "kernel": kind "sandbox" has no such attribute',
    ),
    "syntax that RE2 has not": (
        clause("template-id", "matches", "^(?!web)"),
        'RE2, which production uses, has no such syntax: "^(?!web)"',
    ),
    "all of it denied": (
        clause("key", "startsWith", "", negate=True),
        'no sandbox key meets not startsWith ""',
    ),
    "a misspelt kind": (
        {"attribute": "kind", "op": "in", "values": ["sandbx"]},
        'no context has the kind "sandbx" when the flag is read',
    ),
}


@pytest.mark.parametrize("name", DEAD)
def test_a_deny_rule_that_denies_nobody_is_an_error_that_says_who_is_punched(name: str) -> None:
    dead, message = DEAD[name]
    (mistake,) = found({**ON, "rules": [rule(0, dead)]})
    assert (mistake.severity, mistake.text) == ("error", message)
    assert mistake.production == f"the rule denies no context: {EVERY_SANDBOX}"


@pytest.mark.parametrize("name", DEAD)
def test_a_dead_rule_that_would_punch_is_found_too(name: str) -> None:
    dead, message = DEAD[name]
    assert [each.text for each in found({**SAFE, "rules": [rule(1, dead)]})] == [message]


@pytest.mark.parametrize(
    "live",
    [
        clause("kernel-version", "semVerLessThan", "6.2.0"),
        clause("kernel-version", "semVerGreaterThan", "6"),
        clause("kernel-version", "semVerEqual", "6.2.0-rc.1"),
        clause("template-id", "startsWith", "web-"),
        clause("template-id", "endsWith", "-old"),
        clause("template-id", "contains", "b"),
        clause("template-id", "matches", "^[a-z]{2,3}-\\d+$"),
        clause("envd-version", "before", "2026-01-31T12:00:00Z"),
        clause("envd-version", "after", 1_700_000_000_000),
        clause("/template-id", "in", "python"),
        clause("key", "in", "web-0", negate=True),
        clause("commit", "in", "abc", kind="orchestrator"),
        {"attribute": "kind", "op": "in", "values": ["sandbox"], "negate": True},
    ],
)
def test_a_clause_that_some_context_meets_is_no_mistake(live: dict[str, Any]) -> None:
    assert said({**ON, "rules": [rule(0, live)]}) == []


def test_a_deny_rule_must_deny_before_anything_is_rolled_out() -> None:
    (mistake,) = found({**SAFE, "rules": [rule(0, clause("kernel-version", "semVerLessThan", "6.2.x"))]})
    assert mistake.severity == "error"
    assert mistake.production == "the rule denies no context, also when more of them get the unsafe value"


def test_clauses_are_tried_together() -> None:
    both = [clause("key", "startsWith", "web-"), clause("key", "endsWith", "-old"), clause("key", "contains", "x")]
    assert said({**ON, "rules": [rule(0, *both)]}) == []
    exclusive = [clause("key", "in", "web-0"), clause("key", "in", "web-1")]
    (mistake,) = found({**ON, "rules": [rule(0, *exclusive)]})
    assert (mistake.severity, mistake.text) == ("error", "no context meets all clauses of the rule")


def test_versions_between_two_constants_are_tried() -> None:
    between = [
        clause("kernel-version", "semVerGreaterThan", "6.2.0"),
        clause("kernel-version", "semVerLessThan", "6.2.1"),
        clause("kernel-version", "semVerEqual", "6.2.0", negate=True),
    ]
    assert said({**ON, "rules": [rule(0, *between)]}) == []


def test_a_rule_without_clauses_that_punches_everybody_is_an_error() -> None:
    (mistake,) = found({**SAFE, "rules": [rule(1)]})
    assert (mistake.severity, mistake.text) == ("error", "every sandbox is punched by rule 1: it has no clauses")


def test_a_rule_whose_clauses_match_every_context_is_an_error() -> None:
    everybody = clause("key", "in", negate=True)
    (mistake,) = found({**SAFE, "rules": [rule(1, everybody)]})
    assert mistake.text == "every sandbox is punched by rule 1: its clauses match every context"


def test_a_rule_for_everybody_that_changes_nothing_is_a_warning() -> None:
    assert [each[0] for each in said({**ON, "rules": [rule(1)]})] == ["warning"]


def test_who_names_every_context_with_a_kind_means_it() -> None:
    assert said({**SAFE, "rules": [rule(1, {"attribute": "kind", "op": "in", "values": ["sandbox"]})]}) == []


def test_a_deny_rule_after_one_that_takes_its_contexts_is_an_error() -> None:
    rules = [rule(1, clause("key", "startsWith", "web-")), rule(0, clause("key", "in", "web-0"))]
    (mistake,) = found({**SAFE, "rules": rules})
    message = "rule 2 is never reached: rule 1 takes every context that it matches"
    assert (mistake.severity, mistake.text) == ("error", message)
    assert 'sandbox key "web-0' in mistake.production
    assert mistake.production.endswith("is punched")


def test_what_a_regular_expression_may_match_is_not_claimed_to_be_dead() -> None:
    rules = [rule(1, clause("key", "matches", ".*")), rule(0, clause("key", "in", "web-0"))]
    assert said({**SAFE, "rules": rules}) == []


def test_a_repeat_in_a_repeat_is_an_error_and_is_never_evaluated() -> None:
    slow = clause("key", "matches", "(a+)+$")
    trap = clause("key", "in", "a" * 40 + "b")
    assert said({**ON, "rules": [rule(0, slow), rule(0, trap)]}) == [
        ("error", "a regular expression repeats a repeat without bound")
    ]


def test_off_that_is_not_safe_is_an_error_and_who_is_punched_is_counted_as_if_it_were_off() -> None:
    ((mistake, who),) = tried(text_of({**SAFE, "offVariation": 1}))
    assert mistake.text == f'off serves true, so "{PUNCH}" cannot be switched off'
    assert who is not None
    assert len(struck(who, fleet_of(30)) or ()) == 30


CANARY = {"rules": [{"clauses": [], "weight": 50_000, "rolloutContextKind": "sandbox"}]}
BY_TEAM = {"rules": [{"clauses": [], "weight": 50_000, "rolloutContextKind": "team"}]}


@pytest.mark.parametrize("variation", [0, 1])
def test_a_share_by_a_kind_that_is_not_there_is_an_error(variation: int) -> None:
    flag = {**(ON if variation == 0 else SAFE), "rules": [rule(variation, in_segment("canary"))]}
    assert said(flag, canary=CANARY) == []
    assert ("error", 'no context has the kind "team" when the flag is read') in said(flag, canary=BY_TEAM)
    assert said(flag, contexts=ALL, canary=BY_TEAM) == []


@pytest.mark.parametrize(("weight", "go"), [(0, "no sandbox"), (50_000, "no sandbox")])
def test_a_share_without_its_kind_is_everybody_with_python_alone(weight: int, go: str) -> None:
    segment = {"rules": [{"clauses": [], "weight": weight}]}
    mistakes = found({**SAFE, "rules": [rule(1, in_segment("canary"))]}, canary=segment)
    (missing,) = (each for each in mistakes if "rolloutContextKind" in each.text)
    assert missing.severity == "error"
    share_of = f"the share of {weight / 1000:g} % is {go} with production's SDK (Go), every sandbox with Python's"
    assert missing.production == share_of


def test_a_share_by_an_attribute_that_is_not_there_is_everybody() -> None:
    segment = {"rules": [{"clauses": [], "weight": 1, "rolloutContextKind": "sandbox", "bucketBy": "zone"}]}
    (mistake,) = (
        each for each in found({**SAFE, "rules": [rule(1, in_segment("c"))]}, c=segment) if "bucketBy" in each.text
    )
    assert mistake.production.startswith("the share of 0.001 % is every sandbox with production's SDK (Go)")


def test_segments_are_unfolded() -> None:
    inner = {"rules": [{"clauses": [clause("kernel-version", "semVerLessThen", "6.2.0")]}]}
    outer = {"rules": [{"clauses": [in_segment("inner")]}]}
    mistakes = said({**ON, "rules": [rule(0, in_segment("outer"))]}, outer=outer, inner=inner)
    assert ("error", 'unknown operator "semVerLessThen"') in mistakes
    assert ("error", 'no sandbox is in the segment "outer"') in mistakes


def test_what_the_evaluator_cannot_bear_is_an_error() -> None:
    odd = {"attribute": "", "op": "segmentMatch", "values": [["web"]]}
    assert said({**ON, "rules": [rule(0, odd)]})[-1][0] == "error"
    kinds = {"attribute": "kind", "op": "in", "values": [["sandbox"], {}]}
    assert said({**ON, "rules": [rule(0, kinds)]})[-1][0] == "error"


def test_a_circle_of_segments_is_an_error() -> None:
    one, two = ({"rules": [{"clauses": [in_segment(name)]}]} for name in ("two", "one"))
    mistakes = said({**ON, "rules": [rule(0, in_segment("one"))]}, one=one, two=two)
    assert ("error", "segments in a circle: one -> two -> one") in mistakes


def test_a_segment_that_is_empty_on_purpose_is_a_warning() -> None:
    mistakes = said({**ON, "rules": [rule(0, in_segment("denied"))]}, denied={})
    assert mistakes == [("warning", 'no sandbox is in the segment "denied"')]


UNSAFE_FIRST = {**ON, "fallthrough": share((1, 0), (0, 100_000))}


def test_who_lacks_the_kind_of_a_rollout_is_a_witness_of_its_order() -> None:
    ((mistake, who),) = tried(text_of({**ON, "fallthrough": share((1, 1), (0, 99_999))}))
    assert mistake.text == "the unsafe variation is listed first"
    assert mistake.production.startswith('a context without the kind "sandbox" is punched at any weight')
    assert who is not None
    assert len(struck(who, fleet_of(20)) or ()) == 20


@pytest.mark.parametrize("op", ["in", "startsWith"])
def test_a_first_rule_for_contexts_without_the_kind_is_a_guard_however_it_is_written(op: str) -> None:
    guard = {"attribute": "kind", "op": op, "values": ["sandbox"], "negate": True}
    assert said({**UNSAFE_FIRST, "rules": [rule(0, guard)]}) == []


def test_launchdarklys_short_form_has_no_error() -> None:
    assert not [each for each in check(json.dumps({"flagValues": {PUNCH: True}})) if each.severity == "error"]


@pytest.mark.parametrize("name", ["rules", "targets", "contextTargets", "prerequisites", "offVariation", "salt"])
def test_null_is_as_good_as_absent(name: str) -> None:
    assert not [each for each in found({**SAFE, name: None}) if each.severity == "error"]


def test_a_flag_with_too_many_cells_is_not_tried_and_says_how_many() -> None:
    names = ("key", "template-id", "kernel-version", "firecracker-version", "envd-version", "sandbox-type")
    many = [rule(0, clause(name, "in", value)) for name in names for value in "abcd"]
    dead = rule(0, clause("key", "inn", "web-0"))
    (mistake,) = found({**ON, "rules": [*many, *many[:3], dead]})
    assert mistake.text == f'"{PUNCH}" was not tried: its rules distinguish 15,625 contexts, more than 4,096'


def test_values_that_every_clause_answers_alike_are_one_cell() -> None:
    long = clause("key", "in", *(f"web-{n}" for n in range(3_000)))
    other = clause("template-id", "in", *(f"python-{n}" for n in range(3_000)))
    assert said({**ON, "rules": [rule(0, long, other)]}) == []


def test_what_a_prerequisite_serves_is_tried() -> None:
    allowed = {**ON, "key": "punch-allowed", "rules": [rule(0, clause("key", "in", "web-0"))]}
    asking = {**ON, "prerequisites": [{"key": "punch-allowed", "variation": 0}]}
    assert said(asking, allowed) == []
    dead = {**allowed, "rules": [rule(0, clause("key", "inn", "web-0"))]}
    assert [each[1] for each in said(asking, dead)] == [
        '"punch-allowed" serves variation 0 to no sandbox',
        'unknown operator "inn"',
    ]


def test_a_share_too_small_to_find_a_member_of_proves_nothing() -> None:
    tiny = {"rules": [{"clauses": [], "weight": 1, "rolloutContextKind": "sandbox"}]}
    assert said({**SAFE, "rules": [rule(1, in_segment("tiny"))]}, tiny=tiny) == []


@pytest.fixture
def fleet() -> list[Member]:
    return fleet_of(50)


def test_who_is_punched_by_a_rule_are_those_who_would_not_be_without_it(fleet: list[Member]) -> None:
    flag = {**SAFE, "contextTargets": [{"contextKind": "sandbox", "variation": 1, "values": ["sandbox-3"]}]}
    ((_, who),) = tried(text_of({**flag, "rules": [rule(1)]}))
    assert who is not None
    members = struck(who, fleet) or ()
    assert len(members) == 49
    assert "sandbox-3" not in {each.attributes.sandbox for each in members}


def test_a_rollout_by_a_kind_that_is_not_there_strikes_whom_production_punches(fleet: list[Member]) -> None:
    found_both = tried(text_of({**ON, "fallthrough": share((1, 1_000), (0, 99_000), kind="team")}))
    assert [each.severity for each, _ in found_both] == ["error", "error"]
    assert [len(struck(who, fleet) or ()) for _, who in found_both if who is not None] == [50, 50]


def test_a_flag_that_is_off_is_tried_as_if_it_were_on() -> None:
    (mistake,) = found({**ON, "on": False, "rules": [rule(0, clause("key", "inn", "a"))]})
    assert mistake.production.endswith("is punched once the flag is on and its prerequisites are met")


def test_half_a_rollout_says_in_its_share() -> None:
    flag = {**flag_from(PUNCH, Rollout(50, "sandbox")), "rules": [rule(0, clause("key", "inn", "a"))]}
    (mistake,) = found(flag)
    assert mistake.production.endswith("is punched in its share")


def test_of_a_large_file_only_what_the_pause_path_reads_is_tried_and_only_faulty_places_are_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """10,000 flags take 1.5 s of one core; what may not happen to all of them is counted here."""
    others = [{**ON, "key": f"checkout-{n}", "rules": [rule(0, clause("key", "inn", "a"))]} for n in range(300)]
    segments: dict[str, Any] = {f"other-{n}": {"rules": [{"clauses": [clause("key", "inn", "a")]}]} for n in range(50)}
    asked: list[str] = []
    made = trying.Tried.__init__

    def counted(self: trying.Tried, question: trying.FlagQuestion) -> None:
        asked.append(question.key)
        made(self, question)

    def refuse(text: str) -> None:
        raise AssertionError(f"all places of {len(text)} characters were looked up")

    monkeypatch.setattr(trying.Tried, "__init__", counted)
    monkeypatch.setattr(lint, "parse", refuse)
    dead = {**ON, "rules": [rule(0, clause("kernel-version", "inn", "6.2.0"), in_segment("other-7"))]}
    mistakes = check(text_of(dead, *others, **segments))
    assert set(asked) == {PUNCH, "other-7"}
    assert min(each.position.line for each in mistakes) > 1
