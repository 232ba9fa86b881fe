"""A fleet asked again after an edit of its flag gets what a fleet that was never asked gets."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest

from engine.errors import UserError
from flags.catalog import FLAGS
from flags.edit import Place, with_share
from flags.launchdarkly import make_context
from flags.launchdarkly_fleet import FixedFlags, FleetEvaluator
from tests.production_fleet import KEY, Sandbox, flags, production_fleet

Document = dict[str, Any]
Edit = Callable[[Document], None]
ROWS = 150


def contexts(fleet: list[Sandbox]) -> list[Any]:
    """Every third one without the kind that its share goes by; the first is the one that is targeted."""
    kinds = [("sandbox", "team", "template"), ("team", "template"), ("sandbox", "template")]
    return [
        make_context({"kind": "multi", **{kind: {"key": getattr(each, kind)} for kind in kinds[at % 3]}})
        for at, each in enumerate(fleet)
    ]


def of_mine(change: Callable[[Document], None]) -> Edit:
    return lambda document: change(document["flags"][KEY])


def share(percent: float) -> Edit:
    def edit(document: Document) -> None:
        document["flags"][KEY] = with_share(document["flags"][KEY], True, percent, Place())

    return edit


def swapped(flag: Document) -> None:
    one, other = flag["rules"][1]["rollout"]["variations"]
    one["weight"], other["weight"] = 90_000, 10_000


EDITS: dict[str, Edit] = {
    "share": share(40),
    "nothing": lambda _document: None,
    "rule-share": of_mine(swapped),
    "rule-variation": of_mine(lambda flag: flag["rules"][1].pop("rollout") and flag["rules"][1].update(variation=0)),
    "no-such-variation": of_mine(lambda flag: flag.update(fallthrough={"variation": 7})),
    "nothing-served": of_mine(lambda flag: flag.update(fallthrough={})),
    "no-entries": of_mine(lambda flag: flag["rules"][1].update(rollout={"variations": []})),
    "experiment": of_mine(lambda flag: flag["fallthrough"]["rollout"].update(kind="experiment", seed=61)),
    "version": of_mine(lambda flag: flag.update(version=38)),
    "salt": of_mine(lambda flag: flag.update(salt="other")),
    "off": of_mine(lambda flag: flag.update(on=False)),
    "variations": of_mine(lambda flag: flag.update(variations=["a", "b"])),
    "target": of_mine(lambda flag: flag.update(contextTargets=[])),
    "clause": of_mine(lambda flag: flag["rules"][1]["clauses"][0].update(values=["node", "python"])),
    "rules-swapped": of_mine(lambda flag: flag["rules"].reverse()),
    "cycle": lambda document: document["flags"]["punch-allowed"].update(prerequisites=[{"key": KEY, "variation": 0}]),
    "prerequisite": lambda document: document["flags"]["punch-allowed"].update(fallthrough={"variation": 1}),
    "segment": lambda document: document["segments"]["regulated-teams"].update(
        includedContexts=[{"contextKind": "team", "values": ["megacorp"]}]
    ),
    "gone": lambda document: document["flags"].pop(KEY),
}


@pytest.fixture(scope="module")
def asked() -> list[Any]:
    return contexts(production_fleet(ROWS))


def answers(fleet: FleetEvaluator, document: Document) -> list[Any]:
    return list(fleet.each(document["flags"], document["segments"]))


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_fleet_asked_again_after_an_edit_is_served_as_one_asked_for_the_first_time(
    asked: list[Any], edit: Edit
) -> None:
    before, after = flags(), flags()
    edit(after)
    again = FleetEvaluator(FLAGS[KEY], asked)
    for each in (before, after, before):
        fresh = FleetEvaluator(FLAGS[KEY], asked)
        assert answers(again, each) == answers(fresh, each)


@pytest.mark.parametrize("seed", range(8))
def test_any_edits_after_each_other_are_served_as_if_each_were_the_first(asked: list[Any], seed: int) -> None:
    draw, document = random.Random(seed), flags()
    again = FleetEvaluator(FLAGS[KEY], asked[:60])
    for name in draw.sample([each for each in EDITS if each != "gone"], 6):
        document = copy.deepcopy(document)
        try:
            EDITS[name](document)
        except (KeyError, UserError):  # what it changes went with an edit before it
            continue
        assert answers(again, document) == answers(FleetEvaluator(FLAGS[KEY], asked[:60]), document), name


def test_one_and_true_are_two_values_of_a_clause() -> None:
    premium = [make_context({"kind": "multi", "sandbox": {"key": "a", "premium": True}})]
    again, served = FleetEvaluator(FLAGS[KEY], premium), []
    for value in (1, True):
        document = flags()
        clause = {"attribute": "premium", "op": "in", "values": [value], "contextKind": "sandbox", "negate": False}
        document["flags"][KEY]["rules"] = [{"id": "r", "variation": 0, "clauses": [clause]}]
        document["flags"][KEY]["fallthrough"] = {"variation": 1}
        served.append(answers(again, document))
        assert served[-1] == answers(FleetEvaluator(FLAGS[KEY], premium), document)
    assert [each.reason for (each,) in served] in (["FALLTHROUGH", "RULE_MATCH"], ["RULE_MATCH", "RULE_MATCH"])


def test_a_fleet_that_was_asked_only_in_part_is_asked_as_a_whole_again(asked: list[Any]) -> None:
    again, document = FleetEvaluator(FLAGS[KEY], asked), flags()
    next(again.each(document["flags"], document["segments"]))
    assert answers(again, document) == answers(FleetEvaluator(FLAGS[KEY], asked), document)


def test_a_change_of_a_share_alone_does_not_try_the_rules_again(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: list[str] = []
    answer = FixedFlags.answer

    def counted(fixed: FixedFlags, key: str, context: Any, **how: bool) -> Any:
        found = answer(fixed, key, context, **how)
        whole.append("" if found is None else found.reason["kind"])
        return found

    monkeypatch.setattr(FixedFlags, "answer", counted)
    again, after = FleetEvaluator(FLAGS[KEY], asked), flags()
    answers(again, flags())
    assert len(whole) == ROWS
    share(40)(after)
    answers(again, after)
    assert set(whole[ROWS:]) <= {"TARGET_MATCH"}
