"""Nodes forked from a server, for a worker that makes many runs one after the other."""

from __future__ import annotations

import contextlib
import os
import socket
from functools import partial
from pathlib import Path
from typing import Any

from sim.node.config import NodeConfig
from sim.node.forked import ForkServer, print_to
from sim.record.run_id import carry_run
from sim.run.node_link import NodeProcess

_OF_A_DEFECT = 1


def _exit_code(told: int) -> int | None:
    """What a node that is dead wrote down last; None where it was killed."""
    with open(told, "rb", buffering=0) as file:
        code = file.read(1)
    return code[0] if code else None


class NodeServer:
    """Gives nodes to node_link.NodeLink.start; their zygotes are forked from a separate server."""

    def __init__(self, nodes: ForkServer) -> None:
        self._nodes = nodes

    @classmethod
    def start(cls, zygotes: ForkServer) -> NodeServer:
        """Start the servers; this process must have one thread and run_id.PLACEHOLDER as its run.

        Nodes share the modules that this process has loaded. The server of zygotes belongs to them from here on.
        """
        from sim.node import process  # who only asks for nodes does without it

        def become_node(arguments: dict[str, Any], fds: list[int]) -> int:
            fd, log, ended = fds
            os.setsid()
            print_to(log)
            carry_run(arguments["run"])

            def start_zygote(listener: socket.socket, config: NodeConfig) -> None:
                settings = {
                    "run": config.run,
                    "grace": config.grace,
                    "cgroup": config.cgroup,
                    "owner": config.owner_file,
                }
                zygotes.tell(settings, [listener.fileno(), 2])

            code = _OF_A_DEFECT
            try:
                code = process.main([str(fd), arguments["config"]], start_zygote)
            finally:
                os.write(ended, bytes([code]))
            return code

        try:
            return cls(ForkServer.start("node server", become_node, keep=[zygotes.fileno()]))
        finally:
            zygotes.close()

    def node(self, config: NodeConfig, config_file: Path, fd: int) -> NodeProcess:
        """A forked node (NodeStarter); raises OSError. Its exit code comes by a pipe: it is no child of ours."""
        with contextlib.ExitStack() as opened:
            log = opened.enter_context(config.log.open("ab"))
            told, ended = os.pipe()
            opened.callback(os.close, ended)
            try:
                fds = [fd, log.fileno(), ended]
                forked = self._nodes.fork({"run": config.run, "config": str(config_file)}, fds)
            except OSError:
                os.close(told)
                raise
        return NodeProcess(forked.pid, forked.pidfd, partial(_exit_code, told))

    def fileno(self) -> int:
        """The fd for requesting nodes, to pass on to another process."""
        return self._nodes.fileno()

    def close(self) -> None:
        """End both servers, not their nodes and zygotes."""
        self._nodes.close()
