"""A guest to measure on: light on purpose."""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import socket
import sys
from collections.abc import Iterable
from itertools import pairwise

from engine import linux

_PATTERN = 1 << 20
_STEP = 4096
_BLOCK = 2 << 20


def main(arguments: list[str]) -> int:
    """SOCKET_FD PARENT_PID SIZE PAGE_SIZE LAYOUT FOLDER; ends when the socket closes, or with its parent.

    FOLDER, on a tmpfs, has its memory in a file without a name; empty for a memfd.
    """
    socket_fd, parent, size, page_size = (int(each) for each in arguments[:4])
    _live_with(parent)
    control = socket.socket(fileno=socket_fd)
    fd = _memory(page_size, arguments[5])
    os.ftruncate(fd, size)
    memory = mmap.mmap(fd, size)
    address = linux.address_of(memory)
    hello = {"address": address, "refusal": _fill(memory, address, page_size, arguments[4])}
    socket.send_fds(control, [json.dumps(hello).encode()], [fd])
    control.recv(1)
    return 0


def _memory(page_size: int, folder: str) -> int:
    if folder:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    return os.memfd_create("snapdrill-bench", flags | (os.MFD_HUGETLB | os.MFD_HUGE_2MB if page_size > _STEP else 0))


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


FULL = "full"
HALF_IN_ONE_RUN = "half-in-one-run"
EVERY_SECOND = "every-second-block"
SCATTERED_10 = "scattered-10%"
SCATTERED_50 = "scattered-50%"
CLEAN_90 = "clean-90%"
"""All memory is resident, a tenth of it dirty, the rest clean: as a finished parent build holds it."""
CLEAN_99 = "clean-99%"
"""The same with a hundredth dirty: what a short pause costs."""
SPARSE = "sparse-2MiB-blocks"
"""64 KiB of each 2 MiB are there, which is the unit of its dirty tracking."""
COPIED = (FULL, HALF_IN_ONE_RUN, EVERY_SECOND, SCATTERED_10, CLEAN_90, SPARSE)
Runs = list[tuple[int, int]]


def has_parent(layout: str) -> bool:
    """True where clean blocks are resident, so that a parent build must hold them."""
    return layout in {CLEAN_90, CLEAN_99}


def block_size_of(layout: str, page_size: int) -> int:
    """Unit of its dirty tracking, bytes."""
    return max(_BLOCK, page_size) if layout == SPARSE else page_size


def dirty_runs(layout: str, blocks: int) -> Runs:
    """(first block, count) of each run of dirty blocks, ascending; the same at every call. KeyError: no such layout."""
    shares = {SCATTERED_10: 0.1, CLEAN_90: 0.1, CLEAN_99: 0.01, SCATTERED_50: 0.5}
    if layout == FULL:
        return [(0, blocks)]
    if layout == HALF_IN_ONE_RUN:
        return [(0, max(1, blocks // 2))]
    if layout == SPARSE:
        return [(page, min(16, blocks - page)) for page in range(0, blocks, _BLOCK // _STEP)]
    if layout == EVERY_SECOND:
        return [(block, 1) for block in range(0, blocks, 2)]
    count = max(1, round(blocks * shares[layout]))
    return joined(sorted(random.Random(layout).sample(range(blocks), count)))


def joined(blocks: Iterable[int]) -> Runs:
    """Ascending blocks as runs of neighbours."""
    chosen = list(blocks)
    if not chosen:
        return []
    edges = [0, *(at for at, (one, other) in enumerate(pairwise(chosen), 1) if other != one + 1), len(chosen)]
    return [(chosen[low], high - low) for low, high in pairwise(edges)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
