"""The local pool and its worker processes."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Protocol, Self

from engine.errors import EngineError
from flags.client import SDK_KEY
from sim.files.scenario import Scenario
from sim.files.units import format_size
from sim.record.run_id import PLACEHOLDER, RUN_VARIABLE
from sim.run.cases import _HUGE, Unit, UnitResult, remove_leftovers, scratch
from sim.run.needs import free_memory, missing

_TRIES = 2
_GONE = 60.0  # seconds that a worker may take to end what it has begun


class Worker(Protocol):
    """A process that runs units one after the other: a unit goes in, its result comes out."""

    pid: int
    connection: Connection[Unit, UnitResult | None]  # None once, when it is ready

    def end(self, deadline: float) -> None:
        """Close the connection, which ends its run, and wait for its death; it is killed at the deadline."""


def start_worker(cpu: int | None = None) -> Worker:
    """A real worker process, pinned to a CPU if one is given."""

    return WorkerProcess(cpu)


def _starter(jobs: int) -> Callable[[], Worker]:
    """Starts the workers of a pool. With one worker per CPU, each is pinned to one, and so are its runs.

    Pinning saves about 14 % of CPU time then: copy-on-write faults need no TLB shootdown on other CPUs.
    """
    cpus = sorted(os.sched_getaffinity(0))
    if jobs < len(cpus):
        return start_worker
    dealt = itertools.cycle(cpus)
    return lambda: start_worker(next(dealt))


class Pool(Protocol):
    """Runs units, here or elsewhere. It is used as a context manager, and leaves nothing behind."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run(self, units: Iterable[Unit]) -> Iterator[UnitResult]:
        """Results as they arrive; a unit that can run nowhere is reported. Closing the iterator ends running units."""

    def lacks(self, scenario: Scenario) -> str | None:
        """Why it cannot run this anywhere; None if it can."""


def default_jobs() -> int:
    """Runs at a time: one for each CPU that this process may use."""
    return len(os.sched_getaffinity(0))


def default_memory() -> int:
    """Bytes for all runs at a time: three quarters of what is available now."""
    return free_memory() * 3 // 4


def local_pool(jobs: int | None = None) -> LocalPool:
    """A pool of `jobs` processes, as many as there are CPUs unless given, under the default memory."""
    return LocalPool(jobs or default_jobs(), default_memory())


@dataclass
class _Task:
    unit: Unit
    tries: int = 0


class PoolError(EngineError):
    """The pool cannot run anything."""


class StoppedError(PoolError):
    """The pool was stopped before its end."""


class LocalPool:
    """Processes of this machine, `jobs` at a time, under a memory budget in bytes. Use it as a context manager.

    When the block ends, also by an interrupt, running units are ended and removed before the exit returns. `stop` is an
    fd; once it is readable, `run` ends the running units and raises StoppedError.
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
        """Results as they arrive. A unit that the budget can never allow is reported, not waited for.

        A unit whose worker died is given to another one, once. To stop early close the iterator: that ends running
        units. Raises PoolError if no worker can start.
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
        """Why this machine cannot run it; None if it can."""
        return missing(scenario)

    @staticmethod
    def _next(coming: Iterator[Unit], again: list[_Task]) -> _Task | None:
        if again:
            return again.pop()
        unit = next(coming, None)
        return None if unit is None else _Task(unit)

    def _has_room(self, unit: Unit) -> bool:
        """Of the units that need huge pages one runs at a time: the host's pool is only known to suffice for one."""
        busy = [task.unit for task in self._busy.values()]
        if _HUGE in dict(unit.host_needs) and any(_HUGE in dict(each.host_needs) for each in busy):
            return False
        return len(busy) < self._jobs and sum(each.need for each in busy) + unit.need <= self._budget

    def _give(self, task: _Task) -> None:
        worker = self._idle.pop(0) if self._idle else self._start()
        self._busy[worker] = task
        task.tries += 1
        with contextlib.suppress(OSError):  # it is dead: noticed when its result is awaited
            worker.connection.send(task.unit)

    def _results(self, again: list[_Task]) -> list[UnitResult]:
        """The results of units that end next; a dead worker's unit goes to `again`."""
        by_connection = {worker.connection: worker for worker in self._busy}
        found = []
        for ready in wait([*by_connection, *self._stops]):
            if ready in self._stops:
                raise StoppedError("the pool was stopped")
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
        """End and remove what a dead worker's unit has left; retry the unit, unless it seems to kill its workers."""
        began = worker in self._ready
        self._stop([worker])
        if not began:
            raise PoolError("a worker of the pool could not start; its output is above")
        if task.tries < _TRIES:
            again.append(task)
            return []
        return [UnitResult(task.unit.name, None, error=f"its worker died {_TRIES} times")]

    def _stop(self, workers: list[Worker]) -> None:
        """All connections are closed first, so that the workers end at the same time."""
        for worker in workers:
            worker.connection.close()
        for worker in workers:
            worker.end(_GONE)
            task = self._busy.pop(worker, None)
            if task is not None:
                remove_leftovers(scratch(task.unit.runs_dir, worker.pid))
        self._idle = [each for each in self._idle if each not in workers]
        self._ready.difference_update(workers)


def _too_large(unit: Unit, budget: int) -> UnitResult:
    error = f"it needs {format_size(unit.need)} of memory and the budget is {format_size(budget)}"
    return UnitResult(unit.name, None, error=error)


_ALLOCATION = {
    "OPENBLAS_NUM_THREADS": "1",  # a fork needs a process with one thread
    "MALLOC_ARENA_MAX": "1",  # mallopt(3): short lives, whose page faults cost more than waiting for the arena
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}


class WorkerProcess:
    """A process that runs units (pool.Worker)."""

    def __init__(self, cpu: int | None = None) -> None:
        """It has its own session: the pool handles interrupts. It and its runs are pinned to `cpu`, if given."""
        environment = {**os.environ, **_ALLOCATION, RUN_VARIABLE: PLACEHOLDER}
        for_nodes = {name: environment.pop(name) for name in (SDK_KEY,) if name in environment}
        connection, theirs = Pipe()
        self.connection: Connection[Unit, UnitResult | None] = connection
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sim.run.pool_worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,
                env=environment,
                start_new_session=True,
            )
        self.pid = self._process.pid
        if cpu is not None:
            with contextlib.suppress(OSError):  # it died at once, or the CPU is gone: then it runs on any
                os.sched_setaffinity(self.pid, {cpu})
        connection.send(for_nodes)

    def end(self, deadline: float) -> None:
        """Close the connection, which ends its run, and wait; it is killed after `deadline` seconds."""
        self.connection.close()
        try:
            self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
