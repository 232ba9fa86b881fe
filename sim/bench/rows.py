"""The table of what is measured: each row with what it needs, what it makes of that, and its goal."""

from __future__ import annotations

import fnmatch
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sim.bench import candidates, latencies, layouts, pool, screen
from sim.bench.candidates import GIB, Bench, Case, Taken
from sim.oracle import PAGE
from sim.units import HUGE_PAGE, format_size

TMPFS, DISK = "tmpfs", "disk"
DESTS = (TMPFS, DISK)

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One way of measuring applied to one case; taken once a round, however many rows need it."""

    take: Callable[[Bench, Case], Taken]
    case: Case


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit on the judged figure; it means something only for guests of `size` bytes and more."""

    limit: float
    at_least: bool = False
    size: int = 0
    floor: float | None = None

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """`figures` makes a round's result of what `needs` gave, in that order; `judged` names the one that counts.

    What is not `timed` is not disturbed by other processes either.
    """

    name: str
    case: Case
    needs: tuple[Measurement, ...]
    figures: Callable[..., dict[str, float]]
    judged: str = "value"
    unit: str | None = None
    goal: Goal | None = None
    summary: Callable[[Sequence[float]], float] = statistics.median
    timed: bool = True

    @property
    def label(self) -> str:
        """`copy/full/4KiB/tmpfs/punch`: the name and what applies of the case."""
        case = self.case
        page = None if case.page_size is None else format_size(case.page_size)
        punch = None if case.punch is None else "punch" if case.punch else "no-punch"
        return "/".join(part for part in (self.name, case.layout, page, case.dest, punch) if part)

    def is_selected(self, only: Sequence[str]) -> bool:
        """True where `only` is empty, or one of it is this label, its beginning up to a `/`, or a glob for it."""
        return not only or any(
            self.label == each or self.label.startswith(f"{each}/") or fnmatch.fnmatchcase(self.label, each)
            for each in only
        )


def rows() -> list[Row]:
    """Every row, in the order in which it is told."""
    return [
        *_copies(),
        *_source_free(),
        *_peaks(),
        *_answers(),
        *_scans(),
        *_compares(),
        *_latencies(),
        *_pools(),
        *_screens(),
    ]


def _full() -> Iterator[Case]:
    for page in (PAGE, HUGE_PAGE):
        for dest in DESTS:
            yield Case(layouts.FULL, page, dest, punch=True)
            yield Case(layouts.FULL, page, dest, punch=False)


def _others() -> Iterator[Case]:
    for layout in layouts.COPIED:
        if layout != layouts.FULL:
            for dest in DESTS:
                yield Case(layout, PAGE, dest, punch=True)


_LIMIT = Measurement(candidates.memcpy, Case())
_COPY_GOALS = {
    TMPFS: Goal(2.5, at_least=True, size=GIB, floor=1.6),
    DISK: Goal(2.3, at_least=True, size=GIB, floor=1.6),
}


def _ours(case: Case) -> Measurement:
    return Measurement(candidates.pause_copy, case)


def _copies() -> Iterator[Row]:
    for case in (*_full(), *_others()):
        needs = (_ours(case), Measurement(candidates.mmap_memmove, case), _LIMIT)
        goal = _COPY_GOALS[case.dest] if case.punch and case.dest else None
        yield Row("copy", case, needs, _copy, "ratio_to_mmap_memmove", "GiB/s", goal)


def _copy(ours: Figures, theirs: Figures, limit: Figures) -> dict[str, float]:
    return {
        "gib_per_s": ours["gib_per_s"],
        "value": ours["gib_per_s"],
        "ratio_to_mmap_memmove": ours["gib_per_s"] / theirs["gib_per_s"],
        "ratio_to_memcpy": ours["gib_per_s"] / limit["gib_per_s"],
        "peak_over": ours["peak_over"],
        "peak_ratio": ours["peak_ratio"],
    }


def _source_free() -> Iterator[Row]:
    """Time until the guest's memory is free, with punching against without."""
    for page in (PAGE, HUGE_PAGE):
        for dest in DESTS:
            needs = tuple(_ours(Case(layouts.FULL, page, dest, punch)) for punch in (True, False))
            case = Case(layouts.FULL, page, dest)
            yield Row("source-free", case, needs, _times_longer, unit="x not punching", goal=Goal(1.10, size=GIB))


def _times_longer(punching: Figures, not_punching: Figures) -> dict[str, float]:
    return {"value": punching["free_seconds"] / not_punching["free_seconds"]}


def _peaks() -> Iterator[Row]:
    for case in (*_full(), *_others()):
        if case.punch:
            yield Row("peak", case, (_ours(case),), _peak, unit="bytes", goal=Goal(8 << 20), summary=max, timed=False)


def _peak(ours: Figures) -> dict[str, float]:
    peak = {"peak_over": ours["peak_over"], "peak_ratio": ours["peak_ratio"]}
    return {"value": ours["peak_over"], **peak}


def _answers() -> Iterator[Row]:
    for layout in (layouts.FULL, layouts.SCATTERED_50):
        case = Case(layout, PAGE, TMPFS, punch=True)
        needs = (Measurement(candidates.background_return, case),)
        yield Row("background-return", case, needs, _answer, unit="ms", goal=Goal(20.0, size=GIB))
        yield Row("first-chunk", case, needs, _reader, unit="x the copy", goal=Goal(0.05, size=GIB))


def _answer(background: Figures) -> dict[str, float]:
    return {"value": background["return_ms"]}


def _reader(background: Figures) -> dict[str, float]:
    """How much of the copy's time a reader of its last chunk waits, from the pause's start."""
    wait = {"reader_ms": background["reader_ms"], "copy_ms": background["copy_ms"]}
    return {"value": background["reader_ms"] / background["copy_ms"], **wait}


def _scans() -> Iterator[Row]:
    for layout in (layouts.FULL, layouts.SCATTERED_50):
        case = Case(layout, PAGE)
        yield Row("scan", case, (Measurement(candidates.dirty_scan, case),), _as_taken, unit="ms/GiB")


def _compares() -> Iterator[Row]:
    case = Case(layouts.FULL, PAGE, TMPFS)
    needs = (Measurement(candidates.dedup_compare, case),)
    yield Row("dedup-compare", case, needs, _as_taken, unit="GiB/s", goal=Goal(4.0, at_least=True, size=GIB))


def _latencies() -> Iterator[Row]:
    yield Row("spawn", Case(), (Measurement(latencies.spawn, Case()),), _as_taken, unit="ms", goal=Goal(3.0))
    yield Row("decision", Case(), (Measurement(latencies.decision, Case()),), _p99, unit="us p99", goal=Goal(400.0))
    needs = (Measurement(latencies.decision_among_others, Case()),)
    yield Row(f"decision-of-{latencies.ENVIRONMENT}", Case(), needs, _p99, unit="us p99")


def _pools() -> Iterator[Row]:
    """A thousand cases a minute, on two CPUs."""
    needs = (Measurement(pool.runs, Case()),)
    yield Row("pool-start", Case(), needs, _started, unit="ms", goal=Goal(300.0))
    yield Row("sweep", Case(), needs, _swept, unit="runs/s", goal=Goal(1000 / 60, at_least=True))
    yield Row("two-workers", Case(), needs, _side_by_side, unit="x one", goal=Goal(1.7, at_least=True))


def _started(pooled: Figures) -> dict[str, float]:
    """Until a first run has ended, less what a run takes."""
    return {"value": pooled["first_ms"] - 1e3 / pooled["alone_per_s"]}


def _swept(pooled: Figures) -> dict[str, float]:
    return {"value": pooled["together_per_s"]}


def _side_by_side(pooled: Figures) -> dict[str, float]:
    return {"value": pooled["together_per_s"] / pooled["alone_per_s"]}


def _screens() -> Iterator[Row]:
    """1,000 rows at 4 Hz."""
    needs = (Measurement(screen.fleet_screen, Case()),)
    yield Row("fleet-screen", Case(), needs, _as_taken, unit="% of a core", goal=Goal(15.0))


def _as_taken(taken: Figures) -> dict[str, float]:
    return dict(taken)


def _p99(decisions: Figures) -> dict[str, float]:
    return {"value": decisions["p99_us"], **decisions}
