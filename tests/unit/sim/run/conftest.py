from __future__ import annotations

import pathlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from sim.files.scenario import Scenario, load_text
from sim.run import cases as units
from sim.run.sweep import Case, Point, cases_of, points_of

TEXT = """\
name: two
seed: 9
node: {memory: 256MiB, cache: tmpfs}
fleet:
  - {name: web, count: 2, memory: 8MiB}
flags: {memfd-punch-on-snapshot: true}
steps:
  - tick: 2
  - pause: {sandboxes: "web-*"}
  - expect: {state: paused}
  - resume: {}
  - clear: {}
  - checkpoint: {}
expect:
  - {invariant: bytes_exact}
"""


def trace() -> list[units.Point]:
    """What a clean run of TEXT without its expect step passes: two chunks a pause."""
    found = [units.Point(name, None, 0, "guest.spawn", None, 1) for name in ("web-0", "web-1")]
    for name in ("web-1", "web-0"):
        found += [units.Point(name, f"{name}.p1", 1, f, None, 1) for f in ("freeze", "condemn", "teardown")]
        for chunk in (1, 0):
            found += [units.Point(name, f"{name}.p1", 1, f, chunk, 1) for f in ("copy.write", "copy.write", "punch")]
        found += [units.Point(name, None, 2, f, None, 2) for f in ("guest.spawn", "resume.read", "resume.read")]
        found.append(units.Point(name, f"{name}.p2", 4, "copy.write", 0, 2))
        found.append(units.Point(name, f"{name}.p3", 8, "copy.write", 0, 3))  # of the epilogue
    return found


@pytest.fixture
def scenario() -> Scenario:
    return load_text(TEXT, pathlib.Path("two.yaml"))


@pytest.fixture
def points() -> tuple[Point, ...]:
    return points_of(trace(), 5)


@pytest.fixture
def cases(points: tuple[Point, ...]) -> list[Case]:
    return cases_of(points)


@pytest.fixture
def case(cases: list[Case]) -> Callable[[str], Case]:
    """A case by its name."""
    return {each.name: each for each in cases}.__getitem__


def unit_result(name: str, **more: Any) -> units.UnitResult:
    """A run that held, unless `more` says otherwise."""
    states = {"web-0": "running", "web-1": "running"}
    return units.UnitResult(name, **{"verdict": "held", "states": states, "seconds": 0.5, **more})


def fired(case: Case) -> units.Firing:
    """What the ledger of a run tells of the fault of a case."""
    point = case.point
    pause = None if point.of_resume else point.occasion
    return units.Firing(point.sandbox, pause, point.fault, "as it is said", point.chunk, case.kind)


def settled(case: Case, outcome: str) -> units.SettledPause:
    return units.SettledPause(case.point.sandbox, case.point.occasion, outcome, False, 0, None)


def broken(subject: str = "invariant:never_resumed", reason: str = "it ran again") -> units.Judgement:
    return units.Judgement(subject, "violated", 1, ({"sandbox": "web-0", "reason": reason},))


@pytest.fixture
def made() -> Any:
    """The functions above, for tests that cannot import a conftest."""
    return SimpleNamespace(unit_result=unit_result, fired=fired, settled=settled, broken=broken, trace=trace)
