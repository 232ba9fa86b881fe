"""The rows and what each needs."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engine import linux
from engine.errors import UserError
from sim.files.units import HUGE_PAGE, format_size
from sim.record.oracle import PAGE
from sim.record.verdict import ExitCode
from sim.rollout import bench_calls, bench_guest, bench_ways
from sim.rollout.bench_guest import has_parent
from sim.rollout.bench_ways import GIB, Bench, BenchCase, BenchTaken
from sim.run.host import host

TMPFS, DISK = "tmpfs", "disk"
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

    What is not `timed` is not disturbed by other processes either.
    """

    name: str
    case: BenchCase
    needs: tuple[BenchMeasurement, ...]
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


def rows() -> list[BenchRow]:
    """Every row, in the order in which they are printed."""
    return [
        *_copies(),
        *_source_free(),
        *_peaks(),
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


_LIMIT = BenchMeasurement(bench_ways.memcpy, BenchCase())
_COPY_GOALS = {
    TMPFS: Goal(2.5, at_least=True, size=GIB, floor=1.6),
    DISK: Goal(2.3, at_least=True, size=GIB, floor=1.6),
}


def _ours(case: BenchCase) -> BenchMeasurement:
    return BenchMeasurement(bench_ways.pause_copy, case)


def _copies() -> Iterator[BenchRow]:
    for case in (*_full(), *_others()):
        needs = (_ours(case), BenchMeasurement(bench_ways.mmap_memmove, case), _LIMIT)
        goal = _COPY_GOALS[case.dest] if case.punch and case.dest else None
        yield BenchRow("copy", case, needs, _copy, "ratio_to_mmap_memmove", "GiB/s", goal)


def _copy(ours: Figures, theirs: Figures, limit: Figures) -> dict[str, float]:
    return {
        "gib_per_s": ours["gib_per_s"],
        "value": ours["gib_per_s"],
        "ratio_to_mmap_memmove": ours["gib_per_s"] / theirs["gib_per_s"],
        "ratio_to_memcpy": ours["gib_per_s"] / limit["gib_per_s"],
        "peak_over": ours["peak_over"],
        "peak_ratio": ours["peak_ratio"],
        "cpu_s_per_gib": ours["cpu_s_per_gib"],
    }


def _source_free() -> Iterator[BenchRow]:
    """Time until the guest's memory is free, with punching against without."""
    for page in (PAGE, HUGE_PAGE):
        for dest in DESTS:
            needs = tuple(_ours(BenchCase(bench_guest.FULL, page, dest, punch)) for punch in (True, False))
            case = BenchCase(bench_guest.FULL, page, dest)
            yield BenchRow("source-free", case, needs, _times_longer, unit="x not punching", goal=Goal(1.10, size=GIB))


def _times_longer(one: Figures, other: Figures) -> dict[str, float]:
    """Until the guest's memory is free."""
    return {"value": one["free_seconds"] / other["free_seconds"]}


def _kills() -> Iterator[BenchRow]:
    """A pause that kills its guest before the first punch, against one that does so at its end."""
    for layout in (bench_guest.FULL, bench_guest.SCATTERED_10):
        case = BenchCase(layout, PAGE, TMPFS, punch=True)
        needs = (_ours(case), BenchMeasurement(bench_ways.kill_last, case))
        yield BenchRow("kill-first", case, needs, _times_longer, unit="x killing last", goal=Goal(1.10, size=GIB))


def _peaks() -> Iterator[BenchRow]:
    for case in (*_full(), *_others()):
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
    yield BenchRow("dedup-return", case, both, _times_later, unit="x without dedup", goal=Goal(2.0, size=GIB))


def _times_later(dedup: Figures, background: Figures) -> dict[str, float]:
    """How long the guest is frozen until the answer, with its pages compared and without."""
    return {"value": dedup["return_ms"] / background["return_ms"], "return_ms": dedup["return_ms"]}


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


SHM = "/dev/shm"  # noqa: S108 - asked for because it is tmpfs
_SLACK = 256 << 20


@contextlib.contextmanager
def destinations(cache_dir: Path | None) -> Iterator[dict[str, Path]]:
    """A folder on each kind of destination."""
    disk = cache_dir or Path("runs" if Path("runs").is_dir() else ".")
    made: dict[str, Path] = {}
    try:
        for dest, parent in ((DISK, disk), (TMPFS, Path(SHM))):
            with contextlib.suppress(PermissionError, FileNotFoundError):
                made[dest] = Path(tempfile.mkdtemp(prefix=f"snapdrill-bench-{os.getpid()}-", dir=parent))
        yield made
    finally:
        for folder in made.values():
            shutil.rmtree(folder, ignore_errors=True)


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
    if folder is None:
        return f"no folder can be made for {dest}"
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        is_tmpfs = linux.filesystem_magic(fd) == linux.TMPFS_MAGIC
        status = os.fstatvfs(fd)
    finally:
        os.close(fd)
    if is_tmpfs != (dest == TMPFS):
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


@contextlib.contextmanager
def interrupts_between() -> Iterator[Callable[[], None]]:
    """Signals that end a bench are remembered; the yielded function raises for one, where nothing is half done."""
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda caught_one, _frame: caught.append(caught_one)) for number in numbers}

    def check() -> None:
        if caught:
            if caught[0] == signal.SIGINT:
                raise KeyboardInterrupt
            sys.exit(ExitCode.TERMINATED)

    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
