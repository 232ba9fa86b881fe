from __future__ import annotations

import json

import pytest

from engine.errors import UserError
from flags.catalog import CATALOG, flag
from flags.context import SandboxAttributes
from flags.inline import Rollout, RolloutKind, flag_from
from flags.lint import check
from flags.memory import MemoryFlags

PUNCH = "memfd-punch-on-snapshot"
BACKGROUND = "memfd-background-copy"
WEB = SandboxAttributes(sandbox="web-0", template="python", team="acme")
VALUES = [True, False, Rollout(0, "sandbox"), Rollout(12.345, "team"), Rollout(50, "template"), Rollout(100, "cluster")]


@pytest.mark.parametrize("key", [each.key for each in CATALOG])
@pytest.mark.parametrize("value", VALUES)
def test_every_inline_value_makes_a_flag_without_findings(key: str, value: bool | Rollout) -> None:
    assert check(json.dumps({"flags": {key: flag_from(key, value)}}))[1] == []


@pytest.mark.parametrize("key", [each.key for each in CATALOG])
def test_off_serves_the_safe_value(key: str) -> None:
    source = MemoryFlags({key: flag_from(key, not flag(key).safe) | {"on": False}})
    assert source.decide(WEB).value(key) is flag(key).safe


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
    source = MemoryFlags({PUNCH: flag_from(PUNCH, Rollout(50, kind))})
    outcomes = set()
    for group in range(20):
        values = set()
        for sandbox in range(5):
            names = {"template": "python", "team": "acme", kind: f"group-{group}"}
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
