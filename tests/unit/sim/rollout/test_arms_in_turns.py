from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from sim.files.steps import PauseStep, Resume, Step, Tick
from sim.rollout.compiled import Arm, Turns, beginners, side_by_side

STEPS: tuple[Step, ...] = (Tick(ticks=1), PauseStep(), Resume(), Tick(ticks=1), PauseStep(), Resume())


async def arm(turns: Turns, name: Arm, first: Sequence[Arm], told: list[str], stop: int | None = None) -> None:
    """What a run and its gate do, step by step."""
    try:
        if name == "on":
            await turns.both_took("on", 0)
        for index in range(len(first)):
            told.append(f"{name} {index}")
            await asyncio.sleep(0)
            told.append(f"{name} {index}")
            await turns.took(name, index)
            if name == "on":
                await turns.both_took("on", index)
            if index == stop:
                return
            await turns.next(name, index)
            if turns.has_ended("on"):
                return
    finally:
        await turns.end(name)


def test_of_each_two_rounds_both_orders_come_and_the_seed_draws_which_is_first() -> None:
    orders = {(first[0], first[1], *first[2:5]) for seed in range(20) if (first := beginners(STEPS, seed))}
    assert orders == {("off", "off", "on", "on", "on"), ("off", "on", "off", "off", "off")}
    assert beginners(STEPS, 3) == beginners(STEPS, 3)
    pauses = [index for index, step in enumerate(STEPS * 10) if isinstance(step, PauseStep)]
    first = beginners(STEPS * 10, 3)
    assert [first[index] for index in pauses].count("on") == 10
    assert len({first[index] for index in pauses[::2]}) == 2  # no plain alternation


@pytest.mark.parametrize("seed", range(4))
async def test_no_step_of_one_arm_overlaps_one_of_the_other_and_each_waits_for_its_turn(seed: int) -> None:
    told: list[str] = []
    first = beginners(STEPS, seed)
    turns = Turns(first)
    async with asyncio.timeout(20):
        await side_by_side(arm(turns, "off", first, told), arm(turns, "on", first, told))
    assert told[::2] == told[1::2]  # begun and ended, with nothing between
    other: dict[Arm, Arm] = {"on": "off", "off": "on"}
    assert told[::2] == [f"{name} {index}" for index, begins in enumerate(first) for name in (begins, other[begins])]


@pytest.mark.parametrize("seed", range(4))
async def test_where_one_arm_stops_the_other_is_not_left_waiting(seed: int) -> None:
    told: list[str] = []
    first = beginners(STEPS, seed)
    turns = Turns(first)
    async with asyncio.timeout(20):
        await side_by_side(arm(turns, "off", first, told), arm(turns, "on", first, told, stop=3))
    assert "on 3" in told
    assert "off 5" not in told


async def test_where_one_fails_the_other_has_been_torn_down_before_it_is_told() -> None:
    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("torn down")

    async def fails() -> None:
        await asyncio.sleep(0)
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        await side_by_side(waits(), fails())
    assert ended == ["torn down"]
