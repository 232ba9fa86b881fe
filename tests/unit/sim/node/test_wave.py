"""A wave holds up nobody for good: whoever lacks is awaited for a while, and whoever leaves not at all."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from sim.node import wave as waves
from sim.node.wave import Wave


async def is_held_up(act: asyncio.Task[None]) -> bool:
    for _ in range(5):
        await asyncio.sleep(0)
    return not act.done()


async def test_the_first_waits_until_the_last_is_frozen() -> None:
    wave = Wave(["a", "b", "c"])
    first = asyncio.create_task(wave.all_frozen("a"))
    second = asyncio.create_task(wave.all_frozen("b"))
    assert await is_held_up(first)
    await wave.all_frozen("c")
    await asyncio.gather(first, second)


async def test_one_that_fails_to_freeze_holds_up_no_other() -> None:
    wave = Wave(["a", "b"])
    first = asyncio.create_task(wave.all_frozen("a"))
    assert await is_held_up(first)
    with pytest.raises(OSError, match="no"), wave.part("b"):
        raise OSError("no")
    await first
    await asyncio.to_thread(wave.all_copied, "a")


async def test_one_that_does_not_come_is_awaited_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waves, "PATIENCE", 0.02)
    wave = Wave(["a", "b"])
    await wave.all_frozen("a")
    await asyncio.to_thread(wave.all_copied, "a")
    await wave.all_frozen("b")


def test_a_copy_that_goes_on_is_awaited_and_one_that_stands_still_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waves, "PATIENCE", 0.05)
    wave = Wave(["a", "b"])
    ended = threading.Thread(target=wave.all_copied, args=("a",))
    ended.start()
    for _ in range(20):
        wave.copied_a_chunk()
        time.sleep(0.01)
    assert ended.is_alive()
    ended.join(10)
    assert not ended.is_alive()


async def test_without_a_wave_nothing_is_awaited() -> None:
    await Wave().all_frozen("a")
    Wave().all_copied("a")
