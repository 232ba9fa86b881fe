from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UserError
from flags.edit import Ids, Place, instruction, share_of, turned_on, variation_of, with_share

HERE, RULE = Place(), Place("browsers")


def flag(fallthrough: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "key": "punch", "on": True, "variations": [True, False], "salt": "own", "offVariation": 1,
        "rules": [{"id": "browsers", "variation": 1, "clauses": []}], "fallthrough": fallthrough, **more,
    }  # fmt: skip


def rollout(*entries: tuple[int, int], **more: Any) -> dict[str, Any]:
    listed = [{"variation": variation, "weight": weight} for variation, weight in entries]
    return {"rollout": {"contextKind": "sandbox", "variations": listed, **more}}


def entries(served: dict[str, Any]) -> list[tuple[int, int]]:
    return [(each["variation"], each["weight"]) for each in served["rollout"]["variations"]]


def test_a_fixed_variation_becomes_a_rollout_in_the_order_of_the_variations() -> None:
    made = with_share(flag({"variation": 1}), True, 5, Place(by="team"))
    assert made["fallthrough"] == {
        "rollout": {
            "contextKind": "team",
            "variations": [{"variation": 0, "weight": 5000}, {"variation": 1, "weight": 95_000}],
        }
    }
    assert entries(with_share(flag({"variation": 0}), True, 5, HERE)["fallthrough"]) == [(0, 5000), (1, 95_000)]


def test_an_existing_rollout_keeps_its_order_and_its_own_settings() -> None:
    known = flag(rollout((1, 95_000), (0, 5000), bucketBy="group", seed=7))
    made = with_share(known, True, 25, HERE)["fallthrough"]
    assert entries(made) == [(1, 75_000), (0, 25_000)]
    assert (made["rollout"]["bucketBy"], made["rollout"]["seed"]) == ("group", 7)


def test_other_entries_share_the_rest_in_their_old_proportion() -> None:
    three = flag(rollout((2, 30_000), (0, 10_000), (1, 60_000)), variations=[True, False, "slow"])
    assert entries(with_share(three, True, 50, HERE)["fallthrough"]) == [(2, 16_667), (0, 50_000), (1, 33_333)]
    assert entries(with_share(three, True, 100, HERE)["fallthrough"]) == [(2, 0), (0, 100_000), (1, 0)]


def test_from_100_percent_down_the_rest_goes_to_the_off_variation() -> None:
    three = flag(rollout((2, 0), (0, 100_000), (1, 0)), variations=[True, False, "slow"])
    assert entries(with_share(three, True, 10, HERE)["fallthrough"]) == [(2, 0), (0, 10_000), (1, 90_000)]


def test_an_entry_that_is_not_there_is_put_last() -> None:
    assert entries(with_share(flag(rollout((1, 100_000))), True, 5, HERE)["fallthrough"]) == [(1, 95_000), (0, 5000)]


def test_a_rule_is_edited_alone_and_a_stage_changes_nothing_else() -> None:
    known = flag({"variation": 1})
    before = deepcopy(known)
    made = with_share(known, True, 20, RULE)
    assert known == before
    assert entries(made["rules"][0]) == [(0, 20_000), (1, 80_000)]
    assert made["rules"][0]["clauses"] == []
    del made["rules"], before["rules"]
    assert made == before


@pytest.mark.parametrize(
    ("known", "place", "says"),
    [
        (flag({"variation": 1}), Place("brwsers"), 'no rule "brwsers"; it has "browsers"'),
        (flag({"variation": 1}, rules=[]), RULE, "its rules have no ids"),
        (flag({"variation": 1}, rules=[{"id": "a"}, {"id": "a"}]), HERE, 'two rules with the id "a"'),
        (flag({"variation": 1}, variations=[1, 0]), HERE, "has no variation true"),
        (flag({"variation": 1}, variations=[True, True]), HERE, "has 2 variations that are true"),
        (flag({}), HERE, "serves nothing"),
        (flag(rollout((0, 1), (1, 99_999), experimentAllocation={"type": "measuredRollout"})), HERE, "guarded"),
        (flag(rollout((0, 1), (1, 99_999), kind="experiment")), HERE, 'of kind "experiment"'),
    ],
)
def test_what_no_edit_can_say_is_refused_with_the_reason(known: dict[str, Any], place: Place, says: str) -> None:
    with pytest.raises(UserError, match=says):
        with_share(known, True, 5, place)


def test_the_share_of_a_place_is_read_as_it_is_served() -> None:
    assert share_of(flag({"variation": 0}), True, HERE) == 100
    assert share_of(flag(rollout((1, 95_000), (0, 4000), (0, 1000))), True, HERE) == 5
    assert share_of(flag({"variation": 0}), True, RULE) == 0
    assert variation_of({"key": "a", "variations": [1, True]}, True) == 1


def test_a_patch_has_the_ids_of_an_export_and_placeholders_without_one() -> None:
    stage = with_share(flag({"variation": 1}), True, 5, HERE)
    made = instruction(stage, HERE, Ids(("f1a0", "f1a1")))
    assert made == {
        "kind": "updateFallthroughVariationOrRollout",
        "rolloutContextKind": "sandbox",
        "rolloutWeights": {"f1a0": 5000, "f1a1": 95_000},
    }
    assert instruction(stage, HERE, Ids())["rolloutWeights"] == {
        "VARIATION_ID_OF_TRUE": 5000,
        "VARIATION_ID_OF_FALSE": 95_000,
    }
    assert (Ids().complete(stage), Ids(("a", "b")).complete(stage)) == (False, True)


def test_the_inverse_is_the_instruction_of_the_flag_before() -> None:
    before = flag({"variation": 1})
    assert instruction(before, RULE, Ids(("f1a0", "f1a1"))) == {
        "kind": "updateRuleVariationOrRollout",
        "ruleId": "browsers",
        "variationId": "f1a1",
    }
    bucketed = flag(rollout((0, 5000), (1, 95_000), bucketBy="group"))
    assert instruction(bucketed, HERE, Ids())["rolloutBucketBy"] == "group"


def test_turning_a_flag_on_changes_nothing_else() -> None:
    off = flag({"variation": 1}, on=False)
    assert turned_on(off) == {**off, "on": True}


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50_000)), min_size=1, max_size=5),
    st.integers(0, 100_000),
)
def test_weights_always_sum_to_a_whole_and_the_share_is_the_one_asked_for(
    drawn: list[tuple[int, int]], share: int
) -> None:
    known = flag(rollout(*drawn), variations=[False, "a", True, "b"], offVariation=0)
    made = with_share(known, True, share / 1000, HERE)
    found = entries(made["fallthrough"])
    assert sum(weight for _, weight in found) == 100_000
    assert all(weight >= 0 for _, weight in found)
    assert share_of(made, True, HERE) == pytest.approx(share / 1000)
    assert [variation for variation, _ in found][: len(drawn)] == [variation for variation, _ in drawn]
