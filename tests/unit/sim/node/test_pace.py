"""Copies that are slowed, held and stepped: threads at a gate, let through one by one."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator

import pytest

from engine import mapping as maps
from engine.effects import Boundary
from engine.events import Event
from sim.node.pace import PacedEffects, Paces
from sim.node.wave import Wave
from sim.record.events import BoundaryReached
from sim.record.stages import OWN_PACE, Pace

DEADLINE = 20.0
HELD = Pace(held=True)


class Copiers:
    """Threads that pass one boundary each, and who has passed, in order."""

    def __init__(self, paces: Paces) -> None:
        self.paces = paces
        self.passed: list[int] = []
        self._threads: list[threading.Thread] = []

    def arrive(self, chunk: int, sandbox: str = "web-0") -> None:
        """Returns when the copier waits at the gate."""

        def copy() -> None:
            self.paces.wait(sandbox, chunk, took=0.0)
            self.passed.append(chunk)

        thread = threading.Thread(target=copy, daemon=True)
        self._threads.append(thread)
        thread.start()
        until(lambda: chunk in self.paces.waiting(sandbox) or chunk in self.passed)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive(), f"a copier still waits; passed: {self.passed}"


def until(condition: object) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def paces() -> Paces:
    return Paces(["web-0", "web-1"])


@pytest.fixture
def copiers(paces: Paces) -> Iterator[Copiers]:
    made = Copiers(paces)
    yield made
    paces.open_for_ever()
    made.join()


def test_a_copy_at_its_own_pace_is_not_even_told_of(paces: Paces) -> None:
    assert not paces.is_set("web-0")
    paces.wait("web-0", 0, took=1000.0)


def test_a_held_copy_waits_until_it_is_let_go(paces: Paces, copiers: Copiers) -> None:
    paces.set(["web-0"], HELD)
    copiers.arrive(1)
    copiers.arrive(2)
    assert copiers.passed == []
    paces.set(["web-0"], OWN_PACE)
    copiers.join()
    assert sorted(copiers.passed) == [1, 2]


def test_a_step_lets_the_lowest_chunk_pass_and_only_that(paces: Paces, copiers: Copiers) -> None:
    paces.set(["web-0"], HELD)
    copiers.arrive(4)
    copiers.arrive(3)
    paces.set(["web-0"], HELD, steps=1)
    until(lambda: copiers.passed)
    assert copiers.passed == [3]
    assert paces.waiting("web-0") == [4]
    paces.set(["web-0"], HELD, steps=1)
    copiers.join()
    assert copiers.passed == [3, 4]


def test_holding_one_sandbox_holds_no_other(paces: Paces, copiers: Copiers) -> None:
    paces.set(["web-0"], HELD)
    copiers.arrive(7, "web-1")
    copiers.join()
    assert copiers.passed == [7]


def test_the_end_of_the_node_lets_everybody_go_for_ever(paces: Paces, copiers: Copiers) -> None:
    paces.set(["web-0"], HELD)
    copiers.arrive(1)
    paces.open_for_ever()
    copiers.join()
    paces.set(["web-0"], HELD)
    assert not paces.is_set("web-0")
    paces.wait("web-0", 2, took=0.0)


def test_a_slowed_copy_takes_so_many_times_what_it_took(paces: Paces) -> None:
    paces.set(["web-0"], Pace(factor=5.0))
    began = time.monotonic()
    paces.wait("web-0", 0, took=0.01)
    assert time.monotonic() - began >= 0.04


def test_a_slowed_copy_that_is_let_go_meanwhile_waits_no_more(paces: Paces, copiers: Copiers) -> None:
    paces.set(["web-0"], Pace(factor=1e6))
    thread = threading.Thread(target=lambda: paces.wait("web-0", 0, took=1.0), daemon=True)
    began = time.monotonic()
    thread.start()
    until(lambda: paces.waiting("web-0"))
    paces.set(["web-0"], OWN_PACE)
    thread.join(DEADLINE)
    assert time.monotonic() - began < 4.0


@pytest.mark.parametrize("before", ["condemn", "finish"])
def test_a_full_ledger_at_a_boundary_decides_nothing_of_the_copy(paces: Paces, before: Boundary) -> None:
    told: list[Event] = []

    def tell(event: Event) -> None:
        told.append(event)
        raise OSError(errno.ENOSPC, "the ledger is full")

    effects = PacedEffects(paces, "web-0", "web-0.p1", maps.zero(4096, 4096), tell, Wave())
    paces.set(["web-0"], Pace(factor=1.5))
    effects.boundary(before)
    assert told == [BoundaryReached(before)]
    assert paces.paced == {"web-0.p1"}
