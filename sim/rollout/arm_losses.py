"""What the arms of a rehearsal lost, what was salvaged, and what that cost in memory; from their ledgers alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.events import Stranded
from engine.plan import WHOLE
from sim.record import events
from sim.record.folder import StoredRun
from sim.record.ledger import Entry
from sim.rollout.stretch import Figures, Window, figures


@dataclass(frozen=True, slots=True)
class ArmLoss:
    """One arm over its whole run: its pauses, the sandboxes that it lost, and the node's peak, bytes."""

    pauses: int
    lost: tuple[str, ...]
    peak: int


@dataclass(frozen=True, slots=True)
class Salvaged:
    """Pauses whose copies failed past the point of no return with salvage on, and how they ended.

    `failed` are the sandboxes of all of them, `sandboxes` those of completed builds. `bytes` were in memory alone when
    the first copy of a build failed that was `completed` later; `at_once` is the most
    bytes that were stranded at one moment; `longest` and `seconds` are how long builds were stranded, one and all.
    `left` were still stranded as the run ended; `not_salvaged` counts the codes of those that were discarded.
    """

    failed: tuple[str, ...]
    stranded: int
    completed: int
    sandboxes: tuple[str, ...]
    bytes: int
    at_once: int
    longest: float
    seconds: float
    left: int
    not_salvaged: dict[str, int]


@dataclass(frozen=True, slots=True)
class ThreeArms:
    """The flag off, on, and on with salvage. `run` is the third one, whose steps are those of the second."""

    off: ArmLoss
    on: ArmLoss
    salvage: ArmLoss
    salvaged: Salvaged
    run: StoredRun


def three_arms(flag: str, off: StoredRun, on: StoredRun, salvage: StoredRun, stopped: int | None) -> ThreeArms:
    """`stopped` is the scenario step (from 0) after which the arm with the flag on went no further; None: to the end.

    What the arm with the flag off did after that step does not count.
    """
    until = float("inf") if stopped is None else _begin(off.entries, stopped + 1)
    return ThreeArms(
        off=_loss(flag, off, until),
        on=_loss(flag, on),
        salvage=_loss(flag, salvage),
        salvaged=salvaged(salvage),
        run=salvage,
    )


def _begin(entries: Sequence[Entry], step: int) -> float:
    begun = (each.t for each in entries if isinstance(each.event, events.StepStarted) and each.event.index == step)
    return next(begun, float("inf"))


def _loss(flag: str, run: StoredRun, end: float = float("inf")) -> ArmLoss:
    found: Figures = figures(flag, run.entries, run.view, Window(0.0, end))
    return ArmLoss(found.asked, found.lost, found.pools.both)


@dataclass
class _Strand:
    """One build that was stranded, from its first failure to its end."""

    sandbox: str
    began: float
    length: int
    ended: float


def salvaged(run: StoredRun) -> Salvaged:
    """Of one run with salvage; what is not settled was stranded until its last line."""
    last = run.entries[-1].t if run.entries else 0.0
    found: dict[str, _Strand] = {}
    ends: dict[str, str] = {}
    failed: dict[str, None] = {}
    changes: list[tuple[float, int]] = []
    held: dict[str, int] = {}
    for entry in run.entries:
        pause = entry.pause or ""
        match entry.event:
            case Stranded(length=length):
                failed[entry.sandbox or ""] = None
                found.setdefault(pause, _Strand(entry.sandbox or "", entry.t, length, last))
                changes.append((entry.t, length - held.get(pause, 0)))
                held[pause] = length
            case events.PauseSettled(salvage=str(salvage)):
                ends[pause] = salvage
                failed[entry.sandbox or ""] = None
                if pause in found:
                    found[pause].ended = entry.t
                changes.append((entry.t, -held.pop(pause, 0)))
    whole = [strand for pause, strand in found.items() if ends.get(pause) == WHOLE]
    codes = Counter(code for code in ends.values() if code != WHOLE)
    times = [strand.ended - strand.began for strand in found.values()]
    return Salvaged(
        failed=tuple(failed),
        stranded=len(found),
        completed=len(whole),
        sandboxes=tuple(dict.fromkeys(each.sandbox for each in whole)),
        bytes=sum(each.length for each in whole),
        at_once=_most(changes),
        longest=max(times, default=0.0),
        seconds=round(sum(times), 6),
        left=sum(pause not in ends for pause in found),
        not_salvaged=dict(codes),
    )


def _most(changes: Iterable[tuple[float, int]]) -> int:
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most
