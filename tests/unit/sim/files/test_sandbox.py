"""The lifecycle's words: what is refused and why, and how a sandbox stopped. The edges are in the model's test."""

from __future__ import annotations

import pytest

from sim.files.lifecycle import FINAL, LEGAL, STOP_REASONS, IllegalTransitionError, State, check_transition, refusal


def test_an_illegal_transition_names_both_states() -> None:
    with pytest.raises(IllegalTransitionError, match="a discarded sandbox cannot become running"):
        check_transition(State.DISCARDED, State.RUNNING)


@pytest.mark.parametrize("state", [State.DISCARDED, State.KILLED])
@pytest.mark.parametrize("request_", ["pause", "resume", "kill"])
def test_nothing_may_be_asked_of_what_has_ended_and_the_refusal_says_how_it_ended(state: State, request_: str) -> None:
    refused = refusal(request_, state, "copy.write of chunk 3 failed")
    assert refused is not None
    assert refused.code.value == state.value
    assert refused.reason.endswith(": copy.write of chunk 3 failed")


@pytest.mark.parametrize("state", sorted(set(State) - FINAL))
def test_only_a_running_sandbox_is_paused_only_a_paused_one_resumed_and_any_live_one_killed(state: State) -> None:
    allowed = {kind for kind in ("pause", "resume", "kill") if refusal(kind, state, "") is None}
    expected = {State.RUNNING: {"pause", "kill"}, State.PAUSED: {"resume", "kill"}}
    assert allowed == expected.get(state, {"kill"})


def test_a_refusal_says_what_the_sandbox_is_and_what_it_must_be() -> None:
    assert refusal("resume", State.PAUSING, "") == ("state", "it is pausing; a resume takes one that is paused")


def test_every_state_that_is_entered_by_a_stop_has_its_reason() -> None:
    without_guest = {State.PAUSED, *FINAL}
    assert set(STOP_REASONS) == without_guest
    assert all(state in set().union(*LEGAL.values()) for state in STOP_REASONS)
