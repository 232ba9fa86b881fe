from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from engine.errors import UserError
from flags.catalog import FLAGS
from flags.cohort import Member, cohort, differing, fleet_of, step
from flags.context import ALL, SandboxAttributes
from flags.explain import landing
from flags.inline import Rollout, RolloutKind, flag_from
from flags.launchdarkly import Evaluator, InProcessSource, make_context

PUNCH = "memfd-punch-on-snapshot"
PERCENTS = (0, 1, 10, 50, 100)


def sections(percent: float, by: RolloutKind = "sandbox", **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return {PUNCH: {**flag_from(PUNCH, Rollout(percent, by)), **changes}}, {}


def names(members: tuple[Member, ...]) -> set[str]:
    return {each.attributes.sandbox for each in members}


def test_each_step_of_a_rollout_over_10000_sandboxes_is_a_superset() -> None:
    fleet = fleet_of(10_000)
    cohorts = [names(cohort(sections(percent), PUNCH, fleet)) for percent in PERCENTS]
    assert [len(each) for each in cohorts] == [0, 99, 953, 4944, 10_000]
    for smaller, larger in pairwise(cohorts):
        assert smaller < larger


def test_a_step_forward_has_nobody_leave_and_a_step_back_nobody_join() -> None:
    fleet = fleet_of(500)
    forward = step(sections(10), sections(50), PUNCH, fleet)
    assert forward.is_superset
    assert len(forward.after) == len(forward.before) + len(forward.joins)
    back = step(sections(50), sections(10), PUNCH, fleet)
    assert not back.is_superset
    assert (names(back.leaves), back.joins) == (names(forward.joins), ())


def reversed_entries() -> dict[str, Any]:
    flag = flag_from(PUNCH, Rollout(10, "sandbox"))
    flag["fallthrough"]["rollout"]["variations"].reverse()
    return flag


@pytest.mark.parametrize("changes", [{"salt": "other"}, reversed_entries()], ids=["salt", "order"])
def test_a_redrawn_cohort_of_the_same_size_is_no_superset(changes: dict[str, Any]) -> None:
    assert not step(sections(10), sections(10, **changes), PUNCH, fleet_of(1000)).is_superset


def test_a_rollout_by_team_takes_teams_whole() -> None:
    on = names(cohort(sections(50, "team"), PUNCH, fleet_of(400), ALL))
    teams = {each.attributes.team for each in fleet_of(400) if each.attributes.sandbox in on}
    assert len(on) == 10 * len(teams)


def test_a_json_flag_is_on_where_it_is_enabled() -> None:
    flags = {"memfile-diff-dedup": flag_from("memfile-diff-dedup", Rollout(100, "team"))}
    assert len(cohort((flags, {}), "memfile-diff-dedup", fleet_of(20), ALL)) == 20


def test_segments_count() -> None:
    rule = {"variation": 0, "clauses": [{"attribute": "", "op": "segmentMatch", "values": ["kept"]}]}
    kept = {"key": "kept", "includedContexts": [{"contextKind": "team", "values": ["team-0"]}]}
    flags, _ = sections(100, rules=[rule])
    assert len(cohort((flags, {"kept": kept}), PUNCH, fleet_of(30), ALL)) == 20


def test_by_a_kind_that_no_pause_knows_nobody_has_it_until_everybody_has() -> None:
    """As production's SDK serves it; Python's would serve the first entry at any weight."""
    counts = [len(cohort(sections(percent, "team"), PUNCH, fleet_of(50))) for percent in (0, 1, 99, 100)]
    assert counts == [0, 0, 0, 50]
    assert len(cohort(sections(50, "team"), PUNCH, fleet_of(50), moment="resume")) not in {0, 50}


def test_an_unknown_flag_has_no_cohort() -> None:
    with pytest.raises(UserError, match="did you mean"):
        cohort(sections(10), "memfd-punch", fleet_of(1))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"contextKind": "team"},
        {"bucketBy": "template-id"},
        {"bucketBy": "/kernel-version"},
        {"bucketBy": "zone"},
        {"contextKind": "user"},
        {"seed": 61},
        {"kind": "experiment", "seed": 7, "bucketBy": "template-id"},
    ],
)
def test_the_bucket_told_is_the_one_launchdarkly_uses(changes: dict[str, Any]) -> None:
    weights = [(0, 20_000), (1, 30_000), (2, 10_000), (3, 40_000)]
    entries = [{"variation": index, "weight": weight} for index, weight in weights]
    rollout = {"contextKind": "sandbox", "variations": entries, **changes}
    variations = [{"blockFaultPct": index} for index in range(4)]
    key = "memfile-diff-dedup"
    flag = {**flag_from(key, {}), "variations": variations, "fallthrough": {"rollout": rollout}}
    evaluator = Evaluator(InProcessSource({key: flag}, {}))
    for number in range(60):
        attributes = SandboxAttributes(
            f"web-{number}", f"template-{number}", f"team-{number}", kernel_version=f"6.{number}"
        )
        context = ALL.context(attributes, "pause")
        made = make_context(context)
        served = evaluator.evaluate(FLAGS[key], made).variation
        model = evaluator.model("flags", key)
        assert landing(model, model.fallthrough.rollout, made, context).entry == served


def test_what_the_weights_leave_belongs_to_the_last_entry() -> None:
    rollout = {"contextKind": "sandbox", "variations": [{"variation": 0, "weight": 0}, {"variation": 1, "weight": 1}]}
    flag = {**flag_from(PUNCH, True), "fallthrough": {"rollout": rollout}}
    model = Evaluator(InProcessSource({PUNCH: flag})).model("flags", PUNCH)
    context = ALL.context(SandboxAttributes("web-0", "python", "acme"), "pause")
    lands = landing(model, model.fallthrough.rollout, make_context(context), context)
    assert (lands.entry, lands.low, lands.high) == (1, 0.0, 1.0)


def test_who_gets_something_else_from_pythons_sdk_is_counted() -> None:
    entries = [{"variation": 1, "weight": 0}, {"variation": 0, "weight": 100_000}]
    absent = {**flag_from(PUNCH, True), "fallthrough": {"rollout": {"contextKind": "host", "variations": entries}}}
    fleet = fleet_of(7)
    assert differing(({PUNCH: absent}, {}), PUNCH, fleet) == tuple(fleet)
    assert cohort(({PUNCH: absent}, {}), PUNCH, fleet) == ()
    assert differing(({PUNCH: flag_from(PUNCH, Rollout(50, "sandbox"))}, {}), PUNCH, fleet) == ()
    assert differing(({}, {}), PUNCH, fleet) == ()
