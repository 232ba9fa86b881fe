"""The fleet table: which rows, which cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from math import ceil

from flags.catalog import PUNCH
from sim.record.fold import PEAKS
from sim.record.view import PauseView, SandboxView
from sim.report import words
from sim.tui.spans import Piece, Span, Spans, Tone, fit, line_of

NONE: Spans = (Span("-", "muted"),)
FREED = "◦"
"""Where memory was that a punch has freed: an outline, for nothing is there."""
GAP = 1
HIGH = 1.5
"""A peak, in units of what the guest had, from which it is nearer to 2x than to 1x."""
_TREND = "▁▂▃▄▅▆▇█"
STATES: dict[str, tuple[str, Tone]] = {
    "created": ("◌", "muted"),
    "running": ("●", "good"),
    "pausing": ("◐", "busy"),
    "paused": ("■", "calm"),
    "checkpointing": ("◎", "busy"),
    "resuming": ("◑", "busy"),
    "discarded": ("✗", "bad"),
    "killed": ("†", "muted"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column: the higher its rank, the earlier it goes where the screen is narrow."""

    title: str
    cells: int
    rank: int
    draw: Callable[[SandboxView, int], Spans]
    right: bool = False
    sorted: str = ""


def in_flight(sandbox: SandboxView) -> PauseView | None:
    """The pause, while it or its copy goes on; one that was refused for want of memory goes nowhere."""
    pause = sandbox.pause
    goes_on = sandbox.state in {"pausing", "paused", "checkpointing", "resuming"}
    return pause if pause is not None and pause.settled_at is None and goes_on else None


def past_return(sandbox: SandboxView) -> bool:
    """True where the guest being copied is condemned, and no newer one has taken its place."""
    pause = in_flight(sandbox)
    return pause is not None and pause.condemned and sandbox.state in {"pausing", "paused"}


def state_cell(sandbox: SandboxView) -> Spans:
    """Glyph and word; CONDEMNED from the point of no return until the copy ends."""
    if past_return(sandbox):
        return (Span("◆ CONDEMNED", "condemned"),)
    glyph, tone = STATES.get(sandbox.state, ("?", "warn"))
    return (Span(f"{glyph} {sandbox.state}", tone),)


def memory_cell(sandbox: SandboxView, cells: int) -> Spans:
    """From nothing to 2x: what memfd and cache hold now and the most of both in the last pause; freed is hollow."""
    resident = _share(sandbox.resident, 2 * sandbox.memory, cells)
    cached = min(_share(sandbox.cached, 2 * sandbox.memory, cells), cells - resident)
    punched = min(_share(sandbox.punched, 2 * sandbox.memory, cells), cells - resident - cached)
    held = (Span("█" * resident, "resident"), Span("▓" * cached, "cached"))
    rest = FREED * punched + "·" * (cells - resident - cached - punched)
    return (*held, *_marked(rest, _peak_mark(sandbox, cells) - resident - cached))


def _peak_mark(sandbox: SandboxView, cells: int) -> int:
    """The cell that the peak of its last pause ends in; -1 where there was none."""
    peak = sandbox.pause.peak if sandbox.pause else 0
    return min(cells, ceil(peak * cells / (2 * sandbox.memory))) - 1 if peak else -1


def _marked(rest: str, mark: int) -> Spans:
    if mark < 0:
        return _toned(rest)
    return (*_toned(rest[:mark]), Span("┃", "warn"), *_toned(rest[mark + 1 :]))


def _toned(rest: str) -> Spans:
    punched = rest.rstrip("·")
    return (Span(punched, "punched"), Span(rest[len(punched) :], "muted"))


def _share(part: int, whole: int, cells: int) -> int:
    """Cells for a part of a whole: what is there shows, even where it is little."""
    if part <= 0 or whole <= 0:
        return 0
    return max(1, min(cells, round(cells * part / whole)))


def decision_cell(sandbox: SandboxView) -> Spans:
    """What the flag said of the pause, or that the plan found punching not legal."""
    evaluation = sandbox.pause.decision.get(PUNCH) if sandbox.pause else None
    if sandbox.pause is None or evaluation is None:
        return NONE
    if evaluation["value"] and sandbox.pause.path is not None and not sandbox.pause.punch:
        return (Span("not legal", "warn"),)
    tone: Tone = "punched" if evaluation["value"] else "muted"
    return (Span(f"punch {words.on_off(evaluation['value'])}", tone),)


def reason_cell(sandbox: SandboxView) -> Spans:
    """Why the flag said so, in LaunchDarkly's words."""
    evaluation = sandbox.pause.decision.get(PUNCH) if sandbox.pause else None
    return NONE if evaluation is None else (Span(words.reason(evaluation), "muted"),)


def pause_cell(sandbox: SandboxView, cells: int) -> Spans:
    """Progress while the copy runs; then the path and how long the caller waited."""
    pause = sandbox.pause
    if pause is None:
        return NONE
    if in_flight(sandbox):
        return progress(pause, cells)
    if pause.outcome != "finished":
        return (Span((pause.outcome or "not begun").replace("-", " "), "bad" if pause.condemned else "warn"),)
    if pause.dirty_bytes == 0:
        return (Span("nothing dirty", "muted"),)
    waited = "" if pause.blocked_ms is None else f" {words.ms(pause.blocked_ms)}"
    return (Span(f"{_path(pause)}{waited}"),)


def _path(pause: PauseView) -> str:
    return (pause.path or "no path").replace("memfd-background", "background")


def progress(pause: PauseView, cells: int) -> Spans:
    """Chunks published of chunks planned; from where the guest is condemned it turns, and ◆ stands at its start."""
    if not pause.chunks:
        return (Span("condemned", "condemned") if pause.condemned else Span("preparing", "busy"),)
    tone: Tone = "condemned" if pause.condemned else "busy"
    count = f" {pause.published}/{pause.chunks}"
    room = max(1, min(24, cells - len(count)))
    done = _share(pause.published, pause.chunks, room)
    bar = ("◆" + "━" * (done - 1)) if pause.condemned and done else "━" * done
    return (Span(bar, tone), Span("─" * (room - done), "muted"), Span(count, tone))


def peak_cell(sandbox: SandboxView) -> Spans:
    """Most memory the pause took, in units of what the guest had at the freeze; one that copied nothing has none."""
    peak = sandbox.pause.peak_ratio if sandbox.pause and sandbox.pause.dirty_bytes != 0 else None
    return NONE if peak is None else (Span(words.ratio(peak), "warn" if peak >= HIGH else "good"),)


def trend_cell(sandbox: SandboxView) -> Spans:
    """The peaks of its last pauses, the latest at the right: the lowest is 1x, the highest 2x."""
    if not sandbox.peaks:
        return NONE
    return tuple(Span(_TREND[_height(peak)], "warn" if peak >= HIGH else "good") for peak in sandbox.peaks)


def _height(peak: float) -> int:
    return max(0, min(len(_TREND) - 1, round((peak - 1) * (len(_TREND) - 1))))


def copy_cell(sandbox: SandboxView) -> Spans:
    """How long the copy took."""
    took = sandbox.pause.copy_ms if sandbox.pause else None
    return NONE if took is None else (Span(words.ms(took)),)


def _bytes_cell(size: int | None) -> Spans:
    return NONE if size is None else (Span(words.mib(size), "plain" if size else "muted"),)


def dirty_cell(sandbox: SandboxView) -> Spans:
    """What the guest had written since its parent build when it was last frozen."""
    return _bytes_cell(sandbox.pause.dirty_bytes if sandbox.pause else None)


def name_cell(sandbox: SandboxView) -> Spans:
    """Struck by nothing but its tone: a sandbox that is gone for good is muted."""
    return (Span(sandbox.name, "muted" if sandbox.state in {"discarded", "killed"} else "plain"),)


def _fixed(draw: Callable[[SandboxView], Spans]) -> Callable[[SandboxView, int], Spans]:
    """A cell that is the same however wide its column is."""
    return lambda sandbox, _cells: draw(sandbox)


NAME = Column("sandbox", 8, 0, _fixed(name_cell))
MEMORY = Column("memory", 18, 0, memory_cell)
COLUMNS = (
    NAME,
    Column("state", 12, 0, _fixed(state_cell)),
    MEMORY,
    Column("now", 5, 4, _fixed(lambda sandbox: _bytes_cell(sandbox.resident + sandbox.cached)), right=True),
    Column("punched", 7, 6, _fixed(lambda sandbox: _bytes_cell(sandbox.punched)), right=True),
    Column("last dirty", 10, 5, _fixed(dirty_cell), right=True),
    Column("decision", 9, 1, _fixed(decision_cell)),
    Column("reason", 16, 3, _fixed(reason_cell)),
    Column("last pause", 17, 0, pause_cell),
    Column("copy", 8, 7, _fixed(copy_cell), right=True),
    Column("peak", 6, 0, _fixed(peak_cell), right=True),
    Column("trend", PEAKS, 8, _fixed(trend_cell)),
)
WIDEST_BAR = 40


@lru_cache(maxsize=16)
def columns(cells: int, longest_name: int, sorted_by: str = "", *, backwards: bool = False) -> tuple[Column, ...]:
    """The columns that fit beside the two cells of the marks; what is left over goes to the memory bar.

    The one that the fleet is sorted by is kept before others, and marked.
    """
    name = max(NAME.cells, min(24 if cells >= 100 else 13, longest_name + 1))
    kept = [replace(column, cells=name) if column is NAME else column for column in COLUMNS]
    kept = [_sorted(each, "▴" if backwards else "▾") if each.title == sorted_by else each for each in kept]
    while _needed(kept) > cells and any(column.rank for column in kept):
        kept.remove(max(kept, key=lambda column: column.rank))
    spare = max(0, cells - _needed(kept)) // 2 * 2
    wider = min(WIDEST_BAR, MEMORY.cells + spare)
    return tuple(replace(column, cells=wider) if column.title == MEMORY.title else column for column in kept)


def _sorted(column: Column, mark: str) -> Column:
    return replace(column, rank=0, sorted=mark, cells=max(column.cells, len(column.title) + 1))


def _needed(kept: list[Column]) -> int:
    return 2 + sum(column.cells for column in kept) + GAP * (len(kept) - 1)


def header(layout: tuple[Column, ...]) -> Spans:
    """The titles over the columns; over the memory bar, where 1x and 2x are. ▾ or ▴ is what the fleet is sorted by; a
    click on a title changes it."""
    return (Span("  "), *_joined([fit((_title(each),), each.cells, right=each.right) for each in layout]))


def _title(column: Column) -> Span:
    title = column.title + column.sorted
    if column.title == MEMORY.title:
        title = f"{title:<{column.cells // 2}}╵1x"
        title = f"{title:<{column.cells - 2}}2x"
    return Span(title, "title" if column.sorted else "muted", f"screen.sort_by({column.title!r})")


def row(sandbox: SandboxView, layout: tuple[Column, ...], *, cursor: bool, selected: bool) -> Spans:
    """One sandbox; the marks say in two cells what the background says in colour."""
    marks = Span("▶" if cursor else " ", "title"), Span("✓" if selected else " ", "title")
    cells = [fit(each.draw(sandbox, each.cells), each.cells, right=each.right) for each in layout]
    return (*marks, *_joined(cells))


def _joined(cells: list[Spans]) -> Spans:
    joined: list[Span] = []
    for cell in cells:
        joined += [Span(" " * GAP), *cell] if joined else cell
    return tuple(joined)


@dataclass(frozen=True, slots=True)
class Sort:
    """By the column of that title: the least key comes first, and among equals the fleet's own order."""

    column: str
    key: Callable[[SandboxView], float]


_FIRST_SHOWN = ("discarded", "pausing", "checkpointing", "resuming", "running", "paused", "created", "killed")
"""What needs a look comes first."""


def _state(sandbox: SandboxView) -> float:
    return -1 if past_return(sandbox) else _FIRST_SHOWN.index(sandbox.state)


def _dirty(sandbox: SandboxView) -> float:
    return -(sandbox.pause.dirty_bytes or 0) if sandbox.pause else 1


def _wait(sandbox: SandboxView) -> float:
    return -(sandbox.pause.blocked_ms or 0) if sandbox.pause else 1


def _peak(sandbox: SandboxView) -> float:
    return -(sandbox.pause.peak_ratio or 0) if sandbox.pause else 1


def _copy(sandbox: SandboxView) -> float:
    return -(sandbox.pause.copy_ms or 0) if sandbox.pause else 1


def _decision(sandbox: SandboxView) -> float:
    return 1 if sandbox.pause is None else 0 if not sandbox.pause.punch else -1


SORTS: tuple[Sort | None, ...] = (
    None,
    Sort("state", _state),
    Sort(MEMORY.title, lambda sandbox: -(sandbox.resident + sandbox.cached)),
    Sort("now", lambda sandbox: -(sandbox.resident + sandbox.cached)),
    Sort("punched", lambda sandbox: -sandbox.punched),
    Sort("decision", _decision),
    Sort("copy", _copy),
    Sort("last dirty", _dirty),
    Sort("last pause", _wait),
    Sort("peak", _peak),
)
"""What the sort key goes through; None is the fleet's own order."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`words` of the filter, all of which must fit, and the order."""

    words: str = ""
    sort: Sort | None = None
    backwards: bool = False

    @property
    def is_plain(self) -> bool:
        """True where all is shown in the fleet's own order."""
        return not self.words and self.sort is None

    def names(self, sandboxes: Iterable[SandboxView]) -> list[str]:
        """Who is shown, in order."""
        terms = self.words.lower().split()
        shown = [each for each in sandboxes if all(fits(each, term) for term in terms)]
        if self.sort is not None:
            shown.sort(key=self.sort.key, reverse=self.backwards)
        return [each.name for each in shown]

    def next_sort(self) -> Sort | None:
        """The one after this."""
        return SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]

    def by(self, column: str) -> Choice:
        """By the column of that title; by the same once more: backwards, then in the fleet's own order."""
        sort = next((each for each in SORTS if each is not None and each.column == column), None)
        if sort is None or (self.sort == sort and self.backwards):
            return replace(self, sort=None, backwards=False)
        return replace(self, sort=sort, backwards=self.sort == sort)


def fits(sandbox: SandboxView, term: str) -> bool:
    """A pattern (`web-1*`) is of the name; else part of name, state, template, team or cluster; `!` is not."""
    if term.startswith("!"):
        return len(term) == 1 or not fits(sandbox, term[1:])
    if any(wild in term for wild in "*?["):
        return fnmatchcase(sandbox.name.lower(), term)
    words = [sandbox.name, sandbox.state, sandbox.template, sandbox.team, sandbox.cluster]
    words += ["condemned"] if past_return(sandbox) else []
    return any(term in word.lower() for word in words)


def choice_line(choice: Choice, shown: int, of: int, selected: int, hidden: int, cells: int) -> Spans:
    """What is filtered and selected; `hidden` of the selected are not shown."""
    pieces = [Piece(0, (Span(" filter ", "muted"), Span(choice.words, "title")))] if choice.words else []
    pieces += [Piece(2, (Span(f"{shown} of {of} shown", "plain" if shown else "warn"),))] if choice.words else []
    unseen = f", {hidden} of them not shown" if hidden else ""
    pieces += [Piece(1, (Span(f" {selected} selected{unseen}", "warn" if hidden else "title"),))] if selected else []
    return line_of(pieces, cells, gap=2)
