"""Nodes forked from one server for all tests of this process: a run costs half of what it does with executed ones."""

from __future__ import annotations

import functools
import os
import pathlib
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from sim.node.forked import ForkServer
from sim.record.run_id import PLACEHOLDER, RUN_VARIABLE
from sim.run.node_server import NodeServer

if TYPE_CHECKING:
    from sim.node.config import NodeConfig
    from sim.run.node_link import NodeProcess

# The servers end with the test process, which holds the only other end of their connection.
STARTER = """
import socket, sys
from sim.node.forked import start_zygotes
zygotes = start_zygotes()
from sim.run.node_server import NodeServer
nodes = NodeServer.start(zygotes)
socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b"up"], [nodes.fileno()])
"""
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}  # what forks must have no other


@functools.cache
def _server(_process: int) -> NodeServer:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        command = [sys.executable, "-c", STARTER, str(theirs.fileno())]
        environment = {**os.environ, **ONE_THREAD, RUN_VARIABLE: PLACEHOLDER}
        subprocess.run(command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL, check=True)
        _, (fd,), _, _ = socket.recv_fds(ours, 16, 1)
    return NodeServer(ForkServer(socket.socket(fileno=fd)))


def forked_node(config: NodeConfig, config_file: pathlib.Path, fd: int) -> NodeProcess:
    """As sim.node_link.execute_node, in a fork; its environment is that of the first call."""
    return _server(os.getpid()).node(config, config_file, fd)
