"""How often every process is looked at: a fleet of a thousand guests must not spend its machine on that."""

from __future__ import annotations

import threading

import pytest

from engine import holders
from engine.holders import Holders


class Clock:
    """In place of the module's `time`; each look takes `cost` seconds of a thread's CPU time."""

    def __init__(self, cost: float) -> None:
        self.now, self.cost, self.used = 100.0, cost, 0.0
        self.looks = 0
        self.may_end = threading.Event()
        self.may_end.set()

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.used

    def look(self) -> dict[int, set[int]]:
        assert self.may_end.wait(10)
        self.looks += 1
        self.used += self.cost
        self.now += self.cost
        return {7: {self.looks}}


def looked(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Holders:
    monkeypatch.setattr(holders, "time", clock)
    monkeypatch.setattr(holders, "_look", clock.look)
    monkeypatch.setattr(holders, "_PATIENCE", 10.0)
    return Holders()


@pytest.mark.parametrize(("cost", "pause"), [(0.01, 0.99), (0.1, 2.0), (0.5, 10.0), (30.0, 10.0)])
def test_a_look_serves_a_second_and_for_twenty_times_what_it_cost_and_never_more_than_ten_seconds(
    cost: float, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(cost)
    found = looked(clock, monkeypatch)
    assert found.of(7, set()) == {1}
    clock.now += pause - 0.001
    assert found.of(7, set()) == {1}
    clock.now += 0.002
    assert found.of(7, set()) == {2}
    assert found.of(7, {2}) == set()


def test_no_look_begins_while_one_goes_on_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(0.0)
    found = looked(clock, monkeypatch)
    clock.may_end.clear()
    before = threading.active_count()
    for _ in range(5):
        found.look()
        clock.now += 3
    assert threading.active_count() == before + 1
    clock.may_end.set()
    assert found.of(7, set()) == {1}
