"""When the node's memory is told to the ledger: as it changes, no more often than needed, a peak at once."""

from __future__ import annotations

import pytest

from sim.node.memory import NodeMemory
from sim.record.events import MemorySampled

MIB = 1 << 20


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("sim.node.memory.time.monotonic", made)
    return made


@pytest.fixture
def told() -> list[MemorySampled]:
    return []


@pytest.fixture
def memory(clock: Clock, told: list[MemorySampled]) -> NodeMemory:
    """Two guests of 8 MiB, told already."""
    made = NodeMemory(told.append, lambda: 99)
    made.set(guest=("web-0", 8 * MIB))
    made.set(guest=("web-1", 8 * MIB))
    told.clear()
    return made


def test_guests_and_caches_are_summed_and_what_is_planned_is_asked_for(
    memory: NodeMemory, told: list[MemorySampled]
) -> None:
    memory.set(guest=("web-0", 7 * MIB), cache=("web-0.p1", 3 * MIB))
    assert told == [MemorySampled(15 * MIB, 3 * MIB, 99)]


def test_a_new_peak_is_told_at_once(memory: NodeMemory, told: list[MemorySampled]) -> None:
    for cached in (1, 2, 3):
        memory.set(cache=("web-0.p1", cached * MIB))
    assert [each.caches for each in told] == [1 * MIB, 2 * MIB, 3 * MIB]


def test_what_is_no_new_peak_waits_for_the_interval(
    memory: NodeMemory, told: list[MemorySampled], clock: Clock
) -> None:
    for resident in (7, 6, 5):
        memory.set(guest=("web-0", resident * MIB))
    assert told == []
    clock.now += 1
    memory.set(guest=("web-0", 4 * MIB))
    assert told == [MemorySampled(12 * MIB, 0, 99)]


def test_a_peak_counts_from_the_highest_that_was_told(
    memory: NodeMemory, told: list[MemorySampled], clock: Clock
) -> None:
    clock.now += 1
    memory.set(guest=("web-0", 1 * MIB))
    memory.set(guest=("web-0", 8 * MIB))  # as high as it was before
    assert [each.guests for each in told] == [9 * MIB]
    memory.set(guest=("web-0", 9 * MIB))
    assert [each.guests for each in told] == [9 * MIB, 17 * MIB]


def test_at_a_barrier_the_last_value_is_told_unless_it_was(memory: NodeMemory, told: list[MemorySampled]) -> None:
    memory.set(guest=("web-0", 7 * MIB))
    memory.tell_now()
    memory.tell_now()
    assert told == [MemorySampled(15 * MIB, 0, 99)]


def test_a_guest_or_cache_that_is_gone_counts_nothing(memory: NodeMemory, told: list[MemorySampled]) -> None:
    memory.set(cache=("web-0.p1", 3 * MIB))
    memory.set(guest=("web-0", 0))
    memory.set(cache=("web-0.p1", 0))
    memory.tell_now()
    assert told[-1] == MemorySampled(8 * MIB, 0, 99)


def test_a_new_peak_that_counts_finished_builds_is_told_at_once_too(
    memory: NodeMemory, told: list[MemorySampled]
) -> None:
    memory.set(cache=("web-0.p1", 8 * MIB))
    memory.finished("web-0.p1")
    memory.set(guest=("web-0", 0))
    told.clear()
    memory.set(cache=("web-1.p1", 8 * MIB))
    memory.set(cache=("web-1.p1", 12 * MIB))
    assert [each.page_cache + each.guests + each.caches for each in told] == [28 * MIB]
