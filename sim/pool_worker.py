"""A process of the local pool: `python -m sim.pool_worker FD` runs units that come on FD until it closes."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from sim.node_server import NodeServer
from sim.run_id import PLACEHOLDER, RUN_VARIABLE

if TYPE_CHECKING:  # what is loaded before the servers are forked, every guest has
    from sim.cluster import Unit, UnitResult
    from sim.node_link import NodeStarter

_ALLOCATION = {
    "OPENBLAS_NUM_THREADS": "1",  # a fork needs a process with one thread
    "MALLOC_ARENA_MAX": "1",  # mallopt(3): short lives, whose page faults cost more than waiting for the arena
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}


class WorkerProcess:
    """A worker as the pool holds it."""

    def __init__(self) -> None:
        """In a session of its own: an interrupt is the pool's to handle."""
        from flags.streaming import SDK_KEY

        environment = {**os.environ, **_ALLOCATION, RUN_VARIABLE: PLACEHOLDER}
        for_nodes = {name: environment.pop(name) for name in (SDK_KEY,) if name in environment}
        connection, theirs = Pipe()
        self.connection: Connection[Unit, UnitResult | None] = connection
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sim.pool_worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,
                env=environment,
                start_new_session=True,
            )
        self.pid = self._process.pid
        connection.send(for_nodes)

    def end(self, deadline: float) -> None:
        """Close the connection, which ends what runs, and wait; it is killed after `deadline` seconds."""
        self.connection.close()
        try:
            self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main(arguments: list[str]) -> int:
    """Units come one at a time; the next only after the result of the last."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    told: Connection[Any, Any] = Connection(int(arguments[0]))
    os.set_inheritable(told.fileno(), False)
    nodes = NodeServer.start(told.recv)
    connection: Connection[UnitResult | None, Unit] = told
    from sim import unit_run  # noqa: F401 - loaded before the first unit comes

    gc.collect()
    gc.freeze()
    connection.send(None)
    with asyncio.Runner() as runner:
        while True:
            try:
                unit = connection.recv()
            except (EOFError, ConnectionResetError):  # the latter where it was closed before our readiness was read
                return 0
            result = runner.run(_run(unit, connection, nodes.node))
            if result is None:
                return 0
            connection.send(result)


async def _run(
    unit: Unit, connection: Connection[UnitResult | None, Unit], start_node: NodeStarter
) -> UnitResult | None:
    """None where the pool closed the connection, or died: then the run was torn down."""
    from sim.unit_run import run_unit

    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(run_unit(unit, start_node))

    def cancel_once() -> None:  # nothing is sent meanwhile: what can be read is the end
        loop.remove_reader(connection.fileno())
        task.cancel()

    loop.add_reader(connection.fileno(), cancel_once)
    try:
        return await task
    except asyncio.CancelledError:
        return None
    finally:
        loop.remove_reader(connection.fileno())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
