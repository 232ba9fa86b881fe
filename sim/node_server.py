"""Nodes and zygotes forked from servers, for those who make many runs one after the other."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim import cgroup, zygote
from sim.fork_server import ForkServer
from sim.run_id import carry_run

if TYPE_CHECKING:  # a server of zygotes is forked before these are loaded
    from sim.node_config import NodeConfig
    from sim.node_link import NodeProcess


class NodeServer:
    """Gives nodes to node_link.NodeLink.start. Two servers: a zygote's pages are few, so its guests are forked fast."""

    def __init__(self, nodes: ForkServer) -> None:
        self._nodes = nodes

    @classmethod
    def start(cls, environment: Callable[[], Mapping[str, str]] = dict) -> NodeServer:
        """From a process with one thread that was executed with run_id.PLACEHOLDER as its run.

        What this process has loaded is what nodes and zygotes share: for zygotes, as little as it has now.
        `environment` is of the nodes alone, such as keys that no guest needs.
        """
        zygotes = ForkServer.start("zygote server", _become_zygote)
        os.environ.update(environment())
        return cls._start_nodes(zygotes)

    @classmethod
    def _start_nodes(cls, zygotes: ForkServer) -> NodeServer:
        from sim import node_process

        def become_node(arguments: dict[str, Any], fds: list[int]) -> int:
            fd, log = fds
            os.setsid()
            _print_to(log)
            carry_run(arguments["run"])

            def start_zygote(listener: socket.socket, config: NodeConfig) -> None:
                told = {"run": config.run, "grace": config.grace, "cgroup": config.cgroup}
                zygotes.tell(told, [listener.fileno(), 2])

            return node_process.main([str(fd), arguments["config"]], start_zygote)

        try:
            return cls(ForkServer.start("node server", become_node, keep=[zygotes.fileno()]))
        finally:
            zygotes.close()

    def node(self, config: NodeConfig, config_file: Path, fd: int) -> NodeProcess:
        """A forked node (node_link.NodeStarter); raises OSError."""
        from sim.node_link import NodeProcess

        with config.log.open("ab") as log:
            forked = self._nodes.fork({"run": config.run, "config": str(config_file)}, [fd, log.fileno()])
        return NodeProcess(forked.pid, forked.pidfd)

    def close(self) -> None:
        """Both servers end; nodes and zygotes do not."""
        self._nodes.close()


def _become_zygote(arguments: dict[str, Any], fds: list[int]) -> int:
    listener, log = fds
    _print_to(log)
    carry_run(arguments["run"])
    if arguments["cgroup"] is not None:
        cgroup.join(arguments["cgroup"])
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return zygote.main([str(listener), str(arguments["grace"])])


def _print_to(log: int) -> None:
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
