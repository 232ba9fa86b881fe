"""Nodes forked from one server for all tests of this process: a run costs half of what it does with executed ones."""

from __future__ import annotations

import functools
import os
import pathlib
from typing import TYPE_CHECKING

from sim.run.forked_nodes import start_server

if TYPE_CHECKING:
    from sim.node.config import NodeConfig
    from sim.run.node_link import NodeProcess
    from sim.run.node_server import NodeServer


@functools.cache
def _server(_process: int) -> NodeServer:
    return start_server()


def forked_node(config: NodeConfig, config_file: pathlib.Path, fd: int) -> NodeProcess:
    """As sim.node_link.execute_node, in a fork; its environment is that of the first call."""
    return _server(os.getpid()).node(config, config_file, fd)
