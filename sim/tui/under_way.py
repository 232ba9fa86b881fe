"""Requests to a run that are not over: which go on, and which wait for which."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from sim.record.view import View
from sim.tui.requests import Request

LOOK = 0.1
"""Seconds after which one that waits looks again: a copy that is stopped meanwhile holds up no other request."""


@dataclass(eq=False, slots=True)
class Asked:
    """One request; `over` ends with it, `waits` until its turn has come."""

    request: Request
    waits: bool = True
    over: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class UnderWay:
    """Requests in the order in which they were made; each waits for those before it that concern the same sandboxes.

    What is stopped or slowed holds up its own sandbox alone. `view` is the newest.
    """

    def __init__(self, view: Callable[[], View]) -> None:
        self._view = view
        self._asked: list[Asked] = []

    def __bool__(self) -> bool:
        return bool(self._asked)

    @property
    def words(self) -> str:
        """`pausing web-0, one tick; 1 waits: resuming web-0`; nothing where nothing was asked."""
        doing = [each.request.doing for each in self._asked if not each.waits]
        waiting = [each.request.doing for each in self._asked if each.waits]
        said = ", ".join(doing)
        if waiting:
            listed = "; then ".join(waiting)
            said += f"{'; ' if said else ''}{len(waiting)} wait{'s' if len(waiting) == 1 else ''}: {listed}"
        return said

    @property
    def works(self) -> bool:
        """True where guests write, or will before what is asked next."""
        return any(each.request.works for each in self._asked)

    def pausing(self, names: Iterable[str]) -> list[str]:
        """Which of these have been asked to pause, where the pause has not answered yet."""
        sandboxes = self._view().sandboxes
        asked = {name for each in self._asked if each.request.pauses for name in each.request.names or ()}
        states = {name: sandboxes[name].state for name in names if name in sandboxes}
        return [name for name, state in states.items() if state == "pausing" or (name in asked and state == "running")]

    async def carry_out(self, request: Request, act: Callable[[], Awaitable[None]]) -> None:
        """Wait for its turn, then `act`; a cancellation drops it."""
        asked = Asked(request, task=asyncio.current_task())
        before = list(self._asked)
        self._asked.append(asked)
        try:
            while blockers := [each for each in before if not each.over.is_set() and self._blocks(each, request)]:
                waits = [asyncio.ensure_future(each.over.wait()) for each in blockers]
                try:
                    await asyncio.wait(waits, timeout=LOOK)
                finally:
                    for wait in waits:
                        wait.cancel()
            asked.waits = False
            await act()
        finally:
            asked.over.set()
            self._asked.remove(asked)

    def drop_waiting(self) -> str | None:
        """Drop what waits and was asked last; what it was, None where nothing waits."""
        for asked in reversed(self._asked):
            if asked.waits and asked.task is not None:
                asked.task.cancel()
                return asked.request.doing
        return None

    def cancel(self) -> None:
        """Drop all that waits."""
        for asked in self._asked:
            if asked.waits and asked.task is not None:
                asked.task.cancel()

    async def over(self) -> None:
        """Until all that was asked is over."""
        while self._asked:
            await self._asked[-1].over.wait()
            await asyncio.sleep(0)

    def _blocks(self, earlier: Asked, request: Request) -> bool:
        if request.at_once or earlier.request.at_once:
            return False
        if earlier.request.setting:
            return True
        if request.setting or request.names is None:
            return not self._held_up(earlier)
        if earlier.request.names is None:
            return True
        if request.resumes and not self.pausing(request.names):
            return not earlier.request.pauses and bool(request.names & earlier.request.names)
        return bool(request.names & earlier.request.names)

    def _held_up(self, asked: Asked) -> bool:
        """True if a person holds or slows one of its copies: it may take any time, and so may what waits for it."""
        sandboxes = self._view().sandboxes
        names = sandboxes if asked.request.names is None else asked.request.names
        return any(name in sandboxes and sandboxes[name].pace.set for name in names)
