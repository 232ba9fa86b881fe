from __future__ import annotations

import pathlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from sim.files.scenario import Scenario, load_text
from sim.record import events
from sim.record.ledger import Entry
from sim.run.cases import UnitResult
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


def passed(sandbox: str, fault: str, chunk: int | None = None, nth: int = 1) -> Entry:
    return Entry(0.0, events.PointReached(fault, chunk, nth), sandbox, None)


def trace() -> tuple[Entry, ...]:
    """What a clean run of TEXT without its expect step passes: two chunks a pause."""
    names = ("web-1", "web-0")
    found = {step: list[Entry]() for step in range(9)}  # the epilogue begins with the fifth
    for name in names:
        found[0].append(passed(name, "guest.spawn"))
        found[1] += [passed(name, fault) for fault in ("freeze", "condemn", "teardown")]
        for chunk in (1, 0):
            found[1] += [passed(name, fault, chunk) for fault in ("copy.write", "copy.write", "punch")]
        found[2] += [passed(name, fault, None, 2) for fault in ("guest.spawn", "resume.read", "resume.read")]
        found[4].append(passed(name, "copy.write", 0, 2))
        found[8].append(passed(name, "copy.write", 0, 3))
    begun = {step: Entry(0.0, events.StepStarted(step, "some", 1, 1), None, None) for step in found}
    return tuple(entry for step, entries in found.items() for entry in (begun[step], *entries))


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


def unit_result(name: str, *entries: Entry, **more: Any) -> UnitResult:
    """A run that held, unless `more` says otherwise."""
    states = {"web-0": "running", "web-1": "running"}
    return UnitResult(name, **{"verdict": "held", "states": states, "seconds": 0.5, "entries": entries, **more})


def judged(subject: str, verdict: str = "violated", checked: int = 1, **reason: Any) -> Entry:
    """A judgement; with keywords, for one reason."""
    return Entry(0.0, events.Judged(subject, verdict, checked, [reason] if reason else []), None, None)


def fired(case: Case) -> Entry:
    """What the ledger of a run says of the fault of a case."""
    point = case.point
    event = events.FaultFired(1, point.fault, "as it is said", point.chunk, kind=case.kind)
    return Entry(0.0, event, point.sandbox, None if point.of_resume else point.occasion)


def settled(case: Case, outcome: str) -> Entry:
    event = events.PauseSettled(
        outcome=outcome,
        path="memfd",
        punch=True,
        punch_reason=None,
        dirty_bytes=0,
        punched_bytes=0,
        peak_over=None,
        peak_ratio=None,
        copy_ms=None,
        blocked_ms=0.0,
        condemned=False,
        error=None,
        failed_chunk=None,
        condemn_error=None,
        punch_error=None,
        build=case.point.occasion,
        content_hash=None,
    )
    return Entry(0.0, event, case.point.sandbox, case.point.occasion)


def broken() -> Entry:
    return judged("invariant:never_resumed", sandbox="web-0", reason="it ran again")


@pytest.fixture
def made() -> Any:
    """The functions above, for tests that cannot import a conftest."""
    found = {"unit_result": unit_result, "judged": judged, "broken": broken}
    return SimpleNamespace(**found, fired=fired, settled=settled, trace=trace)
