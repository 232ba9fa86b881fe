"""The node as a process: `python -m sim.node.process FD CONFIG`; obeys JSON lines on FD until it closes.

Everything that happened goes to the ledger; answers say only that a request is over, or why it could not be.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine import linux
from engine.incarnation import CondemnedRecords, start_time_of
from flags.client import SDK_KEY, SourceStatus
from flags.sdk_logs import route_sdk_logs
from sim.files.faults import Harm, from_json
from sim.node import cgroup
from sim.node.armed_faults import Fault
from sim.node.config import NodeConfig
from sim.node.flags import LOOKS_PER_LEASE, NodeFlags
from sim.node.node import Node
from sim.node.pausing import Pausing
from sim.node.recovery import recover
from sim.node.sandbox import Machine
from sim.node.zygote_link import ZYGOTE_SOCKET, ZygoteLink, open_zygote
from sim.record import events, owner, source_events
from sim.record.ledger import EVENTS_FILE, Ledger
from sim.record.names import CONDEMNED
from sim.record.stages import Pace

_SOCKET_BUFFER = 4 << 20
_LONGEST_ERROR = 160
_NODE_DIES_FIRST = 300  # of 1000: before the runner, which judges
_ORDERLY_SECONDS = 3.0  # that a node has to end everything once its runner is gone
ZygoteStarter = Callable[[socket.socket, NodeConfig], None]
"""Starts a zygote of this run on a listening socket, of which it gets a copy."""


def execute_zygote(listener: socket.socket, config: NodeConfig) -> None:
    """A zygote in an interpreter of its own (ZygoteStarter)."""
    joined = [] if config.cgroup is None else [config.cgroup]
    command = [sys.executable, "-m", "sim.node.zygote", str(listener.fileno()), str(config.grace), config.owner_file]
    command += joined
    known = {name: value for name, value in os.environ.items() if name != SDK_KEY}  # no guest needs it
    subprocess.Popen(command, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL, env=known)


def connect_zygote(config: NodeConfig, start: ZygoteStarter = execute_zygote) -> tuple[ZygoteLink, int]:
    """The zygote of this run, started where there is none (or none any more: past its grace); gives its pid too."""
    address = Path(config.socket_dir) / ZYGOTE_SOCKET
    try:
        link = ZygoteLink(open_zygote(str(address)))
    except (FileNotFoundError, ConnectionError):
        address.unlink(missing_ok=True)
        _start_zygote(str(address), config, start)
        link = ZygoteLink(open_zygote(str(address)))
    return link, link.zygote_pid


def _start_zygote(address: str, config: NodeConfig, start: ZygoteStarter) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen(16)  # connections of nodes that died at once queue up; where it is full, EAGAIN
        start(listener, config)


class _Server:
    """Turns requests into calls on the node."""

    def __init__(self, node: Node, flags: NodeFlags, writer: asyncio.StreamWriter) -> None:
        self._node = node
        self._flags = flags
        self._writer = writer
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Until the runner closes its end."""
        while line := await reader.readline():
            task = asyncio.ensure_future(self._answer(json.loads(line)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"id": request["id"]}
        try:
            await self._do(request["op"], request.get("args", {}))
        except Exception as error:  # noqa: BLE001 - a defect here is the runner's to report, with its traceback
            reply["error"] = f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):  # the log's disk may be full
                traceback.print_exc()
        with contextlib.suppress(ConnectionError):  # the runner went away: nothing reads the answer
            self._writer.write(json.dumps(reply).encode() + b"\n")
            await self._writer.drain()

    async def _do(self, op: str, args: dict[str, Any]) -> None:
        node = self._node
        acts: dict[str, Callable[[], Awaitable[None]]] = {
            "create": node.create,
            "recover": lambda: recover(node),
            "tick": lambda: node.tick(args["count"]),
            "pause": lambda: node.pause(**args),
            "checkpoint": lambda: node.checkpoint(args["names"]),
            "resume": lambda: node.resume(args["names"]),
            "kill": lambda: node.kill(args["names"]),
            "salvage": lambda: node.salvage(args["names"]),
            "flag": lambda: asyncio.to_thread(self._flags.set, args["flag"]),
            "refresh_flags": lambda: asyncio.to_thread(self._flags.refresh),
            "await_flags": lambda: self._await_flags(args["versions"], args["seconds"]),
            "arm": lambda: self._arm(args),
            "clear": self._clear,
            "pace": lambda: self._pace(**args),
        }
        await acts[op]()

    async def _clear(self) -> None:
        self._node.armed.clear()

    async def _pace(self, sandboxes: str, factor: float, held: bool, steps: int) -> None:
        names = fnmatch.filter(self._node.sandboxes, sandboxes)
        self._node.set_pace(names, Pace(factor, held), steps)

    async def _await_flags(self, versions: dict[str, int | None], seconds: float) -> None:
        """That it took too long is the runner's to see, by its own clock."""
        await asyncio.to_thread(self._flags.wait_for, versions, seconds)

    async def _arm(self, args: dict[str, Any]) -> None:
        self._node.armed.arm(Fault(**{**args, "harm": Harm(**args["harm"]), "at": from_json(args["at"])}))


def _tell_status(ledger: Ledger, status: SourceStatus) -> None:
    """The SDK quotes whole exceptions; OFF is our own end."""
    if status.state != "OFF":
        error = None if status.error is None else " ".join(status.error.split())[:_LONGEST_ERROR]
        ledger.append(source_events.FlagSourceChanged(status.state, error))


async def _tell_of_lease(ledger: Ledger, flags: NodeFlags, interval: float) -> None:
    while True:
        if (news := flags.lease_news()) is not None:
            ledger.append(news)
        await asyncio.sleep(interval)


def _join_cgroup(config: NodeConfig) -> None:
    """The kernel takes its time over it (an RCU grace period); the zygote joins by itself."""
    if config.cgroup is not None:
        cgroup.join(config.cgroup)


def _pausing_of(config: NodeConfig) -> Callable[[Machine], Pausing]:
    """The sound engine's pauses, unless the scenario asks for a wrong engine: only then is one loaded."""
    if config.mutant is None and config.profile is None:
        return Pausing
    from sim.node.wrong_pauses import wrong_pausing

    return wrong_pausing


async def _main(fd: int, config: NodeConfig, start_zygote: ZygoteStarter) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(max_workers=64, thread_name_prefix="node"))
    run_dir = Path(config.run_dir)
    route_sdk_logs(run_dir / "flags.log")
    ledger = Ledger(run_dir / EVENTS_FILE, config.began)
    _, (link, zygote_pid), flags = await asyncio.gather(  # each waits for another process
        asyncio.to_thread(_join_cgroup, config),
        asyncio.to_thread(connect_zygote, config, start_zygote),
        asyncio.to_thread(NodeFlags, config),
    )
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=fd), limit=_SOCKET_BUFFER)
    records = CondemnedRecords(run_dir / CONDEMNED, expected=bool(config.known))
    node = Node(config, ledger, flags.client, link, records, _pausing_of(config))
    started = events.NodeStarted(
        os.getpid(),
        start_time_of(os.getpid()) or 0,
        zygote_pid,
        start_time_of(zygote_pid) or 0,
        bool(config.known),
    )
    ledger.append(started)
    if config.inline_flags is None:
        flags.watch(lambda status: _tell_status(ledger, status))
    lease = config.lease and asyncio.ensure_future(_tell_of_lease(ledger, flags, config.lease / LOOKS_PER_LEASE))
    server = _Server(node, flags, writer)
    with contextlib.suppress(ConnectionError):
        await server.serve(reader)
    if lease:
        lease.cancel()
    await node.shut_down()  # the runner is done, or it died
    await asyncio.to_thread(flags.close)
    ledger.close()


def held(builds: str) -> str:
    """The folder of builds, by a fd of this process where its path is by one of the runner's.

    A node outlives a runner that dies by some seconds, and ends its copies in them.
    """
    if not builds.startswith("/proc/"):
        return builds
    return f"/proc/self/fd/{os.open(builds, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)}"


def _end_with_the_runner(owner_fd: int) -> None:
    """In order, as its connection closes too; by force where that takes too long, with a copy that hangs."""
    owner.await_free(owner_fd)
    time.sleep(_ORDERLY_SECONDS)
    os._exit(1)


def main(arguments: list[str], start_zygote: ZygoteStarter = execute_zygote) -> int:
    """Interrupts are the runner's to handle: it ends the node by closing the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    linux.set_process_name("node")
    cgroup.die_first(_NODE_DIES_FIRST)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a guest takes eight fds here, and two of its zygote
    config = NodeConfig.read(Path(arguments[1]))
    config = replace(config, builds=held(config.builds))
    if (owner_fd := owner.watch(config.owner_file)) is not None:
        threading.Thread(target=_end_with_the_runner, args=(owner_fd,), name="owner", daemon=True).start()
    asyncio.run(_main(int(arguments[0]), config, start_zygote))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
