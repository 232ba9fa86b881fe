"""Nodes forked from a server, for those who make many runs one after the other."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from sim.node import process
from sim.node.config import NodeConfig
from sim.node.forked import ForkServer, print_to
from sim.record.run_id import carry_run
from sim.run.node_link import NodeProcess


class NodeServer:
    """Gives nodes to node_link.NodeLink.start; their zygotes come from a server of their own."""

    def __init__(self, nodes: ForkServer) -> None:
        self._nodes = nodes

    @classmethod
    def start(cls, zygotes: ForkServer) -> NodeServer:
        """From a process with one thread that was executed with run_id.PLACEHOLDER as its run.

        What this process has loaded is what nodes share. The server of zygotes is theirs from here on.
        """

        def become_node(arguments: dict[str, Any], fds: list[int]) -> int:
            fd, log = fds
            os.setsid()
            print_to(log)
            carry_run(arguments["run"])

            def start_zygote(listener: socket.socket, config: NodeConfig) -> None:
                told = {"run": config.run, "grace": config.grace, "cgroup": config.cgroup}
                zygotes.tell(told, [listener.fileno(), 2])

            return process.main([str(fd), arguments["config"]], start_zygote)

        try:
            return cls(ForkServer.start("node server", become_node, keep=[zygotes.fileno()]))
        finally:
            zygotes.close()

    def node(self, config: NodeConfig, config_file: Path, fd: int) -> NodeProcess:
        """A forked node (node_link.NodeStarter); raises OSError."""
        with config.log.open("ab") as log:
            forked = self._nodes.fork({"run": config.run, "config": str(config_file)}, [fd, log.fileno()])
        return NodeProcess(forked.pid, forked.pidfd)

    def fileno(self) -> int:
        """The fd by which nodes are asked for, for those who hand it to another process."""
        return self._nodes.fileno()

    def close(self) -> None:
        """Both servers end; nodes and zygotes do not."""
        self._nodes.close()
