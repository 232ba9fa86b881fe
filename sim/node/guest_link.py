"""A guest as its node holds it: process, control socket, adopted memory and tracker.

Calls block; run them in threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine import linux
from engine.dirty import Forgotten, SharedBitmap, Tracker, WriteProtectScan
from engine.errors import FreezeError, GuestRanError
from engine.evidence import Threads
from engine.incarnation import CondemnedRecords, GuestProcess, Incarnation, start_time_of
from engine.memfd import Memfd, seal_size
from sim.node.dirty_log import LoggedTracker
from sim.node.guest import BEAT, GuestSpec, side_size
from sim.node.vm import VmEnd
from sim.node.zygote import MESSAGE
from sim.record.oracle import PAGE

_GENERATION = 4
DEADLINE = 30.0
_LEAST = 0.1
_SHOWN, _ADDRESSES = 16, (1 << 64) - 1  # bytes of a guest's memory that are recorded; the largest address
FDS_PER_GUEST = 8
"""Of a node: socket, pidfd, /proc folder, memfd, side memfd and pagemap; its pause's cache, a look at its threads."""


class GuestError(Exception):
    """A guest or its zygote did not answer as it must."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """What a guest says with its two fds."""

    address: int
    memfd_fd: int
    side_fd: int
    tracker: str


@dataclass(frozen=True, slots=True)
class Armed:
    """How a guest's writes are followed; where the kernel refused to note them, its errno's name and a sentence."""

    tracker: str
    refused: str | None = None
    why: str | None = None


class Guest:
    """One living incarnation. The memfd is closed by the pause that consumes it, else by `close`."""

    def __init__(self, spec: GuestSpec, pid: int, control: socket.socket, pidfd: int) -> None:
        self.spec = spec
        self.pid = pid
        self._control = control
        self._control.settimeout(DEADLINE)
        self.process = GuestProcess(Incarnation(self.name, pid, start_time_of(pid) or 0, 0), pidfd)
        self._request = time.monotonic_ns() & 0xFFFFFFFF  # a restarted node must not take an old answer for its own
        self._asked_at = 0.0
        self._waking = threading.Lock()
        self.start_time = self.process.incarnation.start_time
        self.memfd: Memfd | None = None
        self.tracker: Tracker | None = None
        self.hand_over: HandOver | None = None
        self._side_fd = -1
        self.silent = False
        """It did not answer in time, though it was there."""
        self.vm_end: VmEnd | None = None
        """How its virtual machine ended, where that did."""

    @property
    def name(self) -> str:
        """The incarnation's name: `web-0.2`."""
        return self.spec["incarnation"]

    @property
    def is_vm(self) -> bool:
        """True where a virtual machine runs in it."""
        return self.spec["guest"] == "vm"

    def receive(self) -> None:
        """Take the memory that a newborn guest hands over, trusting nothing; raises GuestError, NotAMemfdError."""
        message, fds = self._receive_fds()
        memfd_fd, self._side_fd = fds
        self.memfd = Memfd.adopt(memfd_fd, self.spec["memory"])
        self.process.incarnation = replace(self.process.incarnation, memfd_inode=self.memfd.inode)
        self._seal_side()
        self.hand_over = self._hello(message)

    def _receive_fds(self) -> tuple[bytes, list[int]]:
        end = time.monotonic() + DEADLINE
        while True:
            try:
                message, fds, flags, _ = socket.recv_fds(self._until(end), MESSAGE, 2)
            except OSError as error:
                raise GuestError(f"{self.name} did not hand its memory over: {error}") from error
            if len(fds) == 2:
                return message, fds
            for fd in fds:
                os.close(fd)
            if refused := self._refused(message):
                from sim.files.units import format_size  # which loads more than all else that a node needs of sim

                what = "no memory or no virtual machine" if self.is_vm else "no memory"
                raise GuestError(f"{self.name} has {what} of {format_size(self.spec['memory'])}: {refused}")
            if not message:
                raise GuestError(f"{self.name} died before it handed its memory over")
            if fds or flags & socket.MSG_CTRUNC:
                raise GuestError(f"{self.name} handed over one fd, not two; or no more may be opened here: ulimit -n")

    def _refused(self, message: bytes) -> str | None:
        """Why a newborn guest has no memory to hand over: the pool of huge pages, a limit."""
        return str(self._parsed(message).get("refused"))[:100] if b'"refused"' in message else None

    def _until(self, end: float) -> socket.socket:
        """The control socket, to wait on until `end` whatever a guest sends meanwhile; raises TimeoutError after it."""
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._control.settimeout(left)
        return self._control

    def _seal_side(self) -> None:
        size = side_size(self.spec["memory"])
        try:
            seal_size(self._side_fd)
        except OSError as error:
            raise GuestError(f"{self.name}: the fd of its generations is no memfd: {error.strerror}") from error
        if os.fstat(self._side_fd).st_size != size:
            raise GuestError(f"{self.name}: its generations do not have {size} bytes")

    def _hello(self, message: bytes) -> HandOver:
        hello = self._parsed(message)
        if any(type(hello.get(name)) is not int for name in ("address", "memfd_fd", "side_fd")):
            raise GuestError(f"{self.name} said nonsense at its hand-over: {message[:60]!r}")
        return HandOver(hello["address"], hello["memfd_fd"], hello["side_fd"], str(hello.get("tracker")))

    def _parsed(self, message: bytes) -> dict[str, Any]:
        try:
            content = json.loads(message)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise GuestError(f"{self.name} does not speak JSON: {message[:60]!r}")
        return content

    def hand_over_again(self) -> None:
        """Ask a guest of a crashed node for its memory once more; it must be running."""
        self._send("hand-over", node=os.getpid())
        self.receive()
        self.use_tracker(self.known().tracker)

    def arm(self) -> Armed:
        """Start tracking; gives the tracker's name and why a better one was refused."""
        reply = self.ask("arm", node=os.getpid())
        code, why = (None if (said := reply.get(key)) is None else str(said)[:100] for key in ("code", "why"))
        return Armed(self.use_tracker(str(reply.get("tracker"))), code, why)

    def use_tracker(self, name: str) -> str:
        """Follow the guest's writes by the tracker that it has set up; gives the name of the one in use."""
        memfd, hello = self.memory(), self.known()
        block = self.spec["block_size"]
        if name != WriteProtectScan.name:
            self.tracker = self._noted(block)
            return self.tracker.name
        scan, unit = WriteProtectScan(self.pid, hello.address, memfd, block), max(block, memfd.page_size)
        self.tracker = LoggedTracker(scan, self._noted(unit), unit // block) if self.is_vm else scan
        return self.tracker.name

    def _noted(self, block: int) -> SharedBitmap:
        """The pages that are noted in the side memfd, in blocks of this many bytes."""
        pages = self.memory().size // PAGE
        return SharedBitmap(self._side_fd, pages * _GENERATION, pages, PAGE, block)

    def save_processor(self) -> bytes:
        """A virtual machine's processor state, and its dirty log brought up to date; the guest must be running.

        Nothing for a process. Raises FreezeError.
        """
        if not self.is_vm:
            return b""
        try:
            return bytes.fromhex(self.ask("save")["state"])
        except (GuestError, KeyError, TypeError, ValueError) as error:
            raise FreezeError(f"{self.name}: its processor state cannot be saved: {error}") from error

    def restore_processor(self, state: bytes) -> None:
        """Have a new virtual machine go on where this state was taken; raises GuestError where it holds another."""
        if self.ask("restore", state=state.hex()).get("same") is not True:
            raise GuestError(f"{self.name} does not hold the processor state that it was given")

    def forget_parent(self) -> None:
        """The build that its memory came from cannot be read, or its writes are not known: a pause keeps all."""
        if self.tracker is not None:
            self.tracker.close()
        self.tracker = Forgotten()

    def start_tick(self, number: int) -> int:
        """Have the guest work; it answers when it is at the tick's end."""
        return self._send("tick", number=number)

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Send one command and wait for its answer; raises GuestError where the guest is gone or silent."""
        return self.answer(self._send(op, **arguments))

    def _send(self, op: str, **arguments: Any) -> int:
        self._request += 1
        self._asked_at = time.monotonic()
        try:
            self._control.send(json.dumps({"id": self._request, "op": op, **arguments}).encode())
        except OSError as error:
            raise GuestError(f"{self.name} is gone: {error.strerror or error}") from error
        return self._request

    def answer(self, number: int) -> dict[str, Any]:
        """The answer to request `number`; older ones are dropped. The deadline counts from the latest request."""
        end = max(self._asked_at + DEADLINE, time.monotonic() + _LEAST)  # a neighbour may have used up the time
        while True:
            try:
                message = self._until(end).recv(MESSAGE)
            except TimeoutError:
                self.silent = True
                raise GuestError(f"{self.name} did not answer within {DEADLINE:g} s") from None
            except OSError as error:
                raise GuestError(f"{self.name} is gone: {error.strerror}") from error
            if not message:
                raise GuestError(f"{self.name} died")
            reply = self._parsed(message)
            if reply.get("id") == number:
                if "failed" in reply:
                    self.vm_end = _parsed_vm_end(reply.get("end"))
                    raise GuestError(f"{self.name}: {str(reply['failed'])[:300]}")
                return reply

    def generations(self) -> bytes:
        """The oracle's generations as they are now; the guest must be frozen for them to mean a moment."""
        return os.pread(self._side_fd, self.spec["memory"] // PAGE * _GENERATION, 0)

    def beat(self) -> int | None:
        """Its last heartbeat, from the side memfd; None where it has none."""
        if not self.spec["heartbeat"]:
            return None
        return int.from_bytes(os.pread(self._side_fd, BEAT, side_size(self.spec["memory"]) - BEAT), "little")

    def restore_generations(self, data: bytes) -> None:
        """Give a new guest the generations of the memory that it is filled with."""
        if os.pwrite(self._side_fd, data, 0) != len(data):
            raise GuestError(f"{self.name}: its generations could not be restored")

    def resident_bytes(self) -> int:
        """What the kernel holds for this guest's memory; 0 once the memfd is closed."""
        memfd = self.memfd
        return memfd.resident_bytes() if memfd is not None and memfd.fd >= 0 else 0

    def parts(self) -> tuple[GuestProcess, Memfd, Tracker]:
        """Process, memory and tracker of a guest that is ready; raises FreezeError before that."""
        if self.memfd is None or self.tracker is None:
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
        self.process.close()
        self._control.close()

    def kill(self) -> None:
        """End the process, whether it is ready or not; raises FreezeError where it does not die."""
        self.process.kill()

    def wake(self, traced: bool = False, seconds: float = 0.002) -> None:
        """What another process might do to a frozen guest: let it run, by SIGCONT or as its tracer, and stop it again
        once it has written to its memory, after `seconds` at least. Nothing where it is dead.

        Raises OSError where the kernel does not let this process trace it.
        """
        with self._waking, contextlib.suppress(GuestError, ProcessLookupError):
            number = self._send("write-a-little")
            with self._running(traced):
                time.sleep(seconds)
                self.answer(number)

    @contextlib.contextmanager
    def _running(self, traced: bool) -> Iterator[None]:
        if traced:
            with linux.running_traced(list(self.process.frozen or ())):
                yield
            return
        signal.pidfd_send_signal(self.process.pidfd, signal.SIGCONT)
        try:
            yield
        finally:
            signal.pidfd_send_signal(self.process.pidfd, signal.SIGSTOP)

    def is_dead(self) -> bool:
        """True once its pidfd says so."""
        return self.process.is_dead()

    def is_dying(self) -> bool:
        """The same, for a guest that closed its socket: its pidfd says so a moment later."""
        with contextlib.suppress(FreezeError):
            self.process.await_death(_LEAST)
        return self.is_dead()

    def continue_uncondemned(self, records: CondemnedRecords, frozen: Threads | None) -> GuestRanError | None:
        """Wake a guest of a crashed node; gives what a look showed, if it ran since `frozen` was read at its freeze.

        Raises CondemnedError where it may never run again.
        """
        self.process.frozen = frozen
        return self.process.thaw(records)

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


def _parsed_vm_end(said: Any) -> VmEnd | None:
    """What a guest says of its machine's end, trusting nothing; None for nonsense."""
    try:
        end: VmEnd = {
            "exit": str(said["exit"])[:40],
            "rip": int(said["rip"]) & _ADDRESSES,
            "past_memory": bool(said["past_memory"]),
            "began": int(said["began"]) & _ADDRESSES,
            "had": bytes.fromhex(said["had"])[:_SHOWN].hex(" "),
            "found": bytes.fromhex(said["found"])[:_SHOWN].hex(" "),
        }
    except (KeyError, TypeError, ValueError):
        return None
    return end


def tick_all(guests: Sequence[Guest], number: int) -> list[tuple[Guest, str]]:
    """Have guests work at the same time. Gives those that did not answer as they must, and why; they are killed."""
    asked: list[tuple[Guest, int]] = []
    lost: list[tuple[Guest, str]] = []
    for guest in guests:
        try:
            asked.append((guest, guest.start_tick(number)))
        except GuestError as error:
            lost.append((guest, str(error)))
    for guest, request_number in asked:
        try:
            guest.answer(request_number)
        except GuestError as error:
            lost.append((guest, str(error)))
    for guest, _ in lost:
        with contextlib.suppress(FreezeError):
            guest.kill()
    return lost
