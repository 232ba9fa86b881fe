"""`snapdrill` as a process, forked from a small server that has loaded it: to execute it takes half a second of CPU.

It differs from an executed one in how its interpreter began and in /proc/PID/cmdline, which no test that uses it is
about.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cloned import clone

_LOADED = ("sim.commands", "sim.run", "sim.report", "sim.rules")


@functools.cache
def _server(_process: int) -> socket.socket:
    """The connection to this process's server, which ends when it is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", "tests.command_server", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=Path(__file__).parents[1],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # a process that forks must have no other thread
        )
    return ours


class Command(subprocess.Popen[str]):
    """Its arguments are those of `snapdrill`; of Popen's options it takes pipes, `cwd` and `env`.

    It leads a process group of its own, and takes signals as a person's shell would have it.
    """

    def _execute_child(self, *given: Any) -> None:
        arguments, cwd, env, pipes = given[0], given[5], given[6], given[10:16]
        (_, _, _, out, _, err) = pipes
        server = _server(os.getpid())
        request = {"arguments": list(arguments), "cwd": str(cwd), "env": dict(env)}
        socket.send_fds(server, [json.dumps(request).encode()], [out, err])
        self.pid = int(server.recv(64))
        self._child_created = True
        for fd in {out, err}:
            os.close(fd)


def serve(fd: int) -> dict[str, Any] | None:
    """In each new process its request, in the server None once the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=fd)
    while True:
        message, fds, _, _ = socket.recv_fds(connection, 1 << 20, 2)
        if not message:
            return None
        if clone() == 0:
            os.setpgid(0, 0)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            for number, each in enumerate(fds, start=1):
                os.dup2(each, number)
            connection.send(str(os.getpid()).encode())
            connection.detach()
            os.closerange(3, 4096)
            request: dict[str, Any] = json.loads(message)
            return request
        for each in fds:
            os.close(each)


def main() -> int:
    for package in _LOADED:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
            if "dask" not in module.name:
                importlib.import_module(module.name)
    from sim.cli import main as snapdrill

    request = serve(int(sys.argv[1]))
    if request is None:
        return 0
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["snapdrill", *request["arguments"]]
    return snapdrill()


if __name__ == "__main__":
    sys.exit(main())
