"""A process of the local pool: it runs units received on an fd (its argument) until that is closed.

Modules loaded before a server is forked are shared by all of its forks: guests load least, then nodes, then the worker.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING

from sim.node.forked import start_zygotes

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from sim.node.forked import ForkServer
    from sim.run.node_server import NodeServer


_LITTER = 100_000
"""New objects before the collector looks among them: more than a small run makes, so that most end without it."""


def main(arguments: list[str]) -> int:
    """Run units, one at a time; the next one is sent only after the last one's result."""
    fd = int(arguments[0])
    os.set_inheritable(fd, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    gc.set_threshold(_LITTER)
    connection, nodes = _start_nodes(fd, start_zygotes())
    from sim.run import cases

    return cases.serve(connection, nodes)


def _start_nodes(fd: int, zygotes: ForkServer) -> tuple[Connection, NodeServer]:
    """The first message is environment for the nodes alone, such as keys that no guest needs."""
    from multiprocessing.connection import Connection

    from sim.run.node_server import NodeServer

    connection = Connection(fd)
    os.environ.update(connection.recv())
    return connection, NodeServer.start(zygotes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
