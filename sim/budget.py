"""The node's memory budget: admission by planned bytes, first come first served."""

from __future__ import annotations

import asyncio
from collections import deque

PUNCHED_PEAK = 8 << 20
"""Bytes that a punching pause may need beyond its guest: two chunks in flight, with room."""


class OverBudgetError(Exception):
    """A request that could not fit even on an otherwise idle node; says how much it would need."""


class Budget:
    """Grants bytes up to `total`; a request waits until what went before it was given back."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.granted = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int, *, can_wait: bool) -> None:
        """Wait for `size` bytes; OverBudgetError where they exceed the budget and nothing that can end holds any."""
        if not self._queue and self.granted + size <= self.total:
            self.granted += size
            return
        if not can_wait:
            raise self._over(size)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((size, turn))
        await turn

    def hold(self, size: int) -> None:
        """Count bytes that are there already, without asking."""
        self.granted += size

    def give_back(self, size: int) -> None:
        """Return granted bytes and admit whoever fits now, in order."""
        self.granted -= size
        while self._queue and self.granted + self._queue[0][0] <= self.total:
            size, turn = self._queue.popleft()
            if not turn.done():
                self.granted += size
                turn.set_result(None)

    def refuse_waiting(self) -> None:
        """Nothing that can end holds any more: who still waits would wait for ever, and gets OverBudgetError."""
        while self._queue:
            size, turn = self._queue.popleft()
            if not turn.done():
                turn.set_exception(self._over(size))

    def _over(self, size: int) -> OverBudgetError:
        over = self.granted + size - self.total
        return OverBudgetError(f"it needs {size} bytes more, {over} over the node's budget of {self.total}")
