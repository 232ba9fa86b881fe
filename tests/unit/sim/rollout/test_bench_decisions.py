from __future__ import annotations

import pytest

from flags.catalog import CATALOG
from flags.memory import MemoryFlags
from sim.rollout import bench_calls
from sim.rollout import bench_calls as latencies
from sim.rollout.bench_ways import Bench, BenchCase, BenchTaken

BENCH = Bench(1 << 20)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many flags there were, measurement by measurement."""
    found: list[int] = []

    class Counted(MemoryFlags):
        def close(self) -> None:
            found.append(len(self.sections()[0]))
            super().close()

    monkeypatch.setattr(latencies, "MemoryFlags", Counted)
    monkeypatch.setattr(latencies, "_DECISIONS", 3)
    return found


def figures(taken: BenchTaken) -> tuple[float, float]:
    return taken.figures["p50_us"], taken.figures["p99_us"]


def test_decisions_are_measured_over_the_catalogue_and_among_the_flags_of_an_environment(served: list[int]) -> None:
    for measure in (bench_calls.decision, bench_calls.decision_among_others):
        p50, p99 = figures(measure(BENCH, BenchCase()))
        assert 0 < p50 <= p99
    assert served == [len(CATALOG), bench_calls.ENVIRONMENT]
