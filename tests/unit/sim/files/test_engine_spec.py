"""The `engine` key of a scenario: one mutant or one profile, with what is mended of it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from sim.files.engine_key import Engine
from sim.files.wrong_engines import SWITCHES

SOUND: dict[str, object] = {
    "mutant": None,
    "profile": None,
    "mended": [],
    "verify": "off",
    "on_copy_failure": "discard",
}


def test_without_anything_it_is_the_sound_engine() -> None:
    assert Engine().choice() == SOUND


def test_a_profile_has_all_of_its_weaknesses() -> None:
    assert Engine.model_validate({"profile": "pr-2902"}).choice() == SOUND | {"profile": "pr-2902"}


def test_the_profile_original_is_the_sound_engine() -> None:
    engine = Engine.model_validate({"profile": "original"})
    assert (engine.choice(), engine.weak) == (SOUND, None)


def test_mended_takes_weaknesses_away() -> None:
    engine = Engine.model_validate({"profile": "pr-2902", "mended": ["not-gated", "range-granular"]})
    assert engine.choice()["mended"] == ["not-gated", "range-granular"]


def test_only_mends_all_the_others() -> None:
    mended = Engine.model_validate({"profile": "pr-2902", "only": ["not-gated"]}).choice()["mended"]
    assert set(mended) == set(SWITCHES) - {"not-gated"}


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"mutant": "scan-rearm"}, 'unknown mutant "scan-rearm"; did you mean "scan-rearms"'),
        ({"profile": "pr-2920"}, 'unknown profile "pr-2920"; did you mean "pr-2902"'),
        ({"profile": "pr-2902", "mended": ["not-gate"]}, 'unknown weakness "not-gate"; did you mean "not-gated"'),
        ({"mutant": "scan-rearms", "profile": "pr-2902"}, "one mutant or one profile"),
        ({"mended": ["not-gated"]}, "add profile: pr-2902"),
        ({"profile": "original", "mended": ["not-gated"]}, "add profile: pr-2902"),
        ({"mutant": "scan-rearms", "only": ["not-gated"]}, "add profile: pr-2902"),
        ({"profile": "pr-2902", "mended": ["not-gated"], "only": ["range-granular"]}, "remove one of the two"),
    ],
)
def test_what_is_no_engine_is_refused_with_what_to_do(engine: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Engine.model_validate(engine)
