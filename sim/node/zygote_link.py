"""The zygote as a node holds it: it forks guests, and hands them to the next node. Calls block; run them in threads."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from engine.errors import FreezeError
from sim.node.guest import GuestSpec
from sim.node.guest_link import DEADLINE, Guest, GuestError
from sim.node.zygote import MESSAGE, request

ZYGOTE_SOCKET = "zygote"
_LEAST = 0.001  # seconds; a socket without a time to wait does not block at all


def open_zygote(address: str) -> socket.socket:
    """Connect to the zygote that listens at `address`; raises OSError where there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(DEADLINE)
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


class ZygoteSilentError(GuestError):
    """It did not answer in time. What it was asked for it may do later."""


class ZygoteLink:
    """A node's connection to its zygote. Calls block, one at a time, and may come from several threads.

    Each request has a number. A late answer to one that was given up is dropped; a guest that comes with it is killed.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._silent = False
        self._connection = connection
        self._connection.settimeout(DEADLINE)
        try:
            hello = connection.recv(MESSAGE)
            if not hello:
                raise ConnectionResetError("the zygote is ending")
            self.zygote_pid = int(json.loads(hello)["pid"])
            self.pidfd = os.pidfd_open(self.zygote_pid)  # now: later the pid may be another process's
        except OSError:
            connection.close()
            raise

    def spawn(self, spec: GuestSpec) -> Guest:
        """Fork a guest; its memory is still to be received."""
        answer, fds = self.exchange(op="spawn", spec=spec)
        if "pid" in answer and len(fds) == 2:
            return _guest(answer, fds)
        _close(fds)
        raise GuestError(answer.get("error", "the zygote's guest has no fds here: raise ulimit -n"))

    def exchange(
        self, fds: Sequence[int] = (), seconds: float | None = None, **command: Any
    ) -> tuple[dict[str, Any], list[int]]:
        """Send a command, with fds; gives its answer, with fds that are the caller's.

        Raises ZygoteSilentError after `seconds`; where they are given, at once as long as the zygote is silent.
        """
        with self._talking(DEADLINE if seconds is None else seconds) as end:
            if self._silent and seconds is not None:
                raise ZygoteSilentError("the zygote did not answer, and does not answer yet")
            return self._answer(self._send(command, fds), end)

    def exchange_all(self, **command: Any) -> list[tuple[dict[str, Any], list[int]]]:
        """The same for a command with any number of answers."""
        found = []
        with self._talking(DEADLINE) as end:
            number = self._send(command, ())
            while "last" not in (got := self._answer(number, end))[0]:
                found.append(got)
        return found

    def send(self, **command: Any) -> None:
        """Send a command and do not wait; its answer is dropped. Raises OSError."""
        self._send(command, ())

    def living(self) -> list[Guest]:
        """Every guest that is alive, for a node that comes after a crash."""
        found = []
        for answer, fds in self.exchange_all(op="list"):
            if len(fds) != 2:
                _close(fds)
                raise GuestError("the zygote's guest has no fds here: raise ulimit -n")
            found.append(_guest(answer, fds))
        return found

    @contextlib.contextmanager
    def _talking(self, seconds: float) -> Iterator[float]:
        """Alone with the zygote, late answers out of the way; gives the time of CLOCK_MONOTONIC to wait until."""
        end = time.monotonic() + seconds
        if not self._lock.acquire(timeout=seconds):
            raise ZygoteSilentError("the zygote does not answer another request")
        try:
            if self._silent:
                self._drop_late_answers()
            yield end
        finally:
            self._lock.release()

    def _send(self, command: dict[str, Any], fds: Sequence[int]) -> int:
        number = next(self._numbers)
        socket.send_fds(self._connection, [json.dumps({**command, "id": number}).encode()], list(fds))
        return number

    def _answer(self, number: int, end: float) -> tuple[dict[str, Any], list[int]]:
        while True:
            answer, fds = self._receive(end)
            if answer.get("id") == number:
                return answer, fds
            _drop(answer, fds)

    def _drop_late_answers(self) -> None:
        answered = False
        with contextlib.suppress(ZygoteSilentError):
            while True:
                _drop(*self._receive(0.0))
                answered = True
        self._silent = not answered

    def _receive(self, end: float) -> tuple[dict[str, Any], list[int]]:
        self._connection.settimeout(max(end - time.monotonic(), _LEAST))
        try:
            message, fds, _, _ = socket.recv_fds(self._connection, MESSAGE, 2)
        except TimeoutError as error:
            self._silent = True
            raise ZygoteSilentError(f"the zygote does not answer: {error}") from error
        except OSError as error:
            raise GuestError(f"the zygote does not answer: {error}") from error
        finally:
            self._connection.settimeout(DEADLINE)
        if not message:
            raise GuestError("the zygote is gone")
        self._silent = False
        return json.loads(message), fds

    def end(self) -> None:
        """Kill every guest, and the zygote with them; returns when it is gone. Harmless when done already."""
        pidfd, self.pidfd = self.pidfd, -1
        if pidfd < 0:
            return
        with contextlib.suppress(OSError):  # it may have ended meanwhile
            request(self._connection, op="end")
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(DEADLINE * 1000):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)  # its guests die with it: PR_SET_PDEATHSIG
            poll.poll(DEADLINE * 1000)
        os.close(pidfd)
        self._connection.close()


def _guest(answer: dict[str, Any], fds: list[int]) -> Guest:
    return Guest(answer["spec"], answer["pid"], socket.socket(fileno=fds[0]), fds[1])


def _drop(answer: dict[str, Any], fds: list[int]) -> None:
    """A late answer: a guest that was forked for it has no sandbox, and is killed."""
    if answer.get("op") != "spawn" or "pid" not in answer or len(fds) != 2:
        _close(fds)
        return
    guest = _guest(answer, fds)
    with contextlib.suppress(FreezeError):
        guest.kill()
    guest.close()


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
