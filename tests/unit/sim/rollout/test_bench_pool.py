"""The pool's rows of the bench: what they make of a pool, without one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self

import pytest

from engine.errors import EngineError
from sim.rollout import bench_calls
from sim.rollout import bench_calls as pool
from sim.rollout.bench import rows
from sim.rollout.bench_ways import Bench, BenchCase
from sim.run.cases import Unit, UnitResult


class Pool:
    """Ends every unit at once; `given` are the batches it got."""

    verdict = "held"
    given: list[list[Unit]]

    def __init__(self, jobs: int, _memory: int) -> None:
        assert jobs == bench_calls.WORKERS
        Pool.given = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, units: Iterable[Unit]) -> Iterator[UnitResult]:
        Pool.given.append(list(units))
        return (UnitResult(each.name, self.verdict) for each in Pool.given[-1])


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LocalPool", Pool)
    monkeypatch.setattr(pool, "_LOOK", 0.0)


def test_runs_are_made_side_by_side_and_then_one_at_a_time() -> None:
    figures = bench_calls.runs(Bench(0), BenchCase()).figures
    assert set(figures) == {"first_ms", "alone_per_s", "together_per_s"}
    assert [len(batch) for batch in Pool.given] == [1, 4, 8, 1, 1, 1, 1]
    names = [unit.name for batch in Pool.given for unit in batch]
    assert len(set(names)) == len(names)
    assert {unit.keep for batch in Pool.given for unit in batch} == {"never"}


def test_a_run_that_does_not_hold_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pool, "verdict", "violated")
    with pytest.raises(EngineError, match="did not hold: violated"):
        bench_calls.runs(Bench(0), BenchCase())


def test_a_thousand_runs_a_minute_and_two_workers_for_one_are_the_goals() -> None:
    taken = {"first_ms": 450.0, "alone_per_s": 5.0, "together_per_s": 10.0}
    figures = {row.name: row.figures(taken)["value"] for row in rows() if row.needs[0].take is bench_calls.runs}
    assert figures == {"pool-start": 250.0, "sweep": 10.0, "two-workers": 2.0}
    met = {row.name: row.goal.is_met(figures[row.name]) for row in rows() if row.name in figures and row.goal}
    assert met == {"pool-start": True, "sweep": False, "two-workers": True}
