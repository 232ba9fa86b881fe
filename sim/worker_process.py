"""A worker of the local pool as the pool holds it; what it does is in pool_worker.py."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from multiprocessing import Pipe
from typing import TYPE_CHECKING

from flags.streaming import SDK_KEY
from sim.run_id import PLACEHOLDER, RUN_VARIABLE

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from sim.cluster import Unit, UnitResult

_ALLOCATION = {
    "OPENBLAS_NUM_THREADS": "1",  # a fork needs a process with one thread
    "MALLOC_ARENA_MAX": "1",  # mallopt(3): short lives, whose page faults cost more than waiting for the arena
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}


class WorkerProcess:
    """A process that runs units (cluster.Worker)."""

    def __init__(self, cpu: int | None = None) -> None:
        """In a session of its own: an interrupt is the pool's to handle. It and its runs keep to `cpu`, if any."""
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
        if cpu is not None:
            with contextlib.suppress(OSError):  # it died at once, or the CPU was taken away: then on any
                os.sched_setaffinity(self.pid, {cpu})
        connection.send(for_nodes)

    def end(self, deadline: float) -> None:
        """Close the connection, which ends what runs, and wait; it is killed after `deadline` seconds."""
        self.connection.close()
        try:
            self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
