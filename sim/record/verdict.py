"""The verdict of a run, and its exit code."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, StrEnum

INVARIANT = "invariant:"
"""How the subject of a judged invariant begins; its name follows."""
TIME_LIMIT = "time-limit"
"""The subject that is judged inconclusive if the time limit ended a run."""
NODE_DIED = "node-died"
"""The same, if its node died and nothing in the run had asked for it."""
DEADLINE = "deadline:"
"""How the subject begins that says which kind of step missed its deadline."""
CUT_OFF = frozenset({TIME_LIMIT, NODE_DIED})


def is_cut_off(subject: str) -> bool:
    """Whether an inconclusive judgement of this subject says that the run ended early."""
    return subject in CUT_OFF or subject.startswith(DEADLINE)


class Verdict(StrEnum):
    """What the checkers concluded about one scenario or plan."""

    HELD = "held"
    VIOLATED = "violated"
    INCONCLUSIVE = "inconclusive"

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode[self.name]


class ExitCode(IntEnum):
    """Every exit code of `snapdrill`; from 129 on they are 128 + the signal's number, as in shells."""

    HELD = 0
    VIOLATED = 1
    USAGE = 2
    INCONCLUSIVE = 3
    UNSUPPORTED = 4
    NOTHING_SELECTED = 5
    INTERNAL = 70
    HANGUP = 129
    INTERRUPTED = 130
    TERMINATED = 143


# A skip or an empty selection comes after HELD: it decides only where nothing else was run.
_WORST_FIRST = (
    ExitCode.HANGUP,
    ExitCode.INTERRUPTED,
    ExitCode.TERMINATED,
    ExitCode.USAGE,
    ExitCode.INTERNAL,
    ExitCode.VIOLATED,
    ExitCode.INCONCLUSIVE,
    ExitCode.HELD,
    ExitCode.UNSUPPORTED,
    ExitCode.NOTHING_SELECTED,
)


def worst(codes: Iterable[int]) -> ExitCode:
    """The one exit code for several files, NOTHING_SELECTED for none; ValueError for an unknown number."""
    return min(map(ExitCode, codes), key=_WORST_FIRST.index, default=ExitCode.NOTHING_SELECTED)
