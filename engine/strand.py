"""A copy that failed past the point of no return, kept: what is published and what the memfd holds are the snapshot."""

from __future__ import annotations

import contextlib

import numpy as np
import xxhash

from engine.cache import Cache
from engine.copy import ChunkError
from engine.effects import Memory
from engine.ending import Ending
from engine.errors import EngineError, GuestRanError, is_of_host
from engine.events import Stranded
from engine.memfd import Memfd
from engine.plan import PausePlan, SalvageCode
from engine.ranges import Chunk

RETRY_SECONDS = (0.01, 0.05, 0.25)
"""How long after a failure each new attempt is made, before the build stays stranded until it is asked for."""


class UnsalvageableError(EngineError):
    """What is left of a failed copy is not the whole snapshot any more."""

    def __init__(self, code: SalvageCode, why: str) -> None:
        super().__init__(why)
        self.code = code


def packed_from(memory: Memfd, chunk: Chunk, block: int) -> bytes:
    """The dirty blocks of a chunk, as they are in the memfd."""
    first, last = int(chunk.blocks[0]), int(chunk.blocks[-1])
    span = bytearray((last - first + 1) * block)
    memory.read_into(memoryview(span), first * block)
    if len(span) == chunk.length:
        return bytes(span)
    rows = np.frombuffer(span, dtype=np.uint8).reshape(-1, block)
    return bytes(rows[chunk.blocks - chunk.blocks[0]].tobytes())


class Strand:
    """What is left to copy of one build whose guest is dead. The memfd does not change any more, except by punching."""

    def __init__(self, memory: Memfd, plan: PausePlan, cache: Cache) -> None:
        self._memory = memory
        self._plan = plan
        self._cache = cache
        self._compared: set[int] = set()
        cache.strand(self.packed)

    @classmethod
    def of(
        cls, error: BaseException, memory: Memory, plan: PausePlan | None, cache: Cache | None, ending: Ending
    ) -> Strand:
        """Keep the copy that failed with `error`; raises UnsalvageableError where it is not whole.

        The guest is ended first, if it was not.
        """
        torn = ending.kill() or ending.torn
        if torn is not None or isinstance(error, GuestRanError):
            raise UnsalvageableError(SalvageCode.TORN, str(torn or error))
        if not isinstance(error, Exception):
            raise UnsalvageableError(SalvageCode.INTERRUPTED, f"the pause was interrupted: {type(error).__name__}")
        if not ending.await_death():
            raise UnsalvageableError(SalvageCode.LIVES, f"the guest was not ended: {ending.error}")
        if plan is None or cache is None or not isinstance(memory, Memfd):
            raise UnsalvageableError(SalvageCode.NO_MEMFD, "the guest's memory is not in a memfd")
        return cls(memory, plan, cache)

    def check(self, error: BaseException, *, punched: bool) -> None:
        """After one more failure: raises UnsalvageableError where that is its end, or what is published is damaged.

        What cannot be read back just now is compared before the build is finished.
        """
        if isinstance(error, UnsalvageableError):
            raise error
        with contextlib.suppress(ChunkError):
            self.compare(punched=punched)

    def event(self, peak_over: int | None) -> Stranded:
        """What is left to copy, for the ledger."""
        left = self.left
        return Stranded(self._cache.build, len(left), sum(chunk.length for chunk in left), peak_over)

    @property
    def left(self) -> list[Chunk]:
        """The chunks that are not published, ascending."""
        return [chunk for chunk in self._plan.chunks if not self._cache.is_published(chunk.index)]

    def packed(self, index: int) -> bytes:
        """The dirty blocks of a chunk out of the memfd: of use only where it is still not published afterwards."""
        return packed_from(self._memory, self._plan.chunks[index], self._plan.facts.block_size)

    def compare(self, *, punched: bool) -> None:
        """Compare what is published with its digests, each chunk once.

        A chunk that differs, or cannot be read, is copied again where nothing was punched. Else one that differs
        raises UnsalvageableError: its bytes are nowhere any more. One that this host cannot read raises ChunkError.
        """
        for index, (offset, length) in enumerate(self._cache.chunks()):
            if index in self._compared or not self._cache.is_published(index):
                continue
            if self._is_as_written(index, offset, length, punched=punched):
                self._compared.add(index)
            elif punched:
                raise UnsalvageableError(SalvageCode.CORRUPT, f"chunk {index} in the cache is not what was written")
            else:
                self._cache.withdraw(index)

    def _is_as_written(self, index: int, offset: int, length: int, *, punched: bool) -> bool:
        """False also for what cannot be read; an error of this host says nothing of a chunk that is nowhere else."""
        try:
            return xxhash.xxh3_128_digest(self._cache.read(offset, length)) == self._cache.digest(index)
        except EngineError:
            return False
        except (OSError, MemoryError) as error:
            if punched and is_of_host(error):
                raise ChunkError(index, "cache.read", error) from error
            return False

    def complete(self, *, punched: bool) -> None:
        """Raises EngineError unless every chunk is published, and as it was written."""
        self.compare(punched=punched)
        if left := self.left:
            raise EngineError(f"chunk {left[0].index} is not in the cache as it was written: it has to be copied again")
