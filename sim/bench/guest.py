"""A guest that fills its memory fast, by one layout, then waits to be frozen: `python -m sim.bench.guest ...`.

It owns, maps and tracks its memfd as `sim.guest` does; only its contents are simpler, because no oracle judges them.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import socket
import sys

from engine import linux
from sim.bench.layouts import dirty_runs, has_parent

_PATTERN = 1 << 20
_STEP = 4096


def main(arguments: list[str]) -> int:
    """SOCKET_FD PARENT_PID SIZE PAGE_SIZE LAYOUT; ends when the socket closes, or with its parent."""
    socket_fd, parent, size, page_size = (int(each) for each in arguments[:4])
    _live_with(parent)
    control = socket.socket(fileno=socket_fd)
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    fd = os.memfd_create("snapdrill-bench", flags | (os.MFD_HUGETLB | os.MFD_HUGE_2MB if page_size > _STEP else 0))
    os.ftruncate(fd, size)
    memory = mmap.mmap(fd, size)
    address = linux.address_of(memory)
    hello = {"address": address, "refusal": _fill(memory, address, page_size, arguments[4])}
    socket.send_fds(control, [json.dumps(hello).encode()], [fd])
    control.recv(1)
    return 0


def _live_with(parent: int) -> None:
    linux.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _fill(memory: mmap.mmap, address: int, page_size: int, layout: str) -> str | None:
    """Write what a parent build would hold, have the kernel track, write the dirty blocks; why tracking was refused."""
    pattern = random.Random(layout).randbytes(2 * _PATTERN)
    if has_parent(layout):
        _write(memory, 0, len(memory), pattern)
    refusal = None
    try:
        linux.write_protect_tracking(address, len(memory))  # the fd stays open as long as this process
    except OSError as error:
        refusal = f"userfaultfd: {error.strerror}"
    for first, count in dirty_runs(layout, len(memory) // page_size):
        _write(memory, first * page_size, count * page_size, pattern)
    return refusal


def _write(memory: mmap.mmap, start: int, length: int, pattern: bytes) -> None:
    """Fill with the pattern, MiB by MiB, each from another place in it."""
    for at in range(start, start + length, _PATTERN):
        piece = min(_PATTERN, start + length - at)
        shift = at // _STEP * 16 % _PATTERN
        memory[at : at + piece] = pattern[shift : shift + piece]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
