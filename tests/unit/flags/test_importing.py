from __future__ import annotations

from typing import Any

import pytest

from engine.errors import UserError
from flags.drift import drift
from flags.edit import Place, with_share
from flags.importing import convert
from flags.inline import flag_from
from flags.problem import Problem

PUNCH = "memfd-punch-on-snapshot"
ON = flag_from(PUNCH, True)


def exported(rollout: dict[str, Any]) -> dict[str, Any]:
    """One flag as the REST API answers it, with this rollout as its default rule."""
    state = {"on": True, "salt": "s", "version": 9, "rules": [], "offVariation": 0, "fallthrough": {"rollout": rollout}}
    variations = [{"_id": "a", "value": False}, {"_id": "b", "value": True}]
    return {"key": PUNCH, "variations": variations, "environments": {"production": state}}


def staged(kind: str, **more: Any) -> dict[str, Any]:
    entries = [
        {"variation": 1, "weight": 5_000},
        {"variation": 0, "weight": 5_000},
        {"variation": 0, "weight": 90_000, "_untracked": True},
    ]
    allocation = {"defaultVariation": 0, "canReshuffle": True, "type": kind}
    return {"contextKind": "sandbox", "variations": entries, "experimentAllocation": allocation, "seed": 12345, **more}


@pytest.mark.parametrize(("kind", "name"), [("measuredRollout", "guarded"), ("progressiveRollout", "progressive")])
def test_a_staged_rollout_is_imported_as_it_stands_and_said_to_move_on(kind: str, name: str) -> None:
    found = convert(exported(staged(kind)), "production")
    assert found.problems == []
    (warning,) = found.warnings
    assert warning.message == f"a {name} rollout is imported as it stands at the export"
    rollout = found.flags[PUNCH]["fallthrough"]["rollout"]
    assert rollout["seed"] == 12345
    assert [each["weight"] for each in rollout["variations"]] == [5_000, 5_000, 90_000]
    assert rollout["variations"][2]["untracked"] is True
    why = f"the default rule of {PUNCH} is a {name} rollout: LaunchDarkly moves it and draws its sandboxes anew"
    with pytest.raises(UserError, match=why):
        with_share(found.flags[PUNCH], True, 5.0, Place())


def test_a_staged_rollout_by_an_attribute_is_refused() -> None:
    found = convert(exported(staged("measuredRollout", bucketBy="template-id")), "production")
    assert [each.message for each in found.problems] == ["a guarded rollout goes by the key, not by bucketBy"]


def test_an_allocation_of_another_kind_is_refused() -> None:
    (problem,) = convert(exported(staged("somethingNew")), "production").problems
    assert isinstance(problem, Problem)
    assert problem.message == '"experimentAllocation" cannot be carried over'


def test_an_fdv2_payload_is_what_it_puts_and_does_not_delete() -> None:
    events = [
        {"event": "server-intent", "data": {"payloads": [{"id": "p", "target": 1, "intentCode": "xfer-full"}]}},
        {"event": "put-object", "data": {"version": 3, "kind": "flag", "key": PUNCH, "object": ON}},
        {"event": "put-object", "data": {"version": 3, "kind": "flag", "key": "gone", "object": {**ON, "key": "gone"}}},
        {"event": "put-object", "data": {"version": 2, "kind": "segment", "key": "kept", "object": {"key": "kept"}}},
        {"event": "delete-object", "data": {"version": 4, "kind": "flag", "key": "gone"}},
        {"event": "payload-transferred", "data": {"state": "s", "version": 1}},
        "odd",
    ]
    found = convert({"events": events}, None)
    assert (found.form, found.problems) == ("FDv2 payload", [])
    assert found.flags == {PUNCH: {**ON, "version": 3}}
    assert found.segments == {"kept": {"key": "kept", "version": 2}}


def test_the_short_form_is_a_flag_that_is_on_for_everybody() -> None:
    found = convert({"flagValues": {PUNCH: True}}, None)
    assert found.problems == []
    assert (found.flags[PUNCH]["on"], found.flags[PUNCH]["variations"]) == (True, [True])


def test_the_order_of_targets_keys_is_no_difference() -> None:
    def targeting(*keys: str) -> tuple[dict[str, Any], dict[str, Any]]:
        target = {"contextKind": "sandbox", "variation": 1, "values": list(keys)}
        segment = {"key": "kept", "includedContexts": [{"contextKind": "sandbox", "values": list(keys)}]}
        return {PUNCH: {**ON, "contextTargets": [target]}}, {"kept": segment}

    assert drift(targeting("a", "b"), targeting("b", "a")) == []
    assert len(drift(targeting("a", "b"), targeting("a", "c"))) > 0
