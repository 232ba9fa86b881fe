"""The guest's side of the engine's tests: processes forked from a small server, as the tests' own process is large.

A fork copies page tables, and what either side writes next: with all tests loaded that takes longer than a pause.
"""

from __future__ import annotations

import array
import functools
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from engine import linux
from tests.cloned import clone

PAGE = 4096


@functools.cache
def _server(_process: int) -> socket.socket:
    """The connection to this process's server, which ends when it is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.integration.engine.guest_process", str(theirs.fileno())]
        root = Path(__file__).parents[3]
        subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd=root)
    return ours


def start(sock: socket.socket, size: int, flags: int) -> int:
    """Start a guest, a child of this process, which serves `sock`; its pid."""
    server = _server(os.getpid())
    socket.send_fds(server, [json.dumps([os.getpid(), size, flags]).encode()], [sock.fileno()])
    return int(server.recv(64))


def serve(fd: int) -> None:
    """Fork a guest for each request, until the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=fd)
    while True:
        message, fds, _, _ = socket.recv_fds(connection, 4096, 1)
        if not message:
            return
        parent, size, flags = json.loads(message)
        if (pid := clone()) == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _run(socket.socket(fileno=fds[0]), parent, size, flags)
        os.close(fds[0])
        connection.send(str(pid).encode())


def page_content(seed: int, page: int) -> bytes:
    """What a guest writes: never zero for a seed above 0, and different for every page and seed."""
    return struct.pack("<QQ", seed, page) * (PAGE // 16)


class _Child:
    """The guest's side, in the forked process: one memfd, one mapping, one command at a time."""

    def __init__(self, sock: socket.socket, size: int, flags: int) -> None:
        self.sock = sock
        self.size = size
        self.fd = os.memfd_create("guest", flags)
        os.ftruncate(self.fd, size)
        self.notes = os.memfd_create("notes")  # one byte a page: the tracker where the kernel refuses its own
        os.ftruncate(self.notes, size // PAGE)
        self.memory = mmap.mmap(self.fd, size)
        self.more: list[mmap.mmap] = []
        self.uffd = -1

    def serve(self) -> NoReturn:
        address = linux.address_of(self.memory)
        rights = array.array("i", [self.fd, self.notes]).tobytes()
        self.sock.sendmsg([struct.pack("<Q", address)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        while message := self.sock.recv(1 << 20):
            do, arguments = json.loads(message)
            try:
                answer = getattr(self, do)(*arguments)
            except OSError as error:
                answer = f"errno {error.errno}"
            self.sock.send(json.dumps(answer).encode())
        os._exit(0)

    def track(self) -> None:
        self.uffd = linux.write_protect_tracking(linux.address_of(self.memory), self.size)

    def write(self, pages: list[int], seed: int) -> None:
        for page in pages:
            content = page_content(seed, page) if seed else bytes(PAGE)
            self.memory[page * PAGE : (page + 1) * PAGE] = content
            os.pwrite(self.notes, b"\1", page)

    def read(self, page: int) -> str:
        return self.memory[page * PAGE : (page + 1) * PAGE].hex()

    def truncate(self, size: int) -> None:
        os.ftruncate(self.fd, size)

    def seal(self, seals: int) -> None:
        linux.add_seals(self.fd, seals)

    def unmap(self) -> None:
        self.memory.close()

    def write_by_another_mapping(self, page: int, seed: int) -> None:
        again = mmap.mmap(self.fd, self.size)
        again[page * PAGE : (page + 1) * PAGE] = page_content(seed, page)
        self.more.append(again)

    def stop_tracking(self) -> None:
        os.close(self.uffd)


def _run(sock: socket.socket, parent: int, size: int, flags: int) -> NoReturn:
    try:
        linux.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        os.closerange(3, sock.fileno())  # no other guest's fds live on in this one
        os.closerange(sock.fileno() + 1, 4096)
        _Child(sock, size, flags).serve()
    finally:
        os._exit(1)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
