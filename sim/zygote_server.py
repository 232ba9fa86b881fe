"""Zygotes forked from a server: a process with few pages, so that its guests are forked fast. It imports little."""

from __future__ import annotations

import os
import signal
from typing import Any

from sim import zygote
from sim.fork_server import ForkServer
from sim.run_id import carry_run


def start_zygotes() -> ForkServer:
    """From a process with one thread that was executed with run_id.PLACEHOLDER as its run.

    What this process has loaded by now is what zygotes and guests share.
    """
    return ForkServer.start("zygote server", _become_zygote)


def print_to(log: int) -> None:
    """Standard output and error of a fork go to this fd, which is closed."""
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _become_zygote(arguments: dict[str, Any], fds: list[int]) -> int:
    listener, log = fds
    print_to(log)
    carry_run(arguments["run"])
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    joined = [] if arguments["cgroup"] is None else [arguments["cgroup"]]
    return zygote.main([str(listener), str(arguments["grace"]), *joined])
