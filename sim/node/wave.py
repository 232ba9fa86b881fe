"""Pauses that go together: all guests of a wave are frozen before one is copied, and all copied before one ends.

So many copies at once then have the highest peak that they can have, whatever the scheduler does.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable, Iterator

PATIENCE = 2.0
"""Seconds in which no guest of the wave was frozen, and no chunk copied: the others then go on by themselves."""


class Wave:
    """`names` are awaited; each takes `part`, or the others lose PATIENCE seconds. Empty it holds nothing up.

    The loop waits in `all_frozen`, copiers in `all_copied`; whatever becomes of one of them, the others go on.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._unfrozen = set(names)
        self._uncopied = set(self._unfrozen)
        self._frozen = asyncio.Event()
        self._changed = threading.Condition()
        self._chunks = 0

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Around the pause of this one: however that ends, the others no longer wait for it."""
        try:
            yield
        finally:
            self.leave(name)

    def leave(self, name: str) -> None:
        """Await this one no longer: it was refused, failed, or has to wait for memory. Harmless when done."""
        self._is_frozen(name)
        with self._changed:
            self._is_copied(name)

    def _is_copied(self, name: str) -> None:
        """Only the last wakes the others: they may be many."""
        self._uncopied.discard(name)
        if not self._uncopied:
            self._changed.notify_all()

    def _is_frozen(self, name: str) -> None:
        self._unfrozen.discard(name)
        if not self._unfrozen:
            self._frozen.set()

    async def all_frozen(self, name: str) -> None:
        """This guest is frozen: return once all the others are, or will not be."""
        self._is_frozen(name)
        while not self._frozen.is_set():
            before = len(self._unfrozen)
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._frozen.wait()
            except TimeoutError:
                if len(self._unfrozen) == before:
                    self._frozen.set()

    def copied_a_chunk(self) -> None:
        """A copy of the wave goes on."""
        with self._changed:
            self._chunks += 1

    def all_copied(self, name: str) -> None:
        """All of this one is copied: return once all of the others is, or will not be."""
        with self._changed:
            self._is_copied(name)
            while self._uncopied:
                before = self._chunks
                if not self._changed.wait(PATIENCE) and self._chunks == before:
                    self._uncopied.clear()
                    self._changed.notify_all()
