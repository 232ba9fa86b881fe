"""A guest as its node holds it: process, control socket, adopted memory and tracker.

Calls block; run them in threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

from engine.dirty import SharedBitmap, Tracker, WriteProtectScan
from engine.errors import FreezeError
from engine.incarnation import GuestProcess, Incarnation, start_time_of
from engine.memfd import Memfd
from engine.permit import CondemnedRecords
from sim.guest import GuestSpec
from sim.oracle import PAGE
from sim.zygote import MESSAGE, request

_GENERATION = 4
DEADLINE = 30.0
ZYGOTE_SOCKET = "zygote"


class GuestError(Exception):
    """A guest or its zygote did not answer as it must."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """What a guest says with its two fds."""

    address: int
    memfd_fd: int
    side_fd: int
    tracker: str


class Guest:
    """One living incarnation. The memfd is closed by whoever consumes it, else by `close`."""

    def __init__(self, spec: GuestSpec, pid: int, control: socket.socket, pidfd: int) -> None:
        self.spec = spec
        self.pid = pid
        self._control = control
        self._control.settimeout(DEADLINE)
        self._pidfd = pidfd
        self._request = time.monotonic_ns() & 0xFFFFFFFF  # a restarted node must not take an old answer for its own
        self.start_time = start_time_of(pid) or 0
        self.memfd: Memfd | None = None
        self.process: GuestProcess | None = None
        self.tracker: Tracker | None = None
        self.hand_over: HandOver | None = None
        self._side_fd = -1

    @property
    def name(self) -> str:
        """The incarnation's name: `web-0.2`."""
        return self.spec["incarnation"]

    def receive(self) -> None:
        """Take the memory that a newborn guest hands over; raises GuestError, NotAMemfdError."""
        hello, fds = self._receive_fds()
        self.hand_over = HandOver(hello["address"], hello["memfd_fd"], hello["side_fd"], hello["tracker"])
        self._side_fd = fds[1]
        self.memfd = Memfd.adopt(fds[0], self.spec["memory"])
        self.process = GuestProcess(Incarnation(self.name, self.pid, self.start_time, self.memfd.inode), self._pidfd)

    def _receive_fds(self) -> tuple[dict[str, Any], list[int]]:
        while True:
            try:
                message, fds, _, _ = socket.recv_fds(self._control, MESSAGE, 2)
            except OSError as error:
                raise GuestError(f"{self.name} did not hand its memory over: {error}") from error
            if len(fds) == 2:
                return json.loads(message), fds
            if not message:
                raise GuestError(f"{self.name} died before it handed its memory over")

    def hand_over_again(self) -> None:
        """Ask a guest of a crashed node for its memory once more; it must be running."""
        self._control.send(json.dumps({"id": 0, "op": "hand-over"}).encode())
        self.receive()
        self.use_tracker(self.known().tracker)

    def arm(self) -> tuple[str, str | None]:
        """Start tracking; gives the tracker's name and why a better one was refused."""
        reply = self.ask("arm")
        return self.use_tracker(reply["tracker"]), reply.get("why")

    def use_tracker(self, name: str) -> str:
        """Follow the guest's writes by the tracker that it has set up; gives the name of the one in use."""
        memfd, hello = self.memory(), self.known()
        pages, block = memfd.size // PAGE, self.spec["block_size"]
        if name == WriteProtectScan.name:
            self.tracker = WriteProtectScan(self.pid, hello.address, memfd, block)
        else:
            self.tracker = SharedBitmap(self._side_fd, pages * _GENERATION, pages, PAGE, block)
        return self.tracker.name

    def start_tick(self, number: int) -> int:
        """Have the guest work; it answers when it is at the tick's end."""
        return self._send("tick", number=number)

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Send one command and wait for its answer; raises GuestError where the guest is gone or silent."""
        return self.answer(self._send(op, **arguments))

    def _send(self, op: str, **arguments: Any) -> int:
        self._request += 1
        try:
            self._control.send(json.dumps({"id": self._request, "op": op, **arguments}).encode())
        except OSError as error:
            raise GuestError(f"{self.name} is gone: {error.strerror}") from error
        return self._request

    def answer(self, number: int) -> dict[str, Any]:
        """The answer to request `number`; older ones are dropped."""
        while True:
            try:
                message = self._control.recv(MESSAGE)
            except TimeoutError:
                raise GuestError(f"{self.name} did not answer within {DEADLINE:g} s") from None
            except OSError as error:
                raise GuestError(f"{self.name} is gone: {error.strerror}") from error
            if not message:
                raise GuestError(f"{self.name} died")
            reply: dict[str, Any] = json.loads(message)
            if reply["id"] == number:
                return reply

    def generations(self) -> bytes:
        """The oracle's generations as they are now; the guest must be frozen for them to mean a moment."""
        return os.pread(self._side_fd, self.spec["memory"] // PAGE * _GENERATION, 0)

    def restore_generations(self, data: bytes) -> None:
        """Give a new guest the generations of the memory that it is filled with."""
        os.pwrite(self._side_fd, data, 0)

    def resident_bytes(self) -> int:
        """What the kernel holds for this guest's memory; 0 once the memfd is closed."""
        memfd = self.memfd
        return memfd.resident_bytes() if memfd is not None and memfd.fd >= 0 else 0

    def parts(self) -> tuple[GuestProcess, Memfd, Tracker]:
        """Process, memory and tracker of a guest that is ready; raises FreezeError before that."""
        if self.process is None or self.memfd is None or self.tracker is None:
            raise FreezeError(f"{self.name} is not ready")
        return self.process, self.memfd, self.tracker

    def close(self) -> None:
        """Give back every fd of this guest; the process itself is not touched."""
        if self.tracker is not None:
            self.tracker.close()
            self.tracker = None
        if self.memfd is not None:
            self.memfd.close()
        if self._side_fd >= 0:
            os.close(self._side_fd)
            self._side_fd = -1
        if self.process is not None:
            self.process.close()
            self._pidfd = -1
        elif self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        self._control.close()

    def kill(self) -> None:
        """End the process, whether it is ready or not; raises FreezeError where it does not die."""
        self._any_process().kill()

    def is_dead(self) -> bool:
        """True once its pidfd says so."""
        return self._any_process().is_dead()

    def _any_process(self) -> GuestProcess:
        return self.process or GuestProcess(Incarnation(self.name, self.pid, self.start_time, 0), self._pidfd)

    def take_pidfd(self) -> int:
        """The pidfd, which is the caller's to close from now on."""
        pidfd, self._pidfd = self._pidfd, -1
        return pidfd

    def continue_uncondemned(self, records: CondemnedRecords) -> None:
        """Wake a guest of a crashed node, frozen or not; raises CondemnedError where it may never run again."""
        self._any_process().thaw(records)

    def memory(self) -> Memfd:
        """Its adopted memfd; raises GuestError before it was handed over."""
        if self.memfd is None:
            raise GuestError(f"{self.name} has not handed its memory over")
        return self.memfd

    def known(self) -> HandOver:
        """What it said at the hand-over; raises GuestError before that."""
        if self.hand_over is None:
            raise GuestError(f"{self.name} has not handed its memory over")
        return self.hand_over


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
        hello = connection.recv(MESSAGE)
        if not hello:
            raise ConnectionResetError("the zygote is ending")
        self.zygote_pid = int(json.loads(hello)["pid"])

    def spawn(self, spec: GuestSpec) -> Guest:
        """Fork a guest; its memory is still to be received."""
        with self._lock:
            request(self._connection, op="spawn", spec=spec)
            guest = self._next_guest()
        if guest is None:
            raise GuestError("the zygote did not fork a guest")
        return guest

    def living(self) -> list[Guest]:
        """Every guest that is alive, for a node that comes after a crash."""
        request(self._connection, op="list")
        found = []
        while (guest := self._next_guest()) is not None:
            found.append(guest)
        return found

    def end(self) -> None:
        """Kill every guest, and the zygote with them; returns when it is gone."""
        try:
            pidfd = os.pidfd_open(self.zygote_pid)
        except ProcessLookupError:
            self._connection.close()
            return
        with contextlib.suppress(OSError):  # it may have ended meanwhile
            request(self._connection, op="end")
            self._connection.recv(MESSAGE)
        self._connection.close()
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(DEADLINE * 1000)
        os.close(pidfd)

    def _next_guest(self) -> Guest | None:
        try:
            message, fds, _, _ = socket.recv_fds(self._connection, MESSAGE, 2)
        except OSError as error:
            raise GuestError(f"the zygote does not answer: {error}") from error
        content = json.loads(message or b"{}")
        if not content:
            return None
        return Guest(content["spec"], content["pid"], socket.socket(fileno=fds[0]), fds[1])
