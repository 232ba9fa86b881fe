"""What the sentences of ledgers from before there were codes meant; anything else has no code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.plan import PUNCH_REASONS
from sim.files.faults import KILL_NODE, KINDS, Harm, failing
from sim.record.codes import fault_kind, harm_of, punch_code


@pytest.mark.parametrize("seconds", [0.001, 0.3, 2.0, 59.999, 3600.0, 1_000_000.0])
@pytest.mark.parametrize("kind", ["delay", "hang"])
def test_how_long_an_old_fault_took_is_known(kind: str, seconds: float) -> None:
    found = harm_of(f"{kind} {seconds * 1e3:.12g} ms")
    assert found is not None
    assert found.kind == kind
    assert found.seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    "harm", [failing("ENOSPC"), KILL_NODE, *(Harm(kind) for kind in KINDS if kind not in {"errno", "delay", "hang"})]
)
def test_every_other_kind_is_known_by_its_words(harm: Harm) -> None:
    assert harm_of(harm.error) == harm


def test_every_reason_that_the_engine_ever_gave_has_its_code() -> None:
    assert {punch_code(None, reason) for reason in PUNCH_REASONS.values()} == set(PUNCH_REASONS)


def test_a_code_of_its_own_goes_before_any_words() -> None:
    assert punch_code("off", PUNCH_REASONS[next(iter(PUNCH_REASONS))]) == "off"
    assert fault_kind("hang", "ENOSPC") == "hang"


@given(st.text())
def test_words_that_nobody_knows_have_no_code(words: str) -> None:
    if words not in PUNCH_REASONS.values():
        assert punch_code(None, f"{words}, sealed") is None
    assert fault_kind(None, f"corrupt {words}") is None
