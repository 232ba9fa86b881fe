"""A worker of a Dask cluster: the resources it offers, and how it runs the units it receives."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from engine.errors import UserError
from engine.reading import read_regular
from flags.client import SDK_KEY
from sim.files.yaml import parse, scenario_text
from sim.record.verdict import ExitCode
from sim.run import host
from sim.run.addresses import checked
from sim.run.cases import Unit, UnitResult
from sim.run.certificates import Certificates
from sim.run.orders import Order, refusal
from sim.run.pool import LocalPool, PoolError, StoppedError

if TYPE_CHECKING:
    from distributed import Worker, WorkerPlugin


PLUGIN = "snapdrill"
MEMORY, HUGE = "memory_mib", "hugetlb_mib"
VERSION = f"snapdrill {version('snapdrill')}"
"""A resource: only workers of the same version give the same digests."""
_NO_BUDGET = 1 << 62  # the scheduler admits
_SETTINGS = {  # nothing on stderr, and no profiler: its samples cost more CPU than the units' traffic
    "logging": {"distributed": "critical", "distributed.client": "critical"},
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.scheduler.work-stealing-interval": "100ms",
}
_SCHEDULER_SECONDS = 10.0  # seconds for the scheduler to answer


def load_distributed() -> None:
    """Import it with our settings: it sets up its logging during import. UserError if it is not installed."""
    try:
        import dask

        dask.config.set(_SETTINGS)
        from distributed.node import ServerNode
    except ImportError:
        raise UserError("this needs Dask: pip install 'snapdrill[cluster]'") from None
    node: Any = ServerNode
    node.start_http_server = _no_http_server


def _no_http_server(_node: Any, *_arguments: Any, **_options: Any) -> None:
    """With `dashboard=False` Dask still listens for HTTP, the scheduler on 8787; nothing of ours asks there."""


def resources(jobs: int, memory: int) -> dict[str, float]:
    """The resources of this host for `jobs` units at a time, under `memory` bytes, tried as `doctor` does.

    A resource that is only present or absent is offered once for each of the `jobs`.
    """
    offered = host.host()
    there = [name for name, value in offered.items() if value is True]
    there += ["root"] * (os.geteuid() == 0) + ["launchdarkly"] * bool(os.environ.get(SDK_KEY))
    amounts: dict[str, float] = dict.fromkeys([VERSION, *there], float(jobs))
    return {MEMORY: float(memory >> 20), HUGE: float(offered["hugetlb_free"] >> 20), **amounts}


def run_here(order: Order) -> UnitResult:
    """What a task does, in a thread of the worker."""
    from distributed import get_worker

    worker = get_worker()
    return cast("UnitRunner", worker.plugins[PLUGIN]).run(str(worker.get_current_task()), order)


class UnitRunner:
    """The processes of one worker, one per thread. They make their runs in `runs_dir` and leave none there; if that is
    None, in the unit's own folder, because its client is on this host.
    """

    name = PLUGIN

    def __init__(self, runs_dir: Path | None, jobs: int) -> None:
        self._runs_dir = runs_dir
        self._jobs = jobs
        self._free: list[tuple[LocalPool, int]] = []
        self._running: dict[str, int] = {}  # a task's key: the eventfd that stops it
        self._ended: set[str] = set()
        self._closing = False
        self._lock = threading.Lock()

    def setup(self, worker: Worker) -> None:
        """Start the processes."""
        for _ in range(self._jobs):
            stop = os.eventfd(0)
            self._free.append((LocalPool(1, _NO_BUDGET, stop=stop).__enter__(), stop))

    async def teardown(self, worker: Worker) -> None:
        """End the running units, which other workers then get, and the processes."""
        self._closing = True
        await self.end(list(self._running))
        await asyncio.gather(*(asyncio.to_thread(pool.__exit__, None, None, None) for pool, _ in self._free))
        for _, stop in self._free:
            os.close(stop)
        self._free.clear()

    def transition(self, key: object, start: str, finish: str, **_more: Any) -> None:
        """A task released while it runs was cancelled by its client, or its client died: end it."""
        if (start, finish) == ("executing", "released"):
            self._stop([str(key)])

    async def end(self, keys: Iterable[str]) -> None:
        """End those of these tasks that run, begin none of them, and wait until none runs."""
        keys = set(keys)
        self._stop(keys)
        while keys & self._running.keys():  # noqa: ASYNC110 - they end in threads
            await asyncio.sleep(0.01)

    def run(self, key: str, order: Order) -> UnitResult:
        """In a thread; raises Dask's Reschedule for a unit that was ended. What is no order is refused in one line."""
        from distributed import Reschedule

        if (why := refusal(order)) is not None:
            return UnitResult("", None, error=why)
        with self._lock:
            if key in self._ended or self._closing:
                raise Reschedule
            pool, stop = self._free.pop()
            self._running[key] = stop
        try:
            with _at_home(order, self._runs_dir) as unit:
                return next(iter(list(pool.run([unit]))))
        except StoppedError:
            raise Reschedule from None
        except PoolError as error:
            return UnitResult(order.unit.name, None, error=str(error))
        finally:
            with self._lock:
                del self._running[key]
                _drain(stop)
                self._free.append((pool, stop))

    def _stop(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._ended.add(key)
                if key in self._running:
                    os.eventfd_write(self._running[key], 1)


async def end_units(keys: list[str], dask_worker: Worker) -> None:
    """Run on every worker by a client (Client.run)."""
    if PLUGIN in dask_worker.plugins:
        await cast("UnitRunner", dask_worker.plugins[PLUGIN]).end(keys)


def _drain(stop: int) -> None:
    os.set_blocking(stop, False)
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(stop)


@contextlib.contextmanager
def _at_home(order: Order, runs_dir: Path | None) -> Iterator[Unit]:
    """The unit as it runs on this host: if its flag file is missing or different here, it reads a copy."""
    unit = order.unit
    if runs_dir is not None:
        unit = replace(unit, runs_dir=runs_dir.absolute(), packed=True)
    if order.flags is None or _same(unit.flag_file, order.flags):
        yield unit
        return
    with tempfile.NamedTemporaryFile(prefix="snapdrill-flags-", suffix=".json") as copy:
        copy.write(order.flags)
        copy.flush()
        data = parse(unit.text).data
        data["flags"]["file"] = copy.name
        yield replace(unit, text=scenario_text(data, f"{unit.name}, with a copy of its flag file."))


def _same(file: Path | None, content: bytes) -> bool:
    try:
        return file is not None and read_regular(file) == content
    except OSError:
        return False


def plugin(runs_dir: Path | None, jobs: int) -> WorkerPlugin:
    """A UnitRunner as Dask wants it."""
    from distributed import WorkerPlugin

    class Plugin(UnitRunner, WorkerPlugin):
        """The same."""

    return Plugin(runs_dir, jobs)


async def serve(
    address: str,
    runs_dir: Path,
    jobs: int,
    memory: int,
    *,
    scheduler: bool,
    echo: Callable[[str], None],
    certificates: Certificates | None = None,
) -> ExitCode:
    """Work until a signal arrives or the scheduler ends. With `scheduler` this process is the scheduler at the address
    too.

    It listens on the interface of the address alone. UserError if no scheduler answers, none can listen there, or it is
    neither TLS nor on this machine.
    """
    import distributed

    address, ours = checked(address, certificates)
    security = security_of(certificates, address)
    offered = resources(jobs, memory)
    ended: asyncio.Future[ExitCode] = asyncio.get_running_loop().create_future()
    _on_signals(ended)
    async with contextlib.AsyncExitStack() as stack:
        try:
            if scheduler:
                address = await _listen(address, security, stack)
            worker: Any = distributed.Worker(
                address,
                nthreads=jobs,
                resources=offered,
                plugins=(plugin(runs_dir, jobs),),
                memory_limit=0,
                dashboard=False,
                host=f"{address.partition('://')[0]}://{_bracketed(ours)}",
                security=security,
                death_timeout=_SCHEDULER_SECONDS,
            )
            await stack.enter_async_context(worker)
        except (OSError, ValueError, TimeoutError, RuntimeError) as error:
            raise UserError(f"{address}: {_cause(error)}") from None
        echo(f"{worker.address} works for {address}: {_offer(offered, jobs)}")
        closed = asyncio.ensure_future(worker.finished())
        await asyncio.wait([closed, ended], return_when=asyncio.FIRST_COMPLETED)
        closed.cancel()
    return ended.result() if ended.done() else ExitCode.HELD


def security_of(certificates: Certificates | None, address: str) -> Any:
    """What Dask wants for TLS: both ends show the certificate. None for an address without TLS."""
    if certificates is None or not address.startswith("tls://"):
        return None
    from distributed.security import Security

    ends = {f"tls_{end}_cert": certificates.certificate for end in ("scheduler", "worker", "client")}
    ends |= {f"tls_{end}_key": certificates.key for end in ("scheduler", "worker", "client")}
    made: Any = Security
    return made(require_encryption=True, tls_ca_file=certificates.authority, **ends)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _listen(address: str, security: Any, stack: contextlib.AsyncExitStack) -> str:
    from distributed import Scheduler

    scheduler = Scheduler(host=address, security=security, dashboard=False)
    return str((await stack.enter_async_context(scheduler)).address)


def _on_signals(ended: asyncio.Future[ExitCode]) -> None:
    def end(code: ExitCode) -> None:
        if not ended.done():
            ended.set_result(code)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, end, ExitCode.INTERRUPTED)
    loop.add_signal_handler(signal.SIGTERM, end, ExitCode.TERMINATED)


def _cause(error: BaseException) -> str:
    """Its first line; a connection attempt that timed out has no text."""
    return str(error.__cause__ or error).partition("\n")[0] or "no scheduler answers there"


def _offer(offered: dict[str, float], jobs: int) -> str:
    there = [name for name in offered if name not in {MEMORY, HUGE, VERSION}]
    sizes = f"{jobs} at a time, {offered[MEMORY]:.0f} MiB, {offered[HUGE]:.0f} MiB of huge pages"
    return ", ".join([sizes, *there])
