"""What happened in a stretch of a run, from its ledger and view alone: what stages report and metrics measure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from flags.lease import LEASE_EXPIRED
from sim.record import events
from sim.record.ledger import Entry
from sim.record.view import LOST_AT_CHECKPOINT, PauseView, View
from sim.report.late_failures import failed_late

SOUND_STATES = frozenset({"VALID", ""})
GONE = frozenset({"discarded", "killed"})


@dataclass(frozen=True, slots=True)
class Pools:
    """Peaks of the node's two pools, bytes: 2 MiB pages, and 4 KiB pages with caches; `both` at the same moment.

    `page_cache` is what finished builds on disk keep in the second pool; the kernel may take it back. Without `samples`
    nothing is known: no pause ran.
    """

    hugetlb: int = 0
    pages: int = 0
    both: int = 0
    page_cache: int = 0
    samples: int = 0


@dataclass(frozen=True, slots=True)
class PauseCost:
    """What one finished pause took, milliseconds and bytes: the `nth` of its sandbox in the run, from 0.

    `began` in seconds by the machine's own clock; `on`: the flag was on for it; `punched`: memory was freed. None
    where it does not apply.
    """

    sandbox: str
    nth: int
    began: float
    on: bool
    punched: bool
    copy_ms: float | None = None
    blocked_ms: float | None = None
    peak_over: int | None = None
    cpu_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """Pause counts, except where a field lists sandbox names; milliseconds, bytes. `at_risk` is the peak.

    A sandbox is at risk while it is condemned and its snapshot is unfinished. `late` are pauses that punched
    although decided later after a kill switch than it was allowed; `stalest` seconds after a change that an old value
    still ruled. A checkpoint with a new guest is also a pause, one that is `in_place` is not. `read` are pauses whose
    sandbox was resumed at once, after `reader_waits`.
    """

    asked: int = 0
    finished: int = 0
    rolled_back: int = 0
    refused: int = 0
    discarded: int = 0
    decided_on: int = 0
    punched_pauses: int = 0
    punched: tuple[str, ...] = ()
    punched_bytes: int = 0
    paused: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    at_risk: int = 0
    costs: tuple[PauseCost, ...] = ()
    pools: Pools = Pools()
    reasons: Mapping[str, int] = field(default_factory=dict)
    decision_errors: int = 0
    stale_decisions: int = 0
    stalest: float = 0.0
    late: int = 0
    corrupted: int = 0
    checkpoints: int = 0
    in_place: int = 0
    lost_at_checkpoint: tuple[str, ...] = ()
    failed_late: int = 0
    read: int = 0
    read_while_copied: int = 0
    reader_waits: tuple[float, ...] = ()


def saved(off: Figures, on: Figures, concurrency: int, scale: Fraction = Fraction(1)) -> int | None:
    """Bytes that a node need not keep free for the largest pauses, so many at once: `off` less `on`.

    At a `scale`, of a node in production: what a pause that punches needs does not scale, as chunks do not. None where
    one of them has no pause.
    """
    needs = [_needs(each, concurrency, scale) for each in (off, on)]
    return None if needs[0] is None or needs[1] is None else needs[0] - needs[1]


def _needs(figures: Figures, concurrency: int, scale: Fraction) -> int | None:
    """Bytes beyond the guests, of the largest pauses at once."""
    over = [
        each.peak_over if each.punched else int(each.peak_over / scale)
        for each in figures.costs
        if each.peak_over is not None
    ]
    return sum(sorted(over, reverse=True)[:concurrency]) if over else None


@dataclass(frozen=True, slots=True)
class Window:
    """[begin, end) in seconds since the run began."""

    begin: float
    end: float

    def holds(self, t: float) -> bool:
        """Whether that moment lies in it."""
        return self.begin <= t < self.end


@dataclass(frozen=True, slots=True)
class KillSwitchUse:
    """A kill switch thrown at its source at `begin`, taken back at `end`; obeyed after `allowed` seconds at most."""

    begin: float
    end: float
    allowed: float


def figures(
    flag: str,
    entries: Sequence[Entry],
    view: View,
    window: Window,
    kills: Iterable[KillSwitchUse] = (),
    corrupted: int = 0,
) -> Figures:
    """Of all that began in the window; `corrupted` is what the checkers found in it."""
    began = [each for each in view.pauses if window.holds(each.began)]
    pauses = [each for each in began if each.consumed]
    outcomes = Counter(each.outcome for each in pauses)
    on = [each for each in pauses if _is_on(each, flag)]
    freed = [each for each in pauses if each.punched_bytes > 0]
    done = [each for each in pauses if each.outcome == "finished"]
    return Figures(
        asked=len(pauses),
        finished=outcomes["finished"],
        rolled_back=outcomes["rolled-back"],
        refused=outcomes["refused"],
        discarded=outcomes["discarded"],
        decided_on=len(on),
        punched_pauses=len(freed),
        punched=_names(freed),
        punched_bytes=sum(each.punched_bytes for each in freed),
        paused=_names(done),
        lost=_lost(entries, window),
        at_risk=_at_risk(pauses),
        costs=tuple(costs(flag, pauses)),
        pools=_pools(entries, window),
        reasons=dict(Counter(_reason(each, flag) for each in pauses)),
        decision_errors=sum(_reason(each, flag).startswith("ERROR") for each in pauses),
        stale_decisions=sum(not _is_sound(each, flag) for each in pauses),
        stalest=max((_staleness(each, flag, kills) for each in pauses), default=0.0),
        late=sum(_is_late(each, flag, kills) for each in freed),
        corrupted=corrupted,
        checkpoints=sum(each.checkpoint for each in began),
        in_place=sum(not each.consumed for each in began),
        lost_at_checkpoint=_names([each for each in pauses if each.outcome_code == LOST_AT_CHECKPOINT]),
        failed_late=len(failed_late(pauses)),
        read=sum(each.read for each in pauses),
        read_while_copied=sum(each.read_while_copied for each in pauses),
        reader_waits=tuple(each.reader_waited_ms for each in pauses if each.read and each.reader_waited_ms is not None),
    )


def costs(flag: str, pauses: Iterable[PauseView], epoch: float = 0.0) -> Iterator[PauseCost]:
    """Of the finished ones among a run's pauses, in order; `epoch` is when the run began, by the machine's clock."""
    seen: Counter[str] = Counter()
    for each in pauses:
        nth, on, punched = seen[each.sandbox], _is_on(each, flag), each.punched_bytes > 0
        seen[each.sandbox] += 1
        if each.outcome == "finished" and each.consumed:
            took = (each.copy_ms, each.blocked_ms, each.peak_over, each.cpu_seconds)
            yield PauseCost(each.sandbox, nth, epoch + each.began, on, punched, *took)


def _names(pauses: Iterable[PauseView]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.sandbox for each in pauses))


def _is_on(pause: PauseView, flag: str) -> bool:
    return pause.decision.get(flag, {}).get("value") is True


def _reason(pause: PauseView, flag: str) -> str:
    return str(pause.decision.get(flag, {}).get("reason", "not decided"))


def _is_sound(pause: PauseView, flag: str) -> bool:
    """Decided from a source in order; a lease that has run out says so in the reason."""
    state = str(pause.decision.get(flag, {}).get("source_state", ""))
    return state in SOUND_STATES and _reason(pause, flag) != LEASE_EXPIRED


def _staleness(pause: PauseView, flag: str, kills: Iterable[KillSwitchUse]) -> float:
    """Seconds after a kill switch at which this pause was still decided on; 0 where it was not."""
    if not _is_on(pause, flag):
        return 0.0
    return max((pause.began - each.begin for each in kills if each.begin <= pause.began < each.end), default=0.0)


def _is_late(pause: PauseView, flag: str, kills: Iterable[KillSwitchUse]) -> bool:
    return any(each.begin + each.allowed < pause.began < each.end for each in kills) and _is_on(pause, flag)


def _lost(entries: Iterable[Entry], window: Window) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(
            each.sandbox or ""
            for each in entries
            if window.holds(each.t) and isinstance(each.event, events.StateChanged) and each.event.new in GONE
        )
    )


def _at_risk(pauses: Iterable[PauseView]) -> int:
    """The most sandboxes at once that could not go back and could not yet be resumed from a whole snapshot."""
    edges = []
    for each in pauses:
        if each.punch and each.condemned_at is not None:
            edges.append((each.condemned_at, 1))
            edges += [(each.settled_at, -1)] if each.settled_at is not None else []
    most = now = 0
    for _, change in sorted(edges):
        now += change
        most = max(most, now)
    return most


def _pools(entries: Iterable[Entry], window: Window) -> Pools:
    samples = [each.event for each in entries if window.holds(each.t) and isinstance(each.event, events.MemorySampled)]
    return Pools(
        hugetlb=max((each.hugetlb for each in samples), default=0),
        pages=max((each.guests + each.caches for each in samples), default=0),
        both=max((each.guests + each.caches + each.hugetlb for each in samples), default=0),
        page_cache=max((each.page_cache for each in samples), default=0),
        samples=len(samples),
    )
