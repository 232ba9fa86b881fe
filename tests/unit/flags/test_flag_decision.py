from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import pytest

from engine.plan import PauseOptions
from flags.catalog import CATALOG
from flags.context import SandboxAttributes
from flags.decision import Decision, Evaluation, options
from flags.inline import flag_from
from flags.memory import MemoryFlags

PUNCH = "memfd-punch-on-snapshot"
BACKGROUND = "memfd-background-copy"
WEB = SandboxAttributes(sandbox="web-0", template="python", team="acme")


def decision(punch: bool, background: bool) -> Decision:
    values = {PUNCH: punch, BACKGROUND: background}
    return Decision(tuple(Evaluation(key, value, "FALLTHROUGH", 0, 3, None, "VALID") for key, value in values.items()))


@pytest.mark.parametrize("punch", [True, False])
@pytest.mark.parametrize("background", [True, False])
def test_the_options_are_what_was_decided(punch: bool, background: bool) -> None:
    expected = PauseOptions(use_memfd=True, background_copy=background, punch=punch)
    assert options(decision(punch, background)) == expected


def test_a_decision_is_pinned_whatever_flips_afterwards() -> None:
    source = MemoryFlags({PUNCH: flag_from(PUNCH, True)})
    pinned = source.decide(WEB)
    before = pinned.as_fields()
    source.set(flag_from(PUNCH, False))
    assert source.decide(WEB).value(PUNCH) is False
    assert pinned.value(PUNCH) is True
    assert pinned.as_fields() == before


def test_an_evaluation_cannot_be_altered() -> None:
    evaluation = decision(punch=True, background=True).evaluations[0]
    with pytest.raises(FrozenInstanceError):
        evaluation.value = False  # type: ignore[misc]


def test_a_decision_covers_the_whole_catalogue() -> None:
    evaluated = [each.flag for each in MemoryFlags({}).decide(WEB).evaluations]
    assert evaluated == [each.key for each in CATALOG]


def test_a_flag_that_was_not_evaluated_has_no_value() -> None:
    with pytest.raises(KeyError):
        decision(punch=True, background=True).value("use-memfd")


def test_the_fields_survive_json() -> None:
    fields = decision(punch=True, background=False).as_fields()
    assert json.loads(json.dumps(fields)) == fields
    assert fields[PUNCH] == {
        "value": True,
        "reason": "FALLTHROUGH",
        "variation": 0,
        "version": 3,
        "source_state": "VALID",
    }
