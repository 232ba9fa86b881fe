"""A thread that nobody had before and nobody gets after; where there is none, nothing is done by another."""

from __future__ import annotations

import threading

import pytest

from engine.errors import EngineError
from sim.node.own_thread import in_own_thread


async def test_what_the_work_returns_is_given_and_its_thread_is_its_own() -> None:
    names = [await in_own_thread(lambda: threading.current_thread().name, f"pause-{n}") for n in range(2)]
    assert names == ["pause-0", "pause-1"]


async def test_what_the_work_raises_is_raised_to_whoever_awaits_it() -> None:
    with pytest.raises(ZeroDivisionError):
        await in_own_thread(lambda: 1 // 0, "pause-0")


async def test_where_no_thread_can_be_started_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    done: list[str] = []
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(EngineError, match="no thread could be started for pause-0: can't start new thread"):
        in_own_thread(lambda: done.append("by whom?"), "pause-0")
    assert done == []
