from __future__ import annotations

import json
from typing import Any

import pytest

from engine.errors import UserError
from flags.catalog import CATALOG, flag
from flags.context import ALL, SandboxAttributes
from flags.document import Mistake
from flags.inline import InlineValue, Rollout, RolloutKind, as_written, flag_from, from_written
from flags.lint import check
from flags.memory import MemoryFlags

PUNCH = "memfd-punch-on-snapshot"
BACKGROUND = "memfd-background-copy"
DEDUP = "memfile-diff-dedup"
WEB = SandboxAttributes(sandbox="web-0", template="python", team="acme")
VALUES = [True, False, Rollout(0, "sandbox"), Rollout(12.345, "team"), Rollout(50, "template"), Rollout(100, "cluster")]


def errors(*flags: dict[str, Any]) -> list[Mistake]:
    found = check(json.dumps({"flags": {each["key"]: each for each in flags}}), ALL)
    return [each for each in found if each.severity == "error"]


@pytest.mark.parametrize("key", [each.key for each in CATALOG if each.type == "boolean"])
@pytest.mark.parametrize("value", VALUES)
def test_every_inline_value_makes_a_flag_without_errors(key: str, value: bool | Rollout) -> None:
    assert errors(flag_from(key, value)) == []


@pytest.mark.parametrize(
    "value",
    [
        {"enabled": True},
        {"enabled": False},
        {},
        Rollout(0, "team"),
        Rollout(50, "team", {"enabled": True, "directIO": True}),
        Rollout(7, "team", {"enabled": False}),
    ],
)
def test_every_inline_object_makes_a_flag_without_errors(value: InlineValue) -> None:
    assert errors(flag_from(DEDUP, value)) == []


@pytest.mark.parametrize("key", [each.key for each in CATALOG])
def test_off_serves_the_safe_value(key: str) -> None:
    served = {"enabled": True} if flag(key).type == "json" else not flag(key).safe
    source = MemoryFlags({key: flag_from(key, served) | {"on": False}})
    assert source.decide(WEB).value(key) == flag(key).safe


@pytest.mark.parametrize(
    ("value", "served"),
    [
        ({"enabled": True}, {"enabled": True}),
        ({"enabled": True, "blockFaultPct": 5}, {"enabled": True, "blockFaultPct": 5}),
        ({"enabled": False}, {"enabled": False}),
        (Rollout(100, "team"), {"enabled": True}),
        (Rollout(0, "team"), {"enabled": False}),
        (Rollout(100, "team", {"enabled": True, "directIO": True}), {"enabled": True, "directIO": True}),
    ],
)
def test_the_object_served_is_the_object_written(value: InlineValue, served: dict[str, Any]) -> None:
    assert MemoryFlags({DEDUP: flag_from(DEDUP, value)}).decide(WEB).value(DEDUP) == served


def test_the_safe_object_is_listed_first() -> None:
    made = flag_from(DEDUP, Rollout(25, "team"))
    assert made["variations"] == [{"enabled": False}, {"enabled": True}]
    assert [each["weight"] for each in made["fallthrough"]["rollout"]["variations"]] == [75_000, 25_000]


@pytest.mark.parametrize(("key", "value"), [(DEDUP, True), (DEDUP, {"enabled": 1}), (PUNCH, {"enabled": True})])
def test_a_value_of_another_type_is_refused_with_the_form_to_use(key: str, value: InlineValue) -> None:
    with pytest.raises(UserError, match=r"it takes (true or false|an object such as \{enabled: true\})"):
        flag_from(key, value)


@pytest.mark.parametrize(
    "value", [True, False, {"enabled": True}, Rollout(12.345, "team"), Rollout(5, "sandbox", {"enabled": True})]
)
def test_a_value_is_read_back_as_it_was_written(value: InlineValue) -> None:
    assert from_written(json.loads(json.dumps(as_written(value)))) == value


@pytest.mark.parametrize("key", [PUNCH, BACKGROUND])
@pytest.mark.parametrize(
    ("value", "served"),
    [(True, True), (False, False), (Rollout(0, "team"), False), (Rollout(100, "team"), True)],
)
def test_the_value_served_is_the_value_written(key: str, value: bool | Rollout, served: bool) -> None:
    assert MemoryFlags({key: flag_from(key, value)}).decide(WEB).value(key) is served


def test_a_rollout_lists_the_safe_variation_first_with_the_rest_of_the_weight() -> None:
    rollout = flag_from(PUNCH, Rollout(12.5, "sandbox"))["fallthrough"]["rollout"]
    assert rollout == {
        "contextKind": "sandbox",
        "variations": [{"variation": 0, "weight": 87_500}, {"variation": 1, "weight": 12_500}],
    }


@pytest.mark.parametrize("kind", ["team", "template", "cluster"])
def test_a_rollout_by_a_wider_kind_takes_all_of_its_sandboxes_or_none(kind: RolloutKind) -> None:
    source = MemoryFlags({PUNCH: flag_from(PUNCH, Rollout(50, kind))}, ALL)
    outcomes = set()
    for group in range(20):
        values = set()
        for sandbox in range(5):
            names: dict[str, Any] = {"template": "python", "team": "acme", kind: f"group-{group}"}
            values.add(source.decide(SandboxAttributes(sandbox=f"web-{sandbox}", **names)).value(PUNCH))
        assert len(values) == 1
        outcomes |= values
    assert outcomes == {True, False}


@pytest.mark.parametrize("percent", [-1, 100.001, float("nan")])
def test_a_percentage_out_of_range_is_refused(percent: float) -> None:
    with pytest.raises(UserError, match="use 0% to 100%"):
        Rollout(percent, "sandbox")


def test_an_unknown_rollout_kind_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(UserError, match='"sandbx"; did you mean "sandbox"'):
        Rollout(50, "sandbx")  # type: ignore[arg-type]


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean"):
        flag_from("memfd-punch", True)
