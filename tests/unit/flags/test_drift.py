from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest

from flags.drift import Drift, drift
from flags.inline import Rollout, flag_from

PUNCH = "memfd-punch-on-snapshot"
HALF = flag_from(PUNCH, Rollout(50, "sandbox"))
IN_KEPT = {"attribute": "", "op": "segmentMatch", "values": ["kept"]}
KEPT: dict[str, Any] = {"key": "kept", "includedContexts": [{"contextKind": "team", "values": ["acme"]}]}


def differing(here: dict[str, Any], live: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    found = drift(({here["key"]: here}, {}), ({live["key"]: live}, {}))
    return [(each.part, each.here, each.live) for each in found]


def changed(**changes: Any) -> dict[str, Any]:
    return {**deepcopy(HALF), **changes}


def test_the_same_flags_do_not_differ() -> None:
    assert differing(HALF, json.loads(json.dumps(HALF))) == []


@pytest.mark.parametrize(
    "remarks",
    [
        {"version": 9, "trackEvents": True, "sel": "x", "debugEventsUntilDate": 3},
        {"rules": [], "targets": [], "contextTargets": [], "prerequisites": [], "deleted": False},
        {"clientSideAvailability": {"usingMobileKey": True}},
    ],
)
def test_what_changes_no_evaluation_is_no_difference(remarks: dict[str, Any]) -> None:
    assert differing(HALF, changed(**remarks)) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"on": False}, ("on", True, False)),
        ({"salt": "new"}, ("salt", PUNCH, "new")),
        ({"offVariation": None}, ("offVariation", 0, None)),
        ({"variations": [False, "true"]}, ("variations[1]", True, "true")),
        ({"variations": [False, 1]}, ("variations[1]", True, 1)),
        ({"variations": [False]}, ("variations", [False, True], [False])),
        (
            {"prerequisites": [{"key": PUNCH, "variation": 0}]},
            ("prerequisites", None, [{"key": PUNCH, "variation": 0}]),
        ),
    ],
)
def test_a_difference_is_told_with_its_part_and_both_values(changes: dict[str, Any], expected: tuple[Any, ...]) -> None:
    assert differing(HALF, changed(**changes)) == [expected]


def test_the_order_of_a_rollout_counts() -> None:
    live = deepcopy(HALF)
    live["fallthrough"]["rollout"]["variations"].reverse()
    assert [part for part, _, _ in differing(HALF, live)] == [
        "fallthrough.rollout.variations[0].variation",
        "fallthrough.rollout.variations[1].variation",
    ]


def test_a_flag_that_only_one_side_has_is_a_difference() -> None:
    memfd = flag_from("use-memfd", True)
    assert drift(({PUNCH: HALF}, {}), ({"use-memfd": memfd}, {})) == [
        Drift("flags", PUNCH, "", "there", None),
        Drift("flags", "use-memfd", "", None, "there"),
    ]


def test_live_flags_of_other_parts_are_not_compared_and_those_asked_for_are() -> None:
    asking = changed(prerequisites=[{"key": "punch-allowed", "variation": 1}])
    live = {PUNCH: asking, "checkout": flag_from(PUNCH, True), "punch-allowed": flag_from(PUNCH, True)}
    assert drift(({PUNCH: asking}, {}), (live, {})) == [Drift("flags", "punch-allowed", "", None, "there")]


def test_segments_that_flags_name_are_compared() -> None:
    flags = {PUNCH: changed(rules=[{"variation": 0, "clauses": [IN_KEPT]}])}
    live = {"kept": {**KEPT, "includedContexts": [{"contextKind": "team", "values": ["apex"]}]}, "other": {"key": "o"}}
    assert drift((flags, {"kept": KEPT}), (flags, live)) == [
        Drift("segments", "kept", "includedContexts[0].values[0]", "acme", "apex")
    ]


def test_the_salt_of_a_segment_counts_where_it_draws_members() -> None:
    flags = {PUNCH: changed(rules=[{"variation": 0, "clauses": [IN_KEPT]}])}
    drawn = {**KEPT, "rules": [{"clauses": [], "weight": 1000}]}
    assert drift((flags, {"kept": {**KEPT, "salt": "a"}}), (flags, {"kept": {**KEPT, "salt": "b"}})) == []
    assert drift((flags, {"kept": {**drawn, "salt": "a"}}), (flags, {"kept": {**drawn, "salt": "b"}})) == [
        Drift("segments", "kept", "salt", "a", "b")
    ]
