"""The runner's connection to its node process: start it, ask it, notice its death, end what outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from engine.errors import CondemnedError
from engine.permit import CondemnedRecords
from sim.guest_handle import ZYGOTE_SOCKET, ZygoteLink, open_zygote
from sim.node_config import NodeConfig
from sim.run_folder import RUN_VARIABLE, processes_of

_LONGEST_LINE = 4 << 20
_DYING = 2.0  # seconds that a killed process may take to go


class NodeDiedError(Exception):
    """The node's connection closed while something was asked of it."""


class NodeFailedError(Exception):
    """The node could not do what was asked: a defect; its traceback is in the run folder's node.log."""


class NodeLink:
    """One node process and the requests in flight to it."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter, log: Path
    ) -> None:
        self.process = process
        self._log = log
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
        with theirs:
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_LONGEST_LINE)
            try:
                process = _start_process(config, config_file, theirs.fileno())
            except OSError:
                writer.transport.abort()
                raise
        # Nothing was awaited since the process began: none is ever forgotten.
        return cls(process, reader, writer, _log(config))

    async def ask(self, op: str, **args: Any) -> None:
        """Have the node do something and wait for it; raises NodeDiedError, NodeFailedError."""
        if self.died.is_set():
            raise self._death()
        self._next += 1
        number = self._next
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        try:
            self._writer.write(json.dumps({"id": number, "op": op, "args": args}).encode() + b"\n")
            await future
        finally:
            self._pending.pop(number, None)

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                self._settle(json.loads(line))
        except ConnectionError:
            pass  # it died with something unread
        finally:
            self.died.set()
            for future in self._pending.values():
                if not future.done():
                    future.set_exception(self._death())

    def _death(self) -> NodeDiedError:
        return NodeDiedError(f"the node died; what it said, if anything, is in {self._log}")

    def _settle(self, reply: dict[str, Any]) -> None:
        future = self._pending.get(reply["id"])
        if future is None or future.done():
            return
        if "error" in reply:
            future.set_exception(NodeFailedError(reply["error"]))
        else:
            future.set_result(None)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is reaped."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        await self.reap()

    async def reap(self, deadline: float = 40.0) -> None:
        """Close our end, which tells a living node to end, and wait for it; it is killed at the deadline."""
        self._writer.transport.abort()  # to close would wait for a node that reads no more
        try:
            await asyncio.to_thread(self.process.wait, deadline)
        except subprocess.TimeoutExpired:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)
        await asyncio.wait([self._reading])
        self.died.set()


def _log(config: NodeConfig) -> Path:
    return Path(config.run_dir) / "node.log"


def _start_process(config: NodeConfig, config_file: Path, fd: int) -> subprocess.Popen[bytes]:
    """In a session of its own: what a terminal sends (interrupt, hang-up, stop) is the runner's to handle."""
    with _log(config).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "sim.node_process", str(fd), str(config_file)],
            pass_fds=[fd],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, RUN_VARIABLE: config.run},
            start_new_session=True,
        )


def end_zygote(socket_dir: Path) -> None:
    """End a zygote that no node holds any more; nothing to do where there is none."""
    with contextlib.suppress(OSError):
        ZygoteLink(open_zygote(str(socket_dir / ZYGOTE_SOCKET))).end()


def outlived(run: str) -> bool:
    """True where a process of the run is left; one that was killed is given a moment to go."""
    end = time.monotonic() + _DYING
    while left := bool(processes_of(run)):
        if time.monotonic() > end:
            break
        time.sleep(0.01)
    return left


def retire_ended(folder: Path) -> None:
    """Forget the records of guests that ended where no node was there to see it."""
    records = CondemnedRecords(folder)
    for record in list(records.records()):
        with contextlib.suppress(CondemnedError):
            records.retire_gone(record)
