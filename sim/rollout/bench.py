"""The rows and what each needs."""

from __future__ import annotations

import fnmatch
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from engine import linux
from engine.errors import UserError
from sim.files.units import HUGE_PAGE, format_size
from sim.record.oracle import PAGE
from sim.rollout import bench_calls, bench_candidates, bench_guest, bench_ways
from sim.rollout.bench_against import Against
from sim.rollout.bench_guest import has_parent
from sim.rollout.bench_host import DISK, HUGE_TMPFS, TMPFS
from sim.rollout.bench_ways import GIB, Bench, BenchCase, BenchTaken
from sim.run.host import host

DESTS = (TMPFS, DISK)
Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class BenchMeasurement:
    """One way of measuring applied to one case; taken once a round, however many rows need it."""

    take: Callable[[Bench, BenchCase], BenchTaken]
    case: BenchCase


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
class BenchRow:
    """`figures` makes a round's result of what `needs` gave, in that order; `judged` names the one that counts.

    Where other processes disturbed every round, `cpu_goal` counts instead, of the figure `cpu_ratio`. What is not
    `timed` is not disturbed by them.
    """

    name: str
    case: BenchCase
    needs: tuple[BenchMeasurement, ...]
    figures: Callable[..., dict[str, float]]
    judged: str = "value"
    unit: str | None = None
    goal: Goal | None = None
    cpu_goal: Goal | None = None
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


def rows(against: Path | None = None) -> list[BenchRow]:
    """Every row, in the order in which they are printed; with those of another program that copies."""
    return [
        *_copies(),
        *(_against(Against(str(against))) if against else ()),
        *_adopted(),
        *_source_free(),
        *_peaks(),
        *_waves(),
        *_kills(),
        *_answers(),
        *_scans(),
        *_compares(),
        *_latencies(),
        *_pools(),
        *_screens(),
    ]


def _full() -> Iterator[BenchCase]:
    for page in (PAGE, HUGE_PAGE):
        for dest in DESTS:
            yield BenchCase(bench_guest.FULL, page, dest, punch=True)
            yield BenchCase(bench_guest.FULL, page, dest, punch=False)


def _others() -> Iterator[BenchCase]:
    for layout in bench_guest.COPIED:
        if layout != bench_guest.FULL:
            for dest in DESTS:
                yield BenchCase(layout, PAGE, dest, punch=True)


def _huge() -> Iterator[BenchCase]:
    """Caches in huge pages."""
    for layout in bench_guest.COPIED:
        yield BenchCase(layout, PAGE, HUGE_TMPFS, punch=True)
    yield BenchCase(bench_guest.FULL, PAGE, HUGE_TMPFS, punch=False)


_LIMIT = BenchMeasurement(bench_ways.memcpy, BenchCase())
_UNTIL_FREE = "until_free_ratio"


def _at_least(limit: float, floor: float | None = None) -> Goal:
    return Goal(limit, at_least=True, size=GIB, floor=floor)


_GOALS = {
    bench_guest.FULL: {TMPFS: _at_least(2.5, 1.6), DISK: _at_least(2.2, 1.6), HUGE_TMPFS: _at_least(4.0)},
    bench_guest.HALF_IN_ONE_RUN: {TMPFS: _at_least(2.5, 1.6), DISK: _at_least(2.2, 1.6)},
    bench_guest.EVERY_SECOND: dict.fromkeys((*DESTS, HUGE_TMPFS), _at_least(5.0, 1.6)),
    bench_guest.SCATTERED_10: dict.fromkeys((*DESTS, HUGE_TMPFS), _at_least(3.0, 1.6)),
    bench_guest.CLEAN_90: dict.fromkeys((*DESTS, HUGE_TMPFS), _at_least(1.5)),
}
"""Of a copy that punches, in times the speed of mmap + memmove."""


def _cpu_goal(case: BenchCase) -> Goal:
    """CPU seconds, as a share of what mmap + memmove takes."""
    if case.dest == HUGE_TMPFS:
        return Goal(0.5, size=GIB)
    return Goal(0.75 if case.dest == TMPFS and case.punch else 0.9, size=GIB)


def _ours(case: BenchCase) -> BenchMeasurement:
    return BenchMeasurement(bench_ways.pause_copy, case)


def _copies() -> Iterator[BenchRow]:
    """Where one side frees more than the other, because clean pages are there, both are timed until all is free.

    Copies into huge pages are compared with mmap + memmove into small ones, as the original has them.
    """
    for case in (*_full(), *_others(), *_huge()):
        original = replace(case, dest=TMPFS) if case.dest == HUGE_TMPFS else case
        needs = (_ours(case), BenchMeasurement(bench_ways.mmap_memmove, original), _LIMIT)
        goal = _GOALS.get(case.layout or "", {}).get(case.dest or "") if case.punch else None
        judged = _UNTIL_FREE if has_parent(case.layout or "") else "ratio_to_mmap_memmove"
        yield BenchRow("copy", case, needs, _copy, judged, "GiB/s", goal, _cpu_goal(case))


def _copy(ours: Figures, theirs: Figures, limit: Figures) -> dict[str, float]:
    return {
        "gib_per_s": ours["gib_per_s"],
        "value": ours["gib_per_s"],
        "ratio_to_mmap_memmove": ours["gib_per_s"] / theirs["gib_per_s"],
        _UNTIL_FREE: theirs["free_seconds"] / ours["free_seconds"],
        "ratio_to_memcpy": ours["gib_per_s"] / limit["gib_per_s"],
        "peak_over": ours["peak_over"],
        "peak_ratio": ours["peak_ratio"],
        **_cpu(ours, theirs),
    }


def _cpu(one: Figures, other: Figures) -> dict[str, float]:
    """What one takes, and as a share of what the other takes."""
    return {"cpu_s_per_gib": one["cpu_s_per_gib"], "cpu_ratio": one["cpu_s_per_gib"] / other["cpu_s_per_gib"]}


def _against(program: Against) -> Iterator[BenchRow]:
    """Another program's copy beside ours: above 1 it is the slower one."""
    for case in (*_full(), *_others()):
        needs = (_ours(case), BenchMeasurement(program, case))
        yield BenchRow("against", case, needs, _beside, unit="x its speed")


def _beside(ours: Figures, theirs: Figures) -> dict[str, float]:
    return {
        "value": theirs["seconds"] / ours["seconds"],
        _UNTIL_FREE: theirs["free_seconds"] / ours["free_seconds"],
        **_cpu(ours, theirs),
    }


def _adopted() -> Iterator[BenchRow]:
    """A way that the engine does not have, beside the one that it has: above 1 it is faster, below 1 takes less CPU."""
    for layout in (bench_guest.FULL, bench_guest.HALF_IN_ONE_RUN, bench_guest.CLEAN_90):
        case = BenchCase(layout, PAGE, TMPFS, punch=True)
        needs = (BenchMeasurement(bench_candidates.adopt, case), _ours(case))
        yield BenchRow("adopt", case, needs, _times_faster, unit="x a pause")


def _times_faster(candidate: Figures, ours: Figures) -> dict[str, float]:
    return {"value": ours["seconds"] / candidate["seconds"], **_cpu(candidate, ours)}


def _waves() -> Iterator[BenchRow]:
    """Eight pauses, four at a time, against one of all their memory."""
    case = BenchCase(bench_guest.FULL, PAGE, TMPFS, punch=True)
    needs = (BenchMeasurement(bench_candidates.wave, case), _ours(case))
    goals = Goal(0.8, at_least=True, size=GIB), Goal(1.25, size=GIB)
    yield BenchRow("wave", case, needs, _rate, "value", "x one pause", *goals)


def _rate(wave: Figures, one: Figures) -> dict[str, float]:
    return {"value": wave["gib_per_s"] / one["gib_per_s"], **_cpu(wave, one)}


def _source_free() -> Iterator[BenchRow]:
    """Time until the guest's memory is free, with punching against without."""
    for page in (PAGE, HUGE_PAGE):
        for dest in DESTS:
            needs = tuple(_ours(BenchCase(bench_guest.FULL, page, dest, punch)) for punch in (True, False))
            case = BenchCase(bench_guest.FULL, page, dest)
            yield BenchRow("source-free", case, needs, _times_longer, "value", "x not punching", *_AT_MOST_A_TENTH)


def _times_longer(one: Figures, other: Figures) -> dict[str, float]:
    """Until the guest's memory is free."""
    return {"value": one["free_seconds"] / other["free_seconds"], **_cpu(one, other)}


_AT_MOST_A_TENTH = Goal(1.10, size=GIB), Goal(1.10, size=GIB)
"""More than the other: of time, of CPU."""


def _kills() -> Iterator[BenchRow]:
    """A pause that kills its guest before the first punch, against one that does so at its end."""
    for layout in (bench_guest.FULL, bench_guest.SCATTERED_10):
        case = BenchCase(layout, PAGE, TMPFS, punch=True)
        needs = (_ours(case), BenchMeasurement(bench_ways.kill_last, case))
        yield BenchRow("kill-first", case, needs, _times_longer, "value", "x killing last", *_AT_MOST_A_TENTH)


def _peaks() -> Iterator[BenchRow]:
    for case in (*_full(), *_others(), *_huge()):
        if case.punch:
            yield BenchRow(
                "peak", case, (_ours(case),), _peak, unit="bytes", goal=Goal(8 << 20), summary=max, timed=False
            )


def _peak(ours: Figures) -> dict[str, float]:
    peak = {"peak_over": ours["peak_over"], "peak_ratio": ours["peak_ratio"]}
    return {"value": ours["peak_over"], **peak}


def _answers() -> Iterator[BenchRow]:
    for layout in (bench_guest.FULL, bench_guest.SCATTERED_50):
        case = BenchCase(layout, PAGE, TMPFS, punch=True)
        needs = (BenchMeasurement(bench_ways.background_return, case),)
        yield BenchRow("background-return", case, needs, _answer, unit="ms", goal=Goal(20.0, size=GIB))
        yield BenchRow("first-chunk", case, needs, _reader, unit="x the copy", goal=Goal(0.05, size=GIB))
    case = BenchCase(bench_guest.CLEAN_99, PAGE, TMPFS, punch=True)
    both = (BenchMeasurement(bench_ways.dedup_return, case), BenchMeasurement(bench_ways.background_return, case))
    goals = Goal(2.0, size=GIB), Goal(2.0, size=GIB)
    yield BenchRow("dedup-return", case, both, _times_later, "value", "x without dedup", *goals)


def _times_later(dedup: Figures, background: Figures) -> dict[str, float]:
    """How long the guest is frozen until the answer, with its pages compared and without."""
    cpu = {"cpu_ratio": dedup["return_cpu_ms"] / background["return_cpu_ms"]}
    return {"value": dedup["return_ms"] / background["return_ms"], "return_ms": dedup["return_ms"], **cpu}


def _answer(background: Figures) -> dict[str, float]:
    return {"value": background["return_ms"]}


def _reader(background: Figures) -> dict[str, float]:
    """How much of the copy's time a reader of its last chunk waits, from the pause's start."""
    wait = {"reader_ms": background["reader_ms"], "copy_ms": background["copy_ms"]}
    return {"value": background["reader_ms"] / background["copy_ms"], **wait}


def _scans() -> Iterator[BenchRow]:
    for layout in (bench_guest.FULL, bench_guest.SCATTERED_50):
        case = BenchCase(layout, PAGE)
        yield BenchRow("scan", case, (BenchMeasurement(bench_ways.dirty_scan, case),), _as_taken, unit="ms/GiB")
    for layout in (bench_guest.CLEAN_90, bench_guest.EVERY_SECOND):
        case = BenchCase(layout, PAGE)
        needs = (BenchMeasurement(bench_ways.holes, case),)
        yield BenchRow("holes", case, needs, _as_taken, unit="ms/GiB", goal=Goal(25.0, size=GIB))


def _compares() -> Iterator[BenchRow]:
    case = BenchCase(bench_guest.FULL, PAGE, TMPFS)
    needs = (BenchMeasurement(bench_ways.dedup_compare, case),)
    yield BenchRow("dedup-compare", case, needs, _as_taken, unit="GiB/s", goal=Goal(4.0, at_least=True, size=GIB))


def _latencies() -> Iterator[BenchRow]:
    yield from _guests("", bench_calls.processes, 3.0)
    yield from _guests("-vm", bench_calls.machines, 8.0)
    yield BenchRow(
        "decision",
        BenchCase(),
        (BenchMeasurement(bench_calls.decision, BenchCase()),),
        _p99,
        unit="us p99",
        goal=Goal(400.0),
    )
    needs = (BenchMeasurement(bench_calls.decision_among_others, BenchCase()),)
    yield BenchRow(f"decision-of-{bench_calls.ENVIRONMENT}", BenchCase(), needs, _p99, unit="us p99")


def _guests(suffix: str, take: Callable[[Bench, BenchCase], BenchTaken], spawn_ms: float) -> Iterator[BenchRow]:
    """Guests of one kind: born, ticked, frozen."""
    for act, goal in (("spawn", Goal(spawn_ms)), ("tick", None), ("freeze", None)):
        figures = partial(_only, f"{act}_ms")
        yield BenchRow(
            f"{act}{suffix}", BenchCase(), (BenchMeasurement(take, BenchCase()),), figures, unit="ms", goal=goal
        )


def _only(name: str, taken: Figures) -> dict[str, float]:
    return {"value": taken[name]}


def _pools() -> Iterator[BenchRow]:
    """A thousand cases a minute, on two CPUs."""
    needs = (BenchMeasurement(bench_calls.runs, BenchCase()),)
    yield BenchRow("pool-start", BenchCase(), needs, _started, unit="ms", goal=Goal(300.0))
    yield BenchRow("sweep", BenchCase(), needs, _swept, unit="runs/s", goal=Goal(1000 / 60, at_least=True))
    yield BenchRow("two-workers", BenchCase(), needs, _side_by_side, unit="x one", goal=Goal(1.7, at_least=True))


def _started(pooled: Figures) -> dict[str, float]:
    """Until a first run has ended, less what a run takes."""
    return {"value": pooled["first_ms"] - 1e3 / pooled["alone_per_s"]}


def _swept(pooled: Figures) -> dict[str, float]:
    return {"value": pooled["together_per_s"]}


def _side_by_side(pooled: Figures) -> dict[str, float]:
    return {"value": pooled["together_per_s"] / pooled["alone_per_s"]}


def _screens() -> Iterator[BenchRow]:
    """1,000 rows at 4 Hz."""
    needs = (BenchMeasurement(bench_calls.fleet_screen, BenchCase()),)
    yield BenchRow("fleet-screen", BenchCase(), needs, _as_taken, unit="% of a core", goal=Goal(15.0))


def _as_taken(taken: Figures) -> dict[str, float]:
    return dict(taken)


def _p99(decisions: Figures) -> dict[str, float]:
    return {"value": decisions["p99_us"], **decisions}


_SLACK = 256 << 20


def reason_to_leave_out(row: BenchRow, size: int, folders: dict[str, Path], no_huge_pages: str | None) -> str | None:
    """Why this host cannot measure the row; None where it can."""
    case = row.case
    if any(need.take is bench_calls.fleet_screen for need in row.needs) and (
        reason := bench_calls.reason_to_leave_out()
    ):
        return reason
    if case.page_size == HUGE_PAGE and no_huge_pages:
        return no_huge_pages
    if case.page_size == HUGE_PAGE and size % HUGE_PAGE:
        return f"{format_size(size)} is not a multiple of 2MiB"
    if case.dest and (reason := _wrong_place(case.dest, size, folders)):
        return reason
    if any(need.take is bench_calls.machines for need in row.needs) and not host()["kvm"]:
        return "no virtual machine can run here: see snapdrill doctor"
    scans = any(need.take is bench_ways.dirty_scan for need in row.needs)
    if (scans or has_parent(case.layout or "")) and not _can_scan():
        return "the kernel cannot list what a guest wrote (no write-protect scan)"
    return None


def _wrong_place(dest: str, size: int, folders: dict[str, Path]) -> str | None:
    folder = folders.get(dest)
    if folder is None and dest == HUGE_TMPFS:
        return "no tmpfs of huge pages: see huge-page caches of snapdrill doctor"
    if folder is None:
        return f"no folder can be made for {dest}"
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        is_tmpfs = linux.filesystem_magic(fd) == linux.TMPFS_MAGIC
        status = os.fstatvfs(fd)
    finally:
        os.close(fd)
    if is_tmpfs == (dest == DISK):
        return f"{folder.parent} is {'a' if is_tmpfs else 'no'} tmpfs: give --cache-dir a folder on a disk"
    free = status.f_bavail * status.f_frsize
    return f"{folder.parent} has {free >> 20} MiB free" if status.f_blocks and free < size + _SLACK else None


def _can_scan() -> bool:
    return bool(host()["write_protect_scan"])


def require_memory(size: int, rows: Sequence[BenchRow]) -> None:
    """Raises UserError unless source and destination fit together, beside a pool of 2 MiB pages where that is used."""
    huge = any(row.case.page_size == HUGE_PAGE for row in rows)
    needed = (3 if huge else 2) * size + _SLACK
    available: int = host()["memory_available"]
    if available < needed:
        raise UserError(
            f"--size {format_size(size)} needs {needed >> 20} MiB of memory, {available >> 20} MiB are available: "
            "give a smaller --size"
        )
