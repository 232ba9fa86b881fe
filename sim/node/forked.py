"""Processes forked from a pre-imported server: light on purpose."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engine import linux
from sim.node import zygote
from sim.record.run_id import carry_run

Become = Callable[[dict[str, Any], list[int]], int]
"""What a fork does with its arguments and fds; gives its exit code."""
_MESSAGE = 65536
_MOST_FDS = 4
_STANDARD = 3  # fds


class ForkError(OSError):
    """The server is gone, or could not fork."""


@dataclass(frozen=True, slots=True)
class Forked:
    """A process that a server forked. The server reaps it: only the pidfd may be relied on."""

    pid: int
    pidfd: int


class ForkServer:
    """The holder's end of a server. A request blocks for as long as a fork takes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    @classmethod
    def start(cls, name: str, become: Become, keep: Sequence[int] = ()) -> ForkServer:
        """Fork the server off this process, which must have one thread; of its fds it has only those in `keep`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            if os.fork() == 0:
                _serve_and_exit(name, theirs, become, keep)
        return cls(ours)

    def fileno(self) -> int:
        """The fd of this end, for a process that keeps it across a fork."""
        return self._connection.fileno()

    def fork(self, arguments: dict[str, Any], fds: Sequence[int]) -> Forked:
        """A new process, which gets copies of `fds`; raises ForkError."""
        self._send({"arguments": arguments, "answer": True}, fds)
        try:
            message, got, _, _ = socket.recv_fds(self._connection, _MESSAGE, 1)
        except ConnectionError as error:  # it was killed before it read the request
            raise ForkError("the server is gone") from error
        answer = json.loads(message or b'{"error": "the server is gone"}')
        if "error" in answer:
            raise ForkError(answer["error"])
        return Forked(answer["pid"], got[0])

    def tell(self, arguments: dict[str, Any], fds: Sequence[int]) -> None:
        """A new process, without an answer: for an end that several processes hold. Raises ForkError."""
        self._send({"arguments": arguments, "answer": False}, fds)

    def _send(self, request: dict[str, Any], fds: Sequence[int]) -> None:
        try:
            socket.send_fds(self._connection, [json.dumps(request).encode()], fds)
        except ConnectionError as error:
            raise ForkError("the server is gone") from error

    def close(self) -> None:
        """The server ends when the last holder has closed its end."""
        self._connection.close()


def _serve_and_exit(name: str, connection: socket.socket, become: Become, keep: Sequence[int]) -> None:
    """Never returns."""
    code = 1
    try:
        _close_all_but(connection.fileno(), *keep)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps: no zombie is ever left
        linux.set_process_name(name)
        gc.collect()
        gc.freeze()  # a collection would copy every page that is shared with the forks
        _serve(connection, become, keep)
        code = 0
    except BaseException:  # noqa: BLE001 - nothing of the process that was forked may run on here
        traceback.print_exc()
    finally:
        os._exit(code)


def _serve(connection: socket.socket, become: Become, keep: Sequence[int]) -> None:
    while True:
        message, fds, _, _ = socket.recv_fds(connection, _MESSAGE, _MOST_FDS)
        if not message:
            return
        request = json.loads(message)
        answer, pidfds = _fork(request["arguments"], fds, become, keep)
        if request["answer"]:
            with contextlib.suppress(ConnectionError):  # the next read says that the holder is gone
                socket.send_fds(connection, [json.dumps(answer).encode()], pidfds)
        for fd in [*fds, *pidfds]:
            os.close(fd)


def _fork(
    arguments: dict[str, Any], fds: list[int], become: Become, keep: Sequence[int]
) -> tuple[dict[str, Any], list[int]]:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # one that dies at once must be there until its pidfd is open
    try:
        pid = os.fork()
        if pid == 0:
            _become_and_exit(arguments, fds, become, keep)
        return {"pid": pid}, [os.pidfd_open(pid)]
    except OSError as error:  # no process or fd to be had
        return {"error": f"it cannot fork: {error.strerror}"}, []
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        with contextlib.suppress(ChildProcessError):  # who died meanwhile
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _become_and_exit(arguments: dict[str, Any], fds: list[int], become: Become, keep: Sequence[int]) -> None:
    """Never returns."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _close_all_but(*fds, *keep)
        code = become(arguments, fds)
    except BaseException:  # noqa: BLE001 - as an interpreter ends: a traceback, and an exit code
        traceback.print_exc()
    finally:
        os._exit(code)


def _close_all_but(*keep: int) -> None:
    begin = _STANDARD
    for fd in sorted(keep):
        os.closerange(begin, fd)
        begin = fd + 1
    os.closerange(begin, 1 << 20)


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
    joined = [] if arguments["cgroup"] is None else [arguments["cgroup"]]
    return zygote.main([str(listener), str(arguments["grace"]), arguments["owner"], *joined])
