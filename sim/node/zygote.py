"""The process that guests are forked from. It outlives a crashed node, and hands its guests to the next one.

Started as `python -m sim.node.zygote LISTENER_FD GRACE_SECONDS [OWNER_FILE [CGROUP]]`. It speaks JSON on SEQPACKET:
`spawn` forks a guest, `list` reports every living one, `end` kills them all. It keeps memory too: `keep` takes an fd by
the name of a build, `drop` closes it, `kept` hands all of them out. Without a node it waits for the grace, then ends
itself and its guests; it does so within two seconds once the runner, which holds a lock on OWNER_FILE, ends.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from typing import Any

from engine import linux
from sim.node import cgroup, guest, vm
from sim.record import owner

MESSAGE = 65536
_GUESTS_DIE_FIRST = 500  # of 1000, beyond the zygote's
_LOOK = 1.0  # seconds between two looks at whether the runner lives


@dataclass(frozen=True, slots=True)
class _Child:
    """A living guest: what it was started with, and the two fds that address it."""

    spec: guest.GuestSpec
    control: socket.socket
    pidfd: int


class _Zygote:
    def __init__(self, listener: socket.socket, grace: float, owner_fd: int | None = None) -> None:
        self._owner = owner_fd
        self._listener = listener
        self._grace = grace
        self._children: dict[int, _Child] = {}
        self._kept: dict[str, int] = {}  # memory by the build that it is copied into
        self._connection: socket.socket | None = None
        self._alone_since = time.monotonic()
        self._deaths = select.epoll()  # by pidfd: a handler of SIGCHLD would have to be taken back in each guest
        self._orphan_since: float | None = None
        self._ended = False

    def serve(self) -> None:
        """Until asked to end, or left alone for the grace."""
        while not self._ended:
            self._wait()
            self._reap()
            alone = self._connection is None and time.monotonic() - self._alone_since > self._grace
            if alone or self._is_orphan():
                self._end_all()

    def _is_orphan(self) -> bool:
        """Whether the runner has ended, seen twice: the first time its node may be ending everything in order."""
        if self._owner is None or not owner.is_free(self._owner):
            self._orphan_since = None
            return False
        self._orphan_since = self._orphan_since or time.monotonic()
        return time.monotonic() - self._orphan_since >= _LOOK

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._deaths, select.POLLIN)
        poll.register(self._connection or self._listener, select.POLLIN)
        timeout = _LOOK
        if self._connection is None:
            timeout = min(timeout, max(0.0, self._alone_since + self._grace - time.monotonic()))
        for fd, _ in poll.poll(timeout * 1000 + 1):
            if fd == self._deaths.fileno():
                self._deaths.poll(0)  # each death once, also where a tracer keeps us from reaping it yet
            else:
                self._talk()

    def _talk(self) -> None:
        """A node may die in the middle of anything: that ends the talk, and no guest."""
        try:
            if self._connection is None:
                self._connection, _address = self._listener.accept()
                self._connection.send(json.dumps({"pid": os.getpid()}).encode())
            else:
                request, fds, _, _ = socket.recv_fds(self._connection, MESSAGE, 1)
                if request:
                    self._obey(json.loads(request), fds, self._connection)
                else:
                    self._hang_up()
        except ConnectionError:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._alone_since = time.monotonic()

    def _obey(self, command: dict[str, Any], fds: list[int], connection: socket.socket) -> None:
        """Each answer carries the `id` of its request, and the `op`: the node may have given it up meanwhile."""
        about = {"id": command.get("id"), "op": command["op"]}
        match command["op"]:
            case "keep" | "drop" | "kept" as op:
                self._keep(op, command.get("build", ""), fds, connection, about)
            case "spawn":
                try:
                    pid, child = self._spawn(command["spec"])
                except OSError as error:  # no process or fd to be had: the guests that there are live on
                    why = f"the zygote cannot fork: {error.strerror}"
                    connection.send(json.dumps({**about, "error": why}).encode())
                else:
                    self._tell(connection, pid, child, about)
            case "list":
                for pid, child in self._children.items():
                    self._tell(connection, pid, child, about)
                connection.send(json.dumps({**about, "last": True}).encode())
            case "end":
                self._end_all()
                connection.send(b"{}")

    def _keep(self, op: str, build: str, fds: list[int], connection: socket.socket, about: dict[str, Any]) -> None:
        """No fd came with it where no more may be opened here: that is no acknowledgement."""
        if op == "kept":
            for name, fd in self._kept.items():
                socket.send_fds(connection, [json.dumps({**about, "kept": name}).encode()], [fd])
            connection.send(json.dumps({**about, "last": True}).encode())
            return
        if (old := self._kept.pop(build, None)) is not None:
            os.close(old)
        if op == "keep" and fds:
            self._kept[build] = fds[0]
        answer = {"dropped": build} if op == "drop" else {"kept": build, "held": bool(fds)}
        connection.send(json.dumps({**about, **answer}).encode())

    def _spawn(self, spec: guest.GuestSpec) -> tuple[int, _Child]:
        if spec.get("guest") == "vm":
            vm.prepare(spec["memory"])
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            zygote_pid = os.getpid()
            try:
                pid = os.fork()
            except OSError:
                ours.close()
                raise
            if pid == 0:
                self._become_guest(spec, theirs, zygote_pid)
        pidfd = None
        try:
            pidfd = os.pidfd_open(pid)
            self._deaths.register(pidfd, select.EPOLLIN | select.EPOLLET)
        except OSError:
            if pidfd is not None:
                os.close(pidfd)
            ours.close()
            os.kill(pid, signal.SIGKILL)  # ours and not reaped yet, so the pid is no other process's
            os.waitpid(pid, 0)
            raise
        self._children[pid] = child = _Child(spec, ours, pidfd)
        return pid, child

    def _become_guest(self, spec: guest.GuestSpec, control: socket.socket, zygote_pid: int) -> None:
        """Never returns. Keeps no fd of the zygote or of another guest."""
        code = 1
        try:
            keep = control.fileno()
            os.closerange(3, keep)
            os.closerange(keep + 1, 1 << 20)
            cgroup.die_first(_GUESTS_DIE_FIRST)
            guest.run(spec, control, zygote_pid)
            code = 0
        except Exception:  # noqa: BLE001 - its death is all that a node sees; the node's log says why
            traceback.print_exc()
        finally:
            os._exit(code)

    @staticmethod
    def _tell(connection: socket.socket, pid: int, child: _Child, about: dict[str, Any]) -> None:
        message = json.dumps({**about, "pid": pid, "spec": child.spec}).encode()
        socket.send_fds(connection, [message], [child.control.fileno(), child.pidfd])

    def _reap(self, flags: int = os.WNOHANG) -> None:
        while self._children:
            pid, _ = os.waitpid(-1, flags)
            if pid == 0:
                return
            child = self._children.pop(pid)
            child.control.close()
            self._deaths.unregister(child.pidfd)  # closing it is not enough: a node has the same pidfd
            os.close(child.pidfd)

    def _end_all(self) -> None:
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        self._reap(flags=0)
        self._ended = True


def main(arguments: list[str]) -> int:
    """Become a session of its own first: an orphaned group's stopped members are woken by the kernel."""
    listener_fd, grace = int(arguments[0]), float(arguments[1])
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever started us may ignore it: a guest would be nobody's child
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # guests die with us: PR_SET_PDEATHSIG
    linux.set_process_name("zygote")
    owner_fd = owner.watch(arguments[2]) if arguments[2:] else None
    for folder in arguments[3:]:
        cgroup.join(folder)
    os.set_inheritable(listener_fd, False)
    gc.collect()
    gc.freeze()
    _Zygote(socket.socket(fileno=listener_fd), grace, owner_fd).serve()
    return 0


def request(connection: socket.socket, **command: Any) -> None:
    """Send one command to a zygote."""
    connection.send(json.dumps(command).encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
