"""The runner's connection to its node process: start it, send requests, notice its death, end its leftovers."""

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
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

from engine.printable import printable
from sim.node.config import NodeConfig
from sim.node.zygote_link import ZYGOTE_SOCKET, ZygoteLink, open_zygote
from sim.record import events
from sim.record.ledger import Entry
from sim.record.leftovers import processes_of
from sim.record.run_id import RUN_VARIABLE

_LONGEST_LINE = 4 << 20
_LONGEST_ERROR = 300  # characters
_LOOKS = 50  # 10 ms apart
_DYING = 2.0  # seconds that a killed process may take to go


class NodeDiedError(Exception):
    """The node's connection closed during a request."""


class NodeFailedError(Exception):
    """The node failed at a request: a defect; its traceback is in the run folder's node.log."""


class NodeProcess:
    """A node's process; its pidfd shows its death. `close` closes the pidfd."""

    def __init__(self, pid: int, pidfd: int, reap: Callable[[], int | None] = lambda: None) -> None:
        """`reap` is called once it is dead, and gives its exit code: negative for a signal, None if not known."""
        self.pid = pid
        self._pidfd = pidfd
        self._reap = reap
        self._waiting = asyncio.Lock()  # the loop takes one reader of a pidfd
        self.exit_code: int | None = None

    def kill(self) -> None:
        """SIGKILL; harmless when it is dead."""
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def wait(self, deadline: float | None = None) -> bool:
        """True when it is dead, False if it still lives after `deadline` seconds. Harmless when it is closed."""
        async with self._waiting:
            return self._pidfd < 0 or await self._wait(deadline)

    async def _wait(self, deadline: float | None) -> bool:
        died, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_reader(self._pidfd, died.set)
        try:
            async with asyncio.timeout(deadline):
                await died.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._pidfd)
        self.exit_code = self._reap()
        os.close(self._pidfd)
        self._pidfd = -1
        return True


NodeStarter = Callable[[NodeConfig, Path, int], NodeProcess]
"""Starts a node on a config file, and gives it a copy of its command fd; raises OSError."""


def execute_node(config: NodeConfig, config_file: Path, fd: int) -> NodeProcess:
    """A node in an interpreter of its own (NodeStarter).

    It has its own session, so that only the runner receives a terminal's signals (interrupt, hang-up, stop).
    """
    with config.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sim.node.process", str(fd), str(config_file)],
            pass_fds=[fd],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, RUN_VARIABLE: config.run},
            start_new_session=True,
        )
    return NodeProcess(process.pid, os.pidfd_open(process.pid), process.wait)


class NodeLink:
    """One node process and the requests in flight to it."""

    def __init__(
        self, process: NodeProcess, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, log: Path
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
    async def start(cls, config: NodeConfig, config_file: Path, start: NodeStarter = execute_node) -> NodeLink:
        """Start a node on `config`; its output goes to node.log in the run folder."""
        config.write(config_file)
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_LONGEST_LINE)
            try:
                process = start(config, config_file, theirs.fileno())
            except OSError:
                writer.transport.abort()
                raise
        # Nothing was awaited since the process started, so a cancellation cannot lose it.
        return cls(process, reader, writer, config.log)

    async def ask(self, op: str, **args: Any) -> None:
        """Send the node a request and wait for its end; raises NodeDiedError, NodeFailedError."""
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
        return NodeDiedError(f"the node died; its output, if any, is in {self._log}")

    def _settle(self, reply: dict[str, Any]) -> None:
        future = self._pending.get(reply["id"])
        if future is None or future.done():
            return
        if "error" in reply:
            future.set_exception(NodeFailedError(reply["error"]))
        else:
            future.set_result(None)

    def raise_own_failure(self, entries: Iterable[Entry], *, at_its_end: bool = False) -> None:
        """NodeFailedError where a reaped node was not killed but ended by itself, with an error or too early. Not where
        the ledger says that its zygote or a guest died before that: it may have failed over that."""
        code, least = self.process.exit_code, 1 if at_its_end else 0
        if code is None or code < least or any(isinstance(each.event, events.ProcessDied) for each in entries):
            return
        what = f"the node ended by itself, with exit code {code}: {_last_line(self._log)}"
        raise NodeFailedError(f"{what}; its output is in {self._log}")

    async def kill(self) -> None:
        """SIGKILL, and wait until it is reaped."""
        self.process.kill()
        await self.reap()

    async def reap(self, deadline: float = 40.0) -> None:
        """Close our end, which makes a living node end, and wait for it; it is killed at the deadline."""
        self._writer.transport.abort()  # close() would wait for a node that no longer reads
        if not await self.process.wait(deadline):
            self.process.kill()
            await self.process.wait()
        await asyncio.wait([self._reading])
        self.died.set()


def _last_line(log: Path) -> str:
    """What a traceback ends with."""
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return printable(lines[-1][:_LONGEST_ERROR]) if lines else "it printed nothing"
    return "its output cannot be read"


async def death_is_recorded(entries_by_now: Callable[[], Sequence[Entry]]) -> bool:
    """Whether the ledger has the death of a guest or zygote: a node sees it a moment after what failed over it."""
    for _ in range(_LOOKS):
        if any(isinstance(each.event, events.ProcessDied) for each in entries_by_now()):
            return True
        await asyncio.sleep(0.01)
    return False


def end_zygote(socket_dir: Path) -> None:
    """End a zygote that no node holds any more, if there is one."""
    with contextlib.suppress(OSError):
        ZygoteLink(open_zygote(str(socket_dir / ZYGOTE_SOCKET))).end()


def outlived(run: str) -> bool:
    """True if a process of the run is left; a killed one gets a moment to go."""
    end = time.monotonic() + _DYING
    while left := bool(processes_of(run)):
        if time.monotonic() > end:
            break
        time.sleep(0.01)
    return left


def raise_failures(entries: Sequence[Entry], node: NodeLink | None) -> None:
    """NodeFailedError for what no request may have reported, once the node has ended: an error at its end, or the
    first pause whose outcome it could not carry out."""
    if node is not None:
        node.raise_own_failure(entries, at_its_end=True)
    for each in entries:
        if isinstance(each.event, events.SettlingFailed):
            raise NodeFailedError(f"the outcome of {each.pause} could not be carried out: {each.event.error}")


async def shielded(act: Coroutine[Any, Any, None]) -> None:
    """Run to the end, however often it is cancelled; the cancellation is raised afterwards."""
    task = asyncio.ensure_future(act)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
