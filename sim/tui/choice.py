"""Which sandboxes of a fleet are shown, and in which order. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sim.tui import rows
from sim.tui.spans import Piece, Span, Spans, line_of
from sim.view import SandboxView


@dataclass(frozen=True, slots=True)
class Sort:
    """By the column of that title: the least key comes first, and among equals the fleet's own order."""

    column: str
    key: Callable[[SandboxView], float]


STATES = ("discarded", "pausing", "checkpointing", "resuming", "running", "paused", "created", "killed")
"""What needs a look comes first."""


def _state(sandbox: SandboxView) -> float:
    return -1 if rows.past_return(sandbox) else STATES.index(sandbox.state)


def _dirty(sandbox: SandboxView) -> float:
    return -(sandbox.pause.dirty_bytes or 0) if sandbox.pause else 1


def _wait(sandbox: SandboxView) -> float:
    return -(sandbox.pause.blocked_ms or 0) if sandbox.pause else 1


def _peak(sandbox: SandboxView) -> float:
    return -(sandbox.pause.peak_ratio or 0) if sandbox.pause else 1


SORTS: tuple[Sort | None, ...] = (
    None,
    Sort("state", _state),
    Sort(rows.MEMORY.title, lambda sandbox: -(sandbox.resident + sandbox.cached)),
    Sort("dirty", _dirty),
    Sort("last pause", _wait),
    Sort("peak", _peak),
)
"""What the sort key goes through; None is the fleet's own order."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`words` of the filter, all of which must fit, and the order."""

    words: str = ""
    sort: Sort | None = None

    @property
    def is_plain(self) -> bool:
        """True where all is shown in the fleet's own order."""
        return not self.words and self.sort is None

    def names(self, sandboxes: Iterable[SandboxView]) -> list[str]:
        """Who is shown, in order."""
        terms = self.words.lower().split()
        shown = [each for each in sandboxes if all(fits(each, term) for term in terms)]
        if self.sort is not None:
            shown.sort(key=self.sort.key)
        return [each.name for each in shown]

    def next_sort(self) -> Sort | None:
        """The one after this."""
        return SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]


def fits(sandbox: SandboxView, term: str) -> bool:
    """A pattern (`web-1*`) is of the name; else part of name, state, template, team or cluster; `!` is not."""
    if term.startswith("!"):
        return len(term) == 1 or not fits(sandbox, term[1:])
    if any(wild in term for wild in "*?["):
        return fnmatchcase(sandbox.name.lower(), term)
    words = [sandbox.name, sandbox.state, sandbox.template, sandbox.team, sandbox.cluster]
    words += ["condemned"] if rows.past_return(sandbox) else []
    return any(term in word.lower() for word in words)


def choice_line(choice: Choice, shown: int, of: int, selected: int, hidden: int, cells: int) -> Spans:
    """What is filtered and selected; `hidden` of the selected are not shown."""
    pieces = [Piece(0, (Span(" filter ", "muted"), Span(choice.words, "title")))] if choice.words else []
    pieces += [Piece(2, (Span(f"{shown} of {of} shown", "plain" if shown else "warn"),))] if choice.words else []
    unseen = f", {hidden} of them not shown" if hidden else ""
    pieces += [Piece(1, (Span(f" {selected} selected{unseen}", "warn" if hidden else "title"),))] if selected else []
    return line_of(pieces, cells, gap=2)
