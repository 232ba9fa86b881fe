"""Where work units run: one unit is one whole run of a scenario. Here on this machine; dask_cluster.py on others.

Nothing here depends on who executes: a unit says all that a run needs, and its result all that came of it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from engine.errors import EngineError, UserError
from flags.catalog import PUNCH
from sim.budget import PUNCHED_PEAK
from sim.requirements import free_memory, missing
from sim.run_folder import RUN_FILE, end_leftovers, read_record
from sim.scenario import Inject, Scenario
from sim.units import HUGE_PAGE, format_size

Keep = Literal["never", "failed", "always"]
LOCAL = "local"
"""In the place of a cluster's address: one that is started for the purpose."""
RUN_OVERHEAD = 64 << 20
"""Bytes of a run beyond its guests and caches: what node, zygote and guests do not share, and the checkers' buffers."""
SCRATCH = ".unit-"
_TRIES = 2
_HUGE = "hugetlb_mib"
_GONE = 60.0  # seconds that a worker may take to end what it has begun


@dataclass(frozen=True, slots=True)
class Unit:
    """One run to be made. `path` is for messages and is where flag files are looked for; `need` bytes at most.

    `keep` says which runs leave their folder in `runs_dir`, never with caches, or `packed` in the result;
    `time_limit` is in seconds, `cache_dir` takes the place of what the scenario says. Every path must be absolute.
    `host_needs` is what its host must have beside memory: names with amounts.
    """

    name: str
    text: str
    path: Path
    runs_dir: Path
    need: int
    seed: int | None = None
    time_limit: float = 120.0
    trace: bool = False
    keep: Keep = "failed"
    cache_dir: Path | None = None
    packed: bool = False
    host_needs: tuple[tuple[str, int], ...] = ()
    flag_file: Path | None = None

    @classmethod
    def of(cls, name: str, scenario: Scenario, runs_dir: Path, *, seed: int | None = None) -> Unit:
        """A unit that runs this scenario, with its needs; for other settings use dataclasses.replace."""
        path, file = scenario.path.absolute(), scenario.flag_file
        return cls(
            name,
            scenario.source_text,
            path,
            runs_dir.absolute(),
            memory_need(scenario),
            seed,
            host_needs=host_needs(scenario),
            flag_file=None if file is None else file.absolute(),
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """One subject that was judged (`invariant:no_leaks`, `state:*`); each reason has what a ledger's `judged` has."""

    subject: str
    verdict: str
    checked: int
    reasons: tuple[dict[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Point:
    """A fault point that was passed; `step` is the 0-based step then running, `nth` 1-based."""

    sandbox: str
    pause: str | None
    step: int
    fault: str
    chunk: int | None
    nth: int


@dataclass(frozen=True, slots=True)
class Firing:
    """A fault that fired; `error` as the ledger tells it."""

    sandbox: str
    pause: str | None
    fault: str
    error: str
    chunk: int | None


@dataclass(frozen=True, slots=True)
class SettledPause:
    """A pause or checkpoint and what it came to."""

    sandbox: str
    id: str
    outcome: str
    checkpoint: bool
    punched_bytes: int
    error: str | None


@dataclass(frozen=True, slots=True)
class UnitResult:
    """What came of a unit. `error` is why there is no verdict; `run_dir` is None where nothing was kept.

    `states` is each sandbox's state at the end, before teardown; `packed` is the kept folder where that was asked for.
    """

    name: str
    verdict: str | None
    digest: str | None = None
    judgements: tuple[Judgement, ...] = ()
    states: dict[str, str] = field(default_factory=dict)
    pauses: tuple[SettledPause, ...] = ()
    firings: tuple[Firing, ...] = ()
    points: tuple[Point, ...] = ()
    seconds: float = 0.0
    error: str | None = None
    run_dir: Path | None = None
    packed: bytes | None = field(default=None, repr=False)

    @property
    def not_held(self) -> tuple[Judgement, ...]:
        """The judgements that did not hold."""
        return tuple(each for each in self.judgements if each.verdict != "held")

    @property
    def counts(self) -> dict[str, int]:
        """Sandboxes by final state."""
        states = list(self.states.values())
        return {state: states.count(state) for state in dict.fromkeys(states)}


def memory_need(scenario: Scenario) -> int:
    """Bytes at most: the guests, what their copies take (twice the dirty memory where nothing is punched), a run's own.

    The node's budget caps guests and copies. A `hot` guest writes all of its memory once.
    """
    punched = _always_punches(scenario)
    sandboxes = scenario.sandboxes()
    copies = 0
    for each in sandboxes:
        share = 1.0 if each.workload.pattern == "hot" else each.workload.dirty / 100
        dirty = int(each.memory * share)
        copies += min(PUNCHED_PEAK, dirty) if punched else 2 * dirty
    guests = sum(each.memory for each in sandboxes)
    largest = max(each.memory for each in sandboxes)  # a checker fills one snapshot at a time
    return min(scenario.node.memory, guests + copies) + largest + RUN_OVERHEAD


def host_needs(scenario: Scenario) -> tuple[tuple[str, int], ...]:
    """What its host must have beside memory: what it requires, huge pages in MiB, a system call filter, a key."""
    huge = sum(each.memory for each in scenario.sandboxes() if each.page_size == HUGE_PAGE)
    needs = dict.fromkeys(map(str, scenario.requires), 1)
    if huge:
        needs[_HUGE] = huge >> 20
    if any(isinstance(step, Inject) and step.by == "kernel" for step in scenario.steps):
        needs["call_filter"] = 1
    if scenario.flag_source == "launchdarkly":
        needs["launchdarkly"] = 1
    return tuple(needs.items())


def _always_punches(scenario: Scenario) -> bool:
    """True where no sandbox can be without punching, whatever the steps do."""
    written = [scenario.flag_values.get(PUNCH)]
    written += [step.values[PUNCH] for step in scenario.steps if step.kind == "flag" and PUNCH in step.values]
    return scenario.flag_source == "inline" and all(value is True for value in written)


class Worker(Protocol):
    """A process that runs units one after the other: a unit goes in, its result comes out."""

    pid: int
    connection: Connection[Unit, UnitResult | None]  # None once, when it can begin

    def end(self, deadline: float) -> None:
        """Close the connection, which ends what runs, and wait for its death; it is killed at the deadline."""


def start_worker(cpu: int | None = None) -> Worker:
    """A real one, which keeps to a CPU where one is given."""
    from sim.worker_process import WorkerProcess

    return WorkerProcess(cpu)


def _starter(jobs: int) -> Callable[[], Worker]:
    """Starts the workers of a pool. Where they are as many as the CPUs, each keeps to one, and so do its runs.

    There is enough to do for every CPU then, and a run that stays on one takes about a seventh less of it: no other CPU
    is to be told of each page that its processes copy after a fork.
    """
    cpus = sorted(os.sched_getaffinity(0))
    if jobs < len(cpus):
        return start_worker
    dealt = itertools.cycle(cpus)
    return lambda: start_worker(next(dealt))


class Pool(Protocol):
    """Runs units, wherever. It is used as a context manager, and leaves nothing behind."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run(self, units: Iterable[Unit]) -> Iterator[UnitResult]:
        """Results as they come; what can run nowhere is reported. Closing the iterator ends what runs."""

    def lacks(self, scenario: Scenario) -> str | None:
        """Why it can run this nowhere; None where it can."""


def default_jobs() -> int:
    """Runs at a time: one a CPU that this process may use."""
    return len(os.sched_getaffinity(0))


def default_memory() -> int:
    """Bytes for all runs at a time: three quarters of what is available now."""
    return free_memory() * 3 // 4


def local_pool(jobs: int | None = None) -> LocalPool:
    """A pool of `jobs` processes, as many as there are CPUs unless given, under the default memory."""
    return LocalPool(jobs or default_jobs(), default_memory())


def is_elsewhere(cluster: str | None) -> bool:
    """True where the workers are others', who say themselves what they have."""
    return cluster not in {None, LOCAL}


def open_pool(cluster: str | None, jobs: int, memory_budget: int) -> Pool:
    """This machine's processes for None; else the Dask cluster at an address, or for `local` one that is started here.

    `jobs` and `memory_budget` (bytes) are of this machine. Raises UserError where Dask is not installed.
    """
    if cluster is None:
        return LocalPool(jobs, memory_budget)
    from sim.dask_cluster import DaskPool

    return DaskPool(cluster, jobs, memory_budget)


@dataclass
class _Task:
    unit: Unit
    tries: int = 0


class PoolError(EngineError):
    """The pool cannot run anything."""


class StoppedError(PoolError):
    """The pool was told to stop in the middle."""


class LocalPool:
    """Processes of this machine, `jobs` at a time, under a memory budget in bytes. Use it as a context manager.

    What is left when the block ends, or is left by an interrupt, is ended and removed before the exit returns. `stop`
    is an fd; while it is readable, `run` ends what it has begun and raises StoppedError.
    """

    def __init__(
        self, jobs: int, memory_budget: int, *, start: Callable[[], Worker] | None = None, stop: int | None = None
    ) -> None:
        self._stops = [] if stop is None else [stop]
        self._jobs = jobs
        self._budget = memory_budget
        self._start = start or _starter(jobs)
        self._idle: list[Worker] = []
        self._busy: dict[Worker, _Task] = {}
        self._ready: set[Worker] = set()

    def __enter__(self) -> Self:
        self._idle += [self._start() for _ in range(self._jobs)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop([*self._busy, *self._idle])

    def run(self, units: Iterable[Unit]) -> Iterator[UnitResult]:
        """Results as they come. A unit that no budget allows is reported, not waited for.

        A unit whose worker died is given to another one, once. To stop early close the iterator: what runs is ended.
        Raises PoolError where no worker can start.
        """
        coming = iter(units)
        again: list[_Task] = []
        task = self._next(coming, again)
        try:
            while task is not None or self._busy:
                if task is not None and task.unit.need > self._budget:
                    yield _too_large(task.unit, self._budget)
                    task = self._next(coming, again)
                elif task is not None and self._has_room(task.unit):
                    self._give(task)
                    task = self._next(coming, again)
                else:
                    yield from self._results(again)
                    task = task or self._next(coming, again)
        finally:
            self._stop(list(self._busy))

    def lacks(self, scenario: Scenario) -> str | None:
        """Why this machine cannot run it; None where it can."""
        return missing(scenario)

    @staticmethod
    def _next(coming: Iterator[Unit], again: list[_Task]) -> _Task | None:
        if again:
            return again.pop()
        unit = next(coming, None)
        return None if unit is None else _Task(unit)

    def _has_room(self, unit: Unit) -> bool:
        """Of those that need huge pages one runs at a time: the host's pool of them was enough for each alone."""
        busy = [task.unit for task in self._busy.values()]
        if _HUGE in dict(unit.host_needs) and any(_HUGE in dict(each.host_needs) for each in busy):
            return False
        return len(busy) < self._jobs and sum(each.need for each in busy) + unit.need <= self._budget

    def _give(self, task: _Task) -> None:
        worker = self._idle.pop(0) if self._idle else self._start()
        self._busy[worker] = task
        task.tries += 1
        with contextlib.suppress(OSError):  # it is dead: seen when its result is waited for
            worker.connection.send(task.unit)

    def _results(self, again: list[_Task]) -> list[UnitResult]:
        """Of those that end next; what a dead worker had goes to `again`."""
        by_connection = {worker.connection: worker for worker in self._busy}
        found = []
        for ready in wait([*by_connection, *self._stops]):
            if ready in self._stops:
                raise StoppedError("it was told to stop")
            worker = next(each for connection, each in by_connection.items() if connection is ready)
            task = self._busy[worker]
            try:
                result = worker.connection.recv()
            except (EOFError, OSError):
                found += self._bury(worker, task, again)
                continue
            if result is None:
                self._ready.add(worker)
                continue
            del self._busy[worker]
            self._idle.append(worker)
            found.append(result)
        return found

    def _bury(self, worker: Worker, task: _Task, again: list[_Task]) -> list[UnitResult]:
        """End and remove what a dead worker's unit had begun; another one gets it, if it is not the unit's doing."""
        began = worker in self._ready
        self._stop([worker])
        if not began:
            raise PoolError("a worker of the pool could not start; what it said is above")
        if task.tries < _TRIES:
            again.append(task)
            return []
        return [UnitResult(task.unit.name, None, error=f"its worker died, {_TRIES} times")]

    def _stop(self, workers: list[Worker]) -> None:
        """All are told first, so that they end side by side."""
        for worker in workers:
            worker.connection.close()
        for worker in workers:
            worker.end(_GONE)
            task = self._busy.pop(worker, None)
            if task is not None:
                remove_leftovers(scratch(task.unit.runs_dir, worker.pid))
        self._idle = [each for each in self._idle if each not in workers]
        self._ready.difference_update(workers)


def scratch(runs_dir: Path, worker_pid: int) -> Path:
    """Where a worker makes its runs; one that is kept is moved out of it when it is over."""
    return runs_dir / f"{SCRATCH}{worker_pid}"


def remove_leftovers(folder: Path) -> None:
    """What runs in a dead worker's folder have left: processes, caches, cgroups, and the folder itself.

    Where something of a run remains its folder does too: `snapdrill clean` finds it by that.
    """
    for record in list(folder.glob(f"*/*/{RUN_FILE}")):
        try:
            if not (told := read_record(record.parent)).ended:
                end_leftovers(told, record.parent)
        except (UserError, EngineError):
            continue
        shutil.rmtree(record.parent, ignore_errors=True)
    if not any(folder.glob(f"*/*/{RUN_FILE}")):
        shutil.rmtree(folder, ignore_errors=True)


def _too_large(unit: Unit, budget: int) -> UnitResult:
    error = f"it needs {format_size(unit.need)} of memory and the budget is {format_size(budget)}"
    return UnitResult(unit.name, None, error=error)
