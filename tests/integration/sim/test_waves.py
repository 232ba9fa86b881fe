"""A wave of pauses on real guests: all frozen before one is copied, all copied before one ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.events import ChunkPublished
from sim.files.faults import AtChunk, failing
from sim.node import wave as waves
from sim.record import events

MIB = 1 << 20


def places(drill: Any, kind: type[Any]) -> list[int]:
    return [at for at, each in enumerate(drill.entries) if isinstance(each.event, kind)]


def states(drill: Any) -> list[str]:
    return [each.state for each in drill.view().sandboxes.values()]


def violations(view: Any) -> list[Any]:
    return [(each.subject, each.violations) for each in view.judged if each.verdict != "held"]


async def test_the_peak_of_a_wave_is_twice_its_memory_or_about_once(runs: Any) -> None:
    names = ["web-0", "web-1"]
    peaks = {}
    async with runs.drill(memory="64MiB", background=True, punch=False) as drill:
        for punch in (False, True):
            await drill.set_flag("memfd-punch-on-snapshot", punch)
            await drill.tick()
            held, sampled, begun = drill.view().memory.now, len(drill.view().samples), len(drill.entries)
            await drill.pause(names, concurrency=2, wave=True)
            peaks[punch] = max(each.source + each.cache for each in drill.view().samples[sampled:]) / held
            frozen, copied, settled = (
                [at for at in places(drill, kind) if at >= begun]
                for kind in (events.GuestFrozen, ChunkPublished, events.PauseSettled)
            )
            assert len(frozen) == len(settled) == 2
            assert max(frozen) < min(copied)
            assert max(copied) < min(settled)
            await drill.resume(names)
        pauses = drill.view().pauses
        view = await drill.finish()
    assert {pause.dirty_bytes for pause in pauses} == {64 * MIB}
    assert peaks[False] == pytest.approx(2.0, abs=0.05)
    assert peaks[True] <= 1.1
    assert violations(view) == []


async def test_who_is_not_frozen_or_fails_holds_up_no_other(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waves, "PATIENCE", 300.0)
    names = ["web-0", "web-1", "web-2"]
    async with runs.drill(count=3, background=True) as drill:
        await drill.tick()
        await drill.inject("freeze", failing("EPERM"), AtChunk(0), "web-0")
        await drill.inject("copy.write", failing("EIO"), AtChunk(2), "web-1")
        async with asyncio.timeout(60):
            await drill.pause(names, concurrency=3, wave=True)
        assert states(drill) == ["running", "discarded", "paused"]
        view = await drill.finish()
    assert violations(view) == []


async def test_a_copy_that_is_stopped_holds_up_its_wave_for_a_while_only(
    runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waves, "PATIENCE", 0.3)
    names = ["web-0", "web-1", "web-2"]
    async with runs.drill(count=3, background=True) as drill:
        await drill.tick()
        await drill.pace("web-1", held=True)
        pausing = asyncio.ensure_future(drill.pause(names, concurrency=3, wave=True))
        async with asyncio.timeout(60):
            while states(drill) != ["paused", "pausing", "paused"]:  # noqa: ASYNC110 - a ledger is polled
                await asyncio.sleep(0.02)
        await drill.pace("web-1", held=False)
        await pausing
        assert states(drill) == ["paused"] * 3
        view = await drill.finish()
    assert violations(view) == []


async def test_who_has_to_wait_for_memory_is_in_no_wave(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waves, "PATIENCE", 300.0)
    names = [f"web-{number}" for number in range(4)]
    async with runs.drill(count=4, memory="160MiB", punch=False) as drill:  # the budget has room for two copies
        async with asyncio.timeout(60):
            await drill.pause(names, concurrency=4, wave=True)
        assert states(drill) == ["paused"] * 4
        view = await drill.finish()
    assert violations(view) == []
