"""A pool on other hosts: units as tasks of a Dask cluster."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from engine.errors import UserError
from engine.reading import read_regular
from sim.files.scenario import Scenario
from sim.run.addresses import LOCAL, checked
from sim.run.cases import Unit, UnitResult, unpack
from sim.run.certificates import given
from sim.run.pool import LocalPool, Pool

if TYPE_CHECKING:
    from distributed import Future
from sim.run.dask_worker import (
    MEMORY,
    VERSION,
    end_units,
    load_distributed,
    plugin,
    resources,
    run_here,
    security_of,
)
from sim.run.orders import Order

_CONNECT = 10.0  # seconds for the scheduler to answer, and for a first worker to be there
_LOOK = 1.0  # seconds between two queries of the workers
_GRACE = 10.0  # seconds for which a unit waits once the last worker that could run it is gone
Workers = Mapping[str, Mapping[str, Any]]


def needs_of(unit: Unit) -> dict[str, float]:
    """The resources of a worker that its task takes while it runs."""
    amounts = {name: float(amount) for name, amount in unit.host_needs}
    return {MEMORY: float(-(-unit.need >> 20)), VERSION: 1.0, **amounts}


def unmet(needs: Mapping[str, float], workers: Workers) -> str | None:
    """Why no worker can ever run a unit with these needs; None if one can."""
    offers = [each["resources"] for each in workers.values()]
    if not offers:
        return "the cluster has no worker; start one with snapdrill worker"
    lacking = [{name: amount for name, amount in needs.items() if offer.get(name, 0) < amount} for offer in offers]
    if not all(lacking):
        return None
    missing = ", ".join(
        name if amount == 1 else f"{name} {amount:.0f}" for name, amount in min(lacking, key=len).items()
    )
    return f"no worker of the cluster offers what it needs: {missing}"


class DaskPool:
    """Tasks of the cluster at `address`; for `local` one of this process, with `jobs` units at a time.

    Tasks that still run when the block ends are ended on their workers before the exit returns.
    """

    def __init__(self, address: str, jobs: int, memory_budget: int) -> None:
        load_distributed()
        self._address, self._security = address, None
        if address != LOCAL:
            try:
                certificates = given()
                self._address, _ = checked(address, certificates)
            except UserError as error:
                raise UserError(f"--cluster {error}") from None
            self._security = security_of(certificates, self._address)
        self._jobs = jobs
        self._budget = memory_budget
        self._seen: tuple[float, Workers] = (-_LOOK, {})
        self._lacking: dict[Future[Any], float] = {}

    def __enter__(self) -> Self:
        import distributed

        self._cluster = _local_cluster(self._jobs, self._budget) if self._address == LOCAL else None
        try:
            self._client: Any = distributed.Client(  # type: ignore[no-untyped-call]
                self._cluster or self._address, timeout=_CONNECT, set_as_default=False, security=self._security
            )
            self._client.wait_for_workers(1, timeout=_CONNECT)
        except (OSError, ValueError) as error:
            self.__exit__(None, None, None)
            what = "no worker is there; start one with snapdrill worker" if hasattr(self, "_client") else error
            raise UserError(f"--cluster {self._address}: {what}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "_client"):
            self._client.close()
        if self._cluster is not None:
            self._cluster.close()

    def lacks(self, scenario: Scenario) -> str | None:
        """Why no worker can run it; None if one can."""
        return unmet(needs_of(Unit.of("", scenario, Path())), self._workers())

    def run(self, units: Iterable[Unit]) -> Iterator[UnitResult]:
        """Results as they arrive. A unit whose needs no worker meets is reported, not waited for; one whose worker was
        lost is run by another. To stop early close the iterator: that ends running tasks. UserError if the scheduler is
        gone.
        """
        coming = iter(units)
        running: dict[Future[Any], Unit] = {}
        ended: SimpleQueue[Future[Any]] = SimpleQueue()
        try:
            while True:
                yield from self._submit(coming, running, ended)
                if not running:
                    return
                with contextlib.suppress(Empty):
                    future = ended.get(timeout=_LOOK)
                    yield self._result(running.pop(future), future)
                yield from self._given_up(running)
        finally:
            self._end(list(running))

    def _submit(
        self, coming: Iterator[Unit], running: dict[Future[Any], Unit], ended: SimpleQueue[Future[Any]]
    ) -> Iterator[UnitResult]:
        """Submit one task per thread, and one more per worker to go on with; gives units that no worker can run."""
        while len(running) < self._room() and (unit := next(coming, None)) is not None:
            if why := unmet(needs_of(unit), self._workers()):
                yield UnitResult(unit.name, None, error=why)
                continue
            key = f"snapdrill_unit-{uuid.uuid4().hex}"
            future: Future[Any] = self._client.submit(
                run_here, _order(unit), key=key, resources=needs_of(unit), pure=False
            )
            running[future] = unit
            future.add_done_callback(ended.put)  # type: ignore[no-untyped-call]

    def _room(self) -> int:
        return max(1, sum(int(each["nthreads"]) + 1 for each in self._workers().values()))

    def _workers(self) -> Workers:
        """The present workers, queried at most once per `_LOOK`."""
        seen, workers = self._seen
        if time.monotonic() - seen >= _LOOK:
            try:
                workers = self._client.scheduler_info(n_workers=-1)["workers"]
            except OSError as error:
                raise UserError(f"--cluster {self._address}: the scheduler is gone: {error}") from None
            self._seen = (time.monotonic(), workers)
        return workers

    def _given_up(self, running: dict[Future[Any], Unit]) -> Iterator[UnitResult]:
        """The results of units that waited `_GRACE` for a worker and found none that can run them."""
        now, workers = time.monotonic(), self._workers()
        why = {future: reason for future, unit in running.items() if (reason := unmet(needs_of(unit), workers))}
        self._lacking = {future: self._lacking.get(future, now) for future in why}
        for future in [each for each, since in self._lacking.items() if now - since >= _GRACE]:
            self._end([future])
            yield UnitResult(running.pop(future).name, None, error=why[future])

    def _result(self, unit: Unit, future: Future[Any]) -> UnitResult:
        if future.status in {"cancelled", "lost"}:
            raise UserError(f"--cluster {self._address}: the scheduler is gone, and {unit.name} with it")
        try:
            result = future.result(timeout=_CONNECT)
        except Exception as error:  # noqa: BLE001 - its workers died repeatedly, or cannot load it
            return UnitResult(unit.name, None, error=f"{type(error).__name__}: {error}")
        finally:
            future.release()  # type: ignore[no-untyped-call]
        if not isinstance(result, UnitResult):
            return UnitResult(
                unit.name, None, error=f"a worker answered with {type(result).__name__}, which is no result"
            )
        result = replace(result, name=unit.name)
        if result.packed is None:
            return result
        return replace(result, run_dir=unpack(result.packed, unit.runs_dir), packed=None)

    def _end(self, futures: list[Future[Any]]) -> None:
        """Cancel them, and wait until no worker runs one."""
        if futures and self._client.status == "running":
            self._client.cancel(futures)
            with contextlib.suppress(OSError):
                self._client.run(end_units, [str(each.key) for each in futures], on_error="ignore")


def _order(unit: Unit) -> Order:
    return Order(unit, None if unit.flag_file is None else read_regular(unit.flag_file))


def _local_cluster(jobs: int, memory: int) -> Any:
    """Its scheduler and its one worker are threads of this process; each unit runs in a separate process anyway."""
    from distributed import LocalCluster

    return LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=1,
        threads_per_worker=jobs,
        processes=False,
        resources=resources(jobs, memory),
        plugins=(plugin(None, jobs),),
        memory_limit=0,
        dashboard_address=None,
    )


def open_pool(cluster: str | None, jobs: int, memory_budget: int) -> Pool:
    """Without `cluster` this machine's processes; else the Dask cluster at the address, or for `local` one started
    here.

    `jobs` and `memory_budget` (bytes) are for this machine. Raises UserError if Dask is not installed.
    """
    if cluster is None:
        return LocalPool(jobs, memory_budget)

    return DaskPool(cluster, jobs, memory_budget)
