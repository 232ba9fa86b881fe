"""The zygote as a node holds it: it forks guests, and hands them to the next node. Calls block; run them in threads."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import threading
from collections.abc import Sequence
from typing import Any

from engine.errors import FreezeError
from sim.node.guest import GuestSpec
from sim.node.guest_link import DEADLINE, Guest, GuestError
from sim.node.zygote import MESSAGE, request

ZYGOTE_SOCKET = "zygote"


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


class ZygoteLink:
    """A node's connection to its zygote. Calls block, one at a time; `spawn` may be called from several threads."""

    def __init__(self, connection: socket.socket) -> None:
        self._lock = threading.Lock()
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
        with self._lock:
            request(self._connection, op="spawn", spec=spec)
            while (guest := self._next_guest()) is not None:
                if guest.name == spec["incarnation"]:
                    return guest
                with contextlib.suppress(FreezeError):  # that is no fault of the one that is asked for
                    guest.kill()  # a late answer to a request that was given up
                guest.close()
        raise GuestError("the zygote did not fork a guest")

    def exchange(self, key: str, fds: Sequence[int] = (), **command: Any) -> tuple[dict[str, Any], list[int]]:
        """Send a command, with fds; its answer has `key`, or is empty. Late answers to earlier ones are dropped."""
        with self._lock:
            socket.send_fds(self._connection, [json.dumps(command).encode()], list(fds))
            while True:
                answer, got = self.next_answer()
                if not answer or key in answer:
                    return answer, got
                for fd in got:
                    os.close(fd)

    def next_answer(self) -> tuple[dict[str, Any], list[int]]:
        """One message and its fds; raises GuestError where the zygote is gone or silent."""
        try:
            message, fds, _, _ = socket.recv_fds(self._connection, MESSAGE, 2)
        except OSError as error:
            raise GuestError(f"the zygote does not answer: {error}") from error
        if not message:
            raise GuestError("the zygote is gone")
        return json.loads(message), fds

    def living(self) -> list[Guest]:
        """Every guest that is alive, for a node that comes after a crash."""
        request(self._connection, op="list")
        found = []
        while (guest := self._next_guest()) is not None:
            found.append(guest)
        return found

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

    def _next_guest(self) -> Guest | None:
        try:
            message, fds, _, _ = socket.recv_fds(self._connection, MESSAGE, 2)
        except OSError as error:
            raise GuestError(f"the zygote does not answer: {error}") from error
        content = json.loads(message or b"{}")
        if "pid" in content and len(fds) == 2:
            return Guest(content["spec"], content["pid"], socket.socket(fileno=fds[0]), fds[1])
        for fd in fds:
            os.close(fd)
        if content:
            raise GuestError(content.get("error", "the zygote's guest has no fds here: raise ulimit -n"))
        return None
