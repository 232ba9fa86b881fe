"""Nodes for a command that makes many runs in its own process: forked from a server instead of executed.

Executed, each node imports all that it needs again, which is half of what a small run costs.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from flags.client import SDK_KEY
from sim.node.config import NodeConfig
from sim.node.forked import ForkServer
from sim.record.run_id import PLACEHOLDER, RUN_VARIABLE
from sim.run.node_link import NodeProcess, NodeStarter, execute_node
from sim.run.node_server import NodeServer

_START = """
import json, os, socket, sys
from sim.node.forked import start_zygotes
zygotes = start_zygotes()
connection = socket.socket(fileno=int(sys.argv[1]))
os.environ.update(json.loads(connection.recv(65536)))
from sim.run.node_server import NodeServer
nodes = NodeServer.start(zygotes)
socket.send_fds(connection, [b"up"], [nodes.fileno()])
"""
"""The server of zygotes comes first: they share least, and the SDK's key is for nodes alone, so it is sent.

Both servers end when no process holds the connection any more.
"""
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""A process that forks must have no other thread."""


def start_server() -> NodeServer:
    """A server of nodes, with the environment that this process has now; raises OSError or CalledProcessError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {**os.environ, **_ONE_THREAD, RUN_VARIABLE: PLACEHOLDER}
    for_nodes = {name: environment.pop(name) for name in (SDK_KEY,) if name in environment}
    with ours, theirs:
        ours.send(json.dumps(for_nodes).encode())
        subprocess.run(
            [sys.executable, "-c", _START, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            check=True,
        )
        _, (fd,), _, _ = socket.recv_fds(ours, 16, 1)
    return NodeServer(ForkServer(socket.socket(fileno=fd)))


@contextlib.contextmanager
def nodes_for(runs: int, start: Callable[[], NodeServer] = start_server) -> Iterator[NodeStarter]:
    """Starts the nodes of that many runs: one is executed, several are forked as long as there is a server.

    The server is started with the first node.
    """
    if runs < 2:
        yield execute_node
        return
    with contextlib.ExitStack() as opened:
        server = functools.cache(lambda: opened.enter_context(contextlib.closing(start())))

        def fork_node(config: NodeConfig, config_file: Path, fd: int) -> NodeProcess:
            try:
                return server().node(config, config_file, fd)
            except (OSError, subprocess.CalledProcessError):  # the server is gone, or never was
                return execute_node(config, config_file, fd)

        yield fork_node
