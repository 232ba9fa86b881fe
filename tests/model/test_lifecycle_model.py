"""The lifecycle against the table it is meant to be: random walks take exactly the edges written down here."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sim.files.lifecycle import FINAL, LEGAL, IllegalTransitionError, State, check_transition, refusal

LIVE = {"created", "running", "pausing", "paused", "checkpointing", "resuming"}
TABLE = {
    *(("running", "pausing"), ("pausing", "paused"), ("pausing", "running"), ("pausing", "discarded")),
    *(("running", "checkpointing"), ("checkpointing", "running")),
    *(("checkpointing", "paused"), ("checkpointing", "discarded")),  # a new guest was to go on
    *(("paused", "resuming"), ("resuming", "running"), ("resuming", "paused")),
    # the build they stand on failed in the background
    *((state, "discarded") for state in ("paused", "resuming", "running")),
    *((state, "killed") for state in LIVE),
    ("created", "running"),
}
STATES = st.sampled_from(sorted(State))
REQUESTS = {"pause": State.PAUSING, "resume": State.RESUMING, "kill": State.KILLED}


@given(old=STATES, new=STATES)
def test_a_transition_is_accepted_exactly_where_the_table_has_it(old: State, new: State) -> None:
    if (old.value, new.value) in TABLE:
        check_transition(old, new)
    else:
        with pytest.raises(IllegalTransitionError):
            check_transition(old, new)


class Lifecycle(RuleBasedStateMachine):
    """One sandbox: things happen to it, requests are made of it, condemned pauses end it."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State.CREATED
        self.condemned = False
        self.ended: State | None = None

    def to(self, new: State) -> None:
        check_transition(self.state, new)
        self.state = new
        if new in FINAL:
            self.ended = new

    @precondition(lambda self: self.state is State.CREATED)
    @rule()
    def is_born(self) -> None:
        self.to(State.RUNNING)

    @rule(kind=st.sampled_from(sorted(REQUESTS)))
    def is_asked(self, kind: str) -> None:
        """A request that is not refused has an edge to go by; one that is refused changes nothing."""
        if refusal(kind, self.state, "a reason") is None:
            self.to(REQUESTS[kind])

    @precondition(lambda self: self.state is State.PAUSING and not self.condemned)
    @rule(rolls_back=st.booleans())
    def copies_chunk_0(self, rolls_back: bool) -> None:
        if rolls_back:
            self.to(State.RUNNING)
        else:
            self.condemned = True

    @precondition(lambda self: self.state is State.PAUSING and self.condemned)
    @rule(fails=st.booleans())
    def answers(self, fails: bool) -> None:
        self.to(State.DISCARDED if fails else State.PAUSED)
        self.condemned = False

    @precondition(lambda self: self.state is State.RESUMING)
    @rule(fails=st.booleans())
    def is_filled(self, fails: bool) -> None:
        self.to(State.PAUSED if fails else State.RUNNING)

    @precondition(lambda self: self.state in {State.PAUSED, State.RESUMING, State.RUNNING})
    @rule()
    def loses_its_build(self) -> None:
        self.to(State.DISCARDED)

    @rule(new=STATES)
    def tries_any_edge(self, new: State) -> None:
        """Whatever a defect may ask for: the table decides, and a refused edge leaves the state alone."""
        legal = (self.state.value, new.value) in TABLE
        if not legal:
            with pytest.raises(IllegalTransitionError):
                self.to(new)

    @invariant()
    def what_has_ended_stays_ended(self) -> None:
        assert self.ended is None or self.state is self.ended

    @invariant()
    def every_live_state_can_be_killed_and_no_final_one_left(self) -> None:
        assert (State.KILLED in LEGAL[self.state]) == (self.state not in FINAL)
        assert bool(LEGAL[self.state]) == (self.state not in FINAL)


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_every_state_is_reached_from_the_first_one() -> None:
    seen, edge = {State.CREATED}, {State.CREATED}
    while edge:
        edge = {new for old in edge for new in LEGAL[old]} - seen
        seen |= edge
    assert seen == set(State)
