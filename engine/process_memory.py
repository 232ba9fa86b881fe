"""A guest's memory read out of its process, for guests that gave no memfd: nothing is owned, nothing can be punched."""

from __future__ import annotations

from engine import linux
from engine.errors import TruncatedError
from engine.ranges import Chunk, from_indexes, runs

_BATCH_BYTES = (2 << 30) - (4 << 10)  # process_vm_readv moves less than 2 GiB a call


class ProcessMemory:
    """`size` bytes at `address` of process `pid`; `page_size` is the kernel's for that mapping."""

    def __init__(self, pid: int, address: int, size: int, page_size: int) -> None:
        self.pid = pid
        self.size = size
        self.page_size = page_size
        self._address = address

    def read_span(self, buffer: memoryview, offset: int, chunk: Chunk) -> None:
        """Fill `buffer`, which begins at byte `offset` of memory, with the chunk's dirty blocks, each in its place.

        Only they are read: reading a hole through a mapping would allocate it (measured). Raises OSError as
        process_vm_readv(2) says, TruncatedError where it stops early.
        """
        block = chunk.length // len(chunk.blocks)
        left = [(first * block - offset, count * block) for first, count in runs(from_indexes(chunk.blocks))]
        while left:
            batch, left = _first_batch(left)
            wanted = sum(length for _, length in batch)
            got = linux.read_process(self.pid, buffer, self._address + offset, batch)
            if got == 0:
                raise TruncatedError(f"process {self.pid} gave nothing of {wanted} bytes")
            left = _after(batch, got) + left

    def resident_bytes(self) -> int | None:
        """None: there is no fd to ask."""
        return None

    def refresh_seals(self) -> int:
        """0: there is no fd to seal."""
        return 0

    def close(self) -> None:
        """Nothing is owned."""


def _first_batch(left: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """As many runs as one call takes."""
    total, count = 0, 0
    while count < min(len(left), linux.IOV_MAX) and total + left[count][1] <= _BATCH_BYTES:
        total += left[count][1]
        count += 1
    return left[: max(count, 1)], left[max(count, 1) :]


def _after(batch: list[tuple[int, int]], got: int) -> list[tuple[int, int]]:
    """What of the batch a call that read `got` bytes has left."""
    for index, (offset, length) in enumerate(batch):
        if got < length:
            return [(offset + got, length - got), *batch[index + 1 :]]
        got -= length
    return []
