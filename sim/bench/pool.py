"""What the local pool takes: its start, and whole runs of the shipped fleet that is made to be swept."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from engine.errors import EngineError
from sim.bench.candidates import Bench, Case, Taken
from sim.bench.watch import Watch
from sim.cluster import LocalPool, Unit, UnitResult, default_memory
from sim.scenario import load
from sim.shipped_files import scenario_folder
from sim.sweep.documents import Swept

WORKERS = 2
_ALONE = 4
"""Runs that are made one at a time; side by side it is twice as many."""
_LOOK = 0.2  # seconds in which nothing of ours runs: whoever disturbs then disturbs the runs too


def runs(_bench: Bench, _case: Case) -> Taken:
    """`first_ms` from the pool's start until a first run has ended; runs a second of one worker at a time, and of two.

    A run is that of a case, with no fault.
    """
    with Watch() as watch:
        time.sleep(_LOOK)
    with tempfile.TemporaryDirectory(prefix="snapdrill-bench-") as folder:
        units = _units(Path(folder))
        begun = time.perf_counter()
        with LocalPool(WORKERS, default_memory()) as pool:
            _held(pool.run([next(units)]))
            first = time.perf_counter() - begun
            _held(pool.run(itertools.islice(units, 2 * WORKERS)))  # now both have begun
            together = _per_second(pool, [list(itertools.islice(units, 2 * _ALONE))])
            alone = _per_second(pool, [[each] for each in itertools.islice(units, _ALONE)])
    return Taken({"first_ms": first * 1e3, "alone_per_s": alone, "together_per_s": together}, watch.noisy)


def _units(runs_dir: Path) -> Iterator[Unit]:
    scenario = load(scenario_folder("sweep") / "small.yaml")
    unit = Unit.of("run", scenario, runs_dir)
    text = Swept(scenario, scenario.seed).clean()
    return (replace(unit, name=f"run-{number}", text=text, keep="never") for number in itertools.count())


def _per_second(pool: LocalPool, batches: list[list[Unit]]) -> float:
    """One batch after the other."""
    begun = time.perf_counter()
    for batch in batches:
        _held(pool.run(batch))
    return sum(map(len, batches)) / (time.perf_counter() - begun)


def _held(results: Iterable[UnitResult]) -> None:
    for result in results:
        if result.verdict != "held":
            raise EngineError(f"a run of the pool did not hold: {result.error or result.verdict}")
