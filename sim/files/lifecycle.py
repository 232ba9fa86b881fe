"""The lifecycle of a sandbox: its states, the legal transitions, and why it stopped."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """Where a sandbox is in its life."""

    CREATED = "created"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CHECKPOINTING = "checkpointing"
    RESUMING = "resuming"
    DISCARDED = "discarded"
    KILLED = "killed"


class StopReason(StrEnum):
    """Why a sandbox has no running guest."""

    PAUSED = "paused"
    KILLED = "killed"
    DISCARDED = "discarded"
    CRASHED = "crashed"


MEANING: dict[State, str] = {
    State.CREATED: "its guest is being started",
    State.RUNNING: "its guest works at each tick",
    State.PAUSING: "its guest is frozen, its memory is being exported",
    State.PAUSED: "it has no guest; its memory is in a snapshot, which may still be copied",
    State.CHECKPOINTING: "its memory is being exported, and it goes on afterwards",
    State.RESUMING: "a new guest is being filled from its snapshot",
    State.DISCARDED: "its memory was punched and its copy failed: it is lost for good",
    State.KILLED: "it was ended by a step, by its death or by a node that could not keep it",
}
FINAL = frozenset({State.DISCARDED, State.KILLED})

LEGAL: dict[State, frozenset[State]] = {
    State.CREATED: frozenset({State.RUNNING, State.KILLED}),
    State.RUNNING: frozenset({State.PAUSING, State.CHECKPOINTING, State.DISCARDED, State.KILLED}),
    State.PAUSING: frozenset({State.PAUSED, State.RUNNING, State.DISCARDED, State.KILLED}),
    State.PAUSED: frozenset({State.RESUMING, State.DISCARDED, State.KILLED}),
    State.CHECKPOINTING: frozenset({State.RUNNING, State.PAUSED, State.DISCARDED, State.KILLED}),
    State.RESUMING: frozenset({State.RUNNING, State.PAUSED, State.DISCARDED, State.KILLED}),
    State.DISCARDED: frozenset(),
    State.KILLED: frozenset(),
}

STOP_REASONS: dict[State, StopReason] = {
    State.PAUSED: StopReason.PAUSED,
    State.DISCARDED: StopReason.DISCARDED,
    State.KILLED: StopReason.KILLED,
}


class IllegalTransitionError(Exception):
    """A transition that the lifecycle does not allow: a defect of the caller."""


def check_transition(old: State, new: State) -> None:
    """Raise IllegalTransitionError unless `old` may become `new`."""
    if new not in LEGAL[old]:
        raise IllegalTransitionError(f"a {old} sandbox cannot become {new}")


class RefusalCode(StrEnum):
    """Why a request is refused."""

    DISCARDED = "discarded"
    KILLED = "killed"
    STATE = "state"
    BUDGET = "budget"
    STRANDED = "stranded"


class Refusal(NamedTuple):
    """Why a request is refused, and in words."""

    code: RefusalCode
    reason: str


def refusal(request: str, state: State, reason: str) -> Refusal | None:
    """Why a request on a sandbox in `state`, which it has for `reason`, is refused; None if it is allowed."""
    allowed = {
        "pause": {State.RUNNING},
        "checkpoint": {State.RUNNING},
        "resume": {State.PAUSED},
        "kill": set(State) - FINAL,
        "salvage": set(State) - FINAL,
    }[request]
    if state in allowed:
        return None
    if state is State.DISCARDED:
        return Refusal(RefusalCode.DISCARDED, f"it was discarded and can never run again: {reason}")
    if state is State.KILLED:
        return Refusal(RefusalCode.KILLED, f"it was killed: {reason}")
    why = f"it is {state}; a {request} needs one that is {' or '.join(sorted(allowed))}"
    return Refusal(RefusalCode.STATE, why)
