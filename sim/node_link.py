"""The runner's connection to its node process: start it, ask it, notice its death."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from sim.node_config import NodeConfig


class NodeDiedError(Exception):
    """The node's connection closed while something was asked of it."""


class NodeFailedError(Exception):
    """The node could not do what was asked: a defect; its traceback is in the run folder's node.log."""


class NodeLink:
    """One node process and the requests in flight to it."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process = process
        self._reader = reader
        self._writer = writer
        self._pending: dict[int, asyncio.Future[None]] = {}
        self._next = 0
        self.died = asyncio.Event()
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def start(cls, config: NodeConfig, config_file: Path) -> NodeLink:
        """Start a node on `config`; everything it prints goes to node.log in the run folder."""
        config.write(config_file)
        ours, theirs = socket.socketpair()
        environment = {**os.environ, "SNAPDRILL_RUN": config.run}
        with theirs, (Path(config.run_dir) / "node.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: ASYNC220 - fork and exec take about a millisecond
                [sys.executable, "-m", "sim.node_process", str(theirs.fileno()), str(config_file)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        return cls(process, reader, writer)

    async def ask(self, op: str, **args: Any) -> None:
        """Have the node do something and wait for it; raises NodeDiedError, NodeFailedError."""
        if self.died.is_set():
            raise NodeDiedError("the node is down")
        self._next += 1
        number = self._next
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        try:
            self._writer.write(json.dumps({"id": number, "op": op, "args": args}).encode() + b"\n")
            await self._writer.drain()
            await future
        except ConnectionError:
            raise NodeDiedError("the node is down") from None
        finally:
            self._pending.pop(number, None)

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await self._reader.readline():
                reply = json.loads(line)
                future = self._pending.get(reply["id"])
                if future is None or future.done():
                    continue
                if "error" in reply:
                    future.set_exception(NodeFailedError(reply["error"]))
                else:
                    future.set_result(None)
        self.died.set()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(NodeDiedError("the node died"))

    async def kill(self) -> None:
        """SIGKILL, and wait until it is reaped."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        await self.reap()

    async def reap(self, deadline: float = 40.0) -> None:
        """Close our end, which tells a living node to end, and wait for it; it is killed at the deadline."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
        try:
            await asyncio.to_thread(self.process.wait, deadline)
        except subprocess.TimeoutExpired:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading
        self.died.set()
