"""Admission by planned bytes: never over the total, first come first served, and a clear no where waiting is vain."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import plan as plans
from engine.cache import Cache
from engine.copy import ChunkCopier
from engine.effects import Effects
from engine.memfd import Memfd
from engine.meter import MeterSample, PeakMeter
from engine.plan import MemoryFacts, PauseOptions
from engine.ranges import Blocks
from sim.node.memory import Budget, OverBudgetError, most_copier_bytes

MIB = 1 << 20


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_fits_is_granted_at_once() -> None:
    budget = Budget(100)
    await budget.take(60, can_wait=False)
    await budget.take(40, can_wait=False)
    assert budget.granted == 100


async def test_a_request_that_nothing_can_make_room_for_is_refused_with_its_size() -> None:
    budget = Budget(100)
    budget.hold(70)
    with pytest.raises(OverBudgetError, match="it needs 40 bytes more, 10 over the node's budget of 100"):
        await budget.take(40, can_wait=False)
    assert budget.granted == 70


async def test_a_request_waits_until_what_went_before_it_is_given_back() -> None:
    budget = Budget(100)
    await budget.take(80, can_wait=False)
    waiting = asyncio.create_task(budget.take(50, can_wait=True))
    await settle()
    assert not waiting.done()
    budget.give_back(20)
    await settle()
    assert not waiting.done()
    budget.give_back(10)
    await waiting
    assert budget.granted == 100


async def test_a_small_request_does_not_overtake_a_large_one() -> None:
    budget = Budget(100)
    await budget.take(80, can_wait=False)
    order: list[str] = []

    async def take(name: str, size: int) -> None:
        await budget.take(size, can_wait=True)
        order.append(name)

    tasks = [asyncio.create_task(take("large", 90))]
    await settle()
    tasks.append(asyncio.create_task(take("small", 10)))
    await settle()
    assert order == []
    budget.give_back(80)
    await asyncio.gather(*tasks)
    assert order == ["large", "small"]


async def test_one_that_went_away_while_waiting_takes_nothing_and_holds_nobody_up() -> None:
    budget = Budget(100)
    await budget.take(100, can_wait=False)
    gone = asyncio.create_task(budget.take(50, can_wait=True))
    await settle()
    patient = asyncio.create_task(budget.take(60, can_wait=True))
    await settle()
    gone.cancel()
    await settle()
    budget.give_back(100)
    await patient
    assert budget.granted == 60


async def test_what_is_there_already_counts_without_asking() -> None:
    budget = Budget(100)
    budget.hold(120)
    assert budget.granted == 120
    with pytest.raises(OverBudgetError):
        await budget.take(1, can_wait=False)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 100), max_size=20), order=st.randoms(use_true_random=False))
def test_never_more_than_the_total_is_granted_and_everybody_has_a_turn_in_order(
    sizes: list[int], order: random.Random
) -> None:
    async def scenario() -> list[int]:
        budget, admitted, open_ = Budget(100), list[int](), list[int]()

        async def take(number: int) -> None:
            await budget.take(sizes[number], can_wait=True)
            admitted.append(number)
            open_.append(number)

        def nothing_is_lost() -> None:
            assert sum(sizes[each] for each in open_) == budget.granted <= 100

        tasks = []
        for number in range(len(sizes)):
            tasks.append(asyncio.create_task(take(number)))
            await settle()
            nothing_is_lost()
        while open_:
            done = open_.pop(order.randrange(len(open_)))
            budget.give_back(sizes[done])
            await settle()
            nothing_is_lost()
        await asyncio.gather(*tasks)
        assert budget.granted == 0
        return admitted

    assert asyncio.run(scenario()) == list(range(len(sizes)))


class Nothing(Effects):
    """No byte is moved: what the copiers take for themselves is all that counts."""

    def copy_read(self, *_: Any) -> None: ...

    def copy_write(self, *_: Any) -> None: ...

    def publish(self, *_: Any) -> None: ...


class NoMeter:
    def sample(self) -> MeterSample:
        return MeterSample(0, 0)


@settings(max_examples=60, deadline=None)
@given(
    blocks=st.integers(1, 12).flatmap(lambda count: st.sets(st.integers(0, count * 512 - 1), min_size=1, max_size=40)),
    block=st.sampled_from([4096, 2 * MIB]),
    page=st.sampled_from([4096, 2 * MIB]),
    spare=st.integers(0, 3),
)
def test_no_pause_takes_more_for_its_copiers_than_it_was_admitted_with(
    blocks: set[int], block: int, page: int, spare: int
) -> None:
    unit = max(block, page)
    size = ((max(blocks) + 1 + spare) * 4096 + unit - 1) // unit * unit
    dirty = Blocks({each * 4096 // block for each in blocks})
    facts = MemoryFacts(size, page, block, seals=0, consumed=True, parent_finished=True)
    plan = plans.plan(PauseOptions(), facts, dirty)
    memory = Memfd(-1, size, page, 0, 0)
    cache = Cache(Path("nowhere"), "b1", plan.chunks)
    copier = ChunkCopier(memory, plan, cache, cast("PeakMeter", NoMeter()), Nothing(), lambda _: None)
    copier.copy_first(lambda: None)
    assert 0 < copier.buffer_bytes <= most_copier_bytes(size, page, block)
