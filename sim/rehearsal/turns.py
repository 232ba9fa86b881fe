"""The two arms of a rehearsal taking turns, step by step, so that what slows this machine down slows both alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from sim.probe import host
from sim.rehearsal.compiled import Arm
from sim.requirements import free_memory, needed_memory
from sim.scenario import Scenario
from sim.steps import Pause, Step
from sim.units import HUGE_PAGE

Result = TypeVar("Result")
_OTHER: dict[Arm, Arm] = {"on": "off", "off": "on"}


def beginners(steps: Sequence[Step]) -> tuple[Arm, ...]:
    """Which arm takes each step first: after every pause the other one, so that neither always comes second."""
    found: list[Arm] = []
    now: Arm = "off"
    for step in steps:
        found.append(now)
        now = _OTHER[now] if isinstance(step, Pause) else now
    return tuple(found)


class Turns:
    """Both arms take every step, one after the other; an arm that has ended is waited for no more."""

    def __init__(self, first: Sequence[Arm]) -> None:
        self._first = first
        self._taken: dict[Arm, int] = {"on": -1, "off": -1}
        self._free: dict[Arm, int] = {"on": -1, "off": -1}
        self._ended: set[Arm] = set()
        self._changed = asyncio.Condition()

    async def took(self, arm: Arm, index: int) -> None:
        """The arm has taken this step, and still looks at what came of it."""
        await self._set(self._taken, arm, index)

    async def both_took(self, arm: Arm, index: int) -> None:
        """Wait until the other one has taken it too."""
        other = _OTHER[arm]
        await self._until(arm, lambda: self._taken[other] >= index)

    async def next(self, arm: Arm, index: int) -> None:
        """The arm is done with this step; wait until it may take the next one."""
        await self._set(self._free, arm, index)
        other, coming = _OTHER[arm], index + 1
        if coming >= len(self._first):
            return
        if self._first[coming] == arm:
            await self._until(arm, lambda: self._free[other] >= index)
        else:
            await self._until(arm, lambda: self._taken[other] >= coming)

    def has_ended(self, arm: Arm) -> bool:
        """Whether an arm takes no more steps."""
        return arm in self._ended

    async def end(self, arm: Arm) -> None:
        """The arm takes no more steps."""
        async with self._changed:
            self._ended.add(arm)
            self._changed.notify_all()

    async def _set(self, counts: dict[Arm, int], arm: Arm, index: int) -> None:
        async with self._changed:
            counts[arm] = index
            self._changed.notify_all()

    async def _until(self, arm: Arm, reached: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: reached() or _OTHER[arm] in self._ended)


async def side_by_side(
    first: Coroutine[Any, Any, Result], second: Coroutine[Any, Any, Result]
) -> tuple[Result, Result]:
    """Both to their end. Where one fails, or this is cancelled, both have been torn down before it is told."""
    tasks = [asyncio.ensure_future(first), asyncio.ensure_future(second)]
    try:
        one, other = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return one, other


def has_room_for_two(scenario: Scenario) -> bool:
    """Whether both arms' fleets fit into this host at once: memory, and huge pages where the fleet has them."""
    huge = sum(each.memory for each in scenario.sandboxes() if each.page_size == HUGE_PAGE)
    room = 2 * needed_memory(scenario) <= free_memory()
    return room and (not huge or 2 * huge <= int(host()["hugetlb_free"]))
