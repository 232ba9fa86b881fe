"""Armed faults: where, on whom and how often they fire, and what firing does to the act behind them."""

from __future__ import annotations

import errno
import inspect
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from engine.effects import Effects
from sim.faults import CRASH, ArmedFaults, Fault, FaultyEffects
from sim.places import AtChunk, FaultPoint, Place

MEMFD, CACHE, GUEST, RECORDS, PERMIT, DATA = (object() for _ in range(6))
ACTS = [name for name, _ in inspect.getmembers(Effects, inspect.isfunction) if not name.startswith("_")]


def fault(
    point: FaultPoint = "copy.write",
    at: Place = "first",
    sandboxes: str = "*",
    *,
    error: str = "EIO",
    count: int | None = None,
    fault_id: int = 1,
) -> Fault:
    return Fault(fault_id, point, error, at, sandboxes, count)


def armed(*faults: Fault) -> ArmedFaults:
    found = ArmedFaults()
    for each in faults:
        found.arm(each)
    return found


def chunk(index: int) -> Any:
    return SimpleNamespace(index=index)


def fires_at(found: ArmedFaults, chunks: int) -> list[int]:
    return [index for index in range(chunks) if found.take("copy.write", "web-0", index, chunks)]


# -- where, on whom, how often


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("first", [0]),
        ("last", [15]),
        ("after_condemn", [1]),
        (50.0, [8]),
        (100.0, [15]),
        (AtChunk(3), [3]),
        (AtChunk(16), []),
    ],
    ids=str,
)
def test_a_fault_fires_at_its_chunk_alone(at: Place, expected: list[int]) -> None:
    assert fires_at(armed(fault(at=at)), 16) == expected


def test_a_fault_fires_on_the_sandboxes_that_its_glob_matches() -> None:
    found = armed(fault(sandboxes="web-[0-2]"))
    names = [f"web-{number}" for number in range(5)] + ["WEB-0", "db-0"]
    assert [name for name in names if found.take("copy.write", name, 0, 4)] == ["web-0", "web-1", "web-2"]


def test_a_fault_fires_at_its_point_alone() -> None:
    found = armed(fault("publish"))
    assert [point for point in get_args(FaultPoint) if found.take(point, "web-0", 0, 4)] == ["publish"]


def test_a_point_without_a_chunk_takes_no_notice_of_the_place() -> None:
    assert armed(fault("condemn", at="last")).take("condemn", "web-0", None, 16)


def test_an_armed_fault_fires_every_time_until_it_is_cleared() -> None:
    found = armed(fault(), fault("punch", fault_id=2))
    assert all(found.take("copy.write", "web-0", 0, 4) for _ in range(9))
    found.clear()
    assert found.take("copy.write", "web-0", 0, 4) is None
    assert found.take("punch", "web-0", 0, 4) is None


def test_a_counted_fault_lets_the_next_one_have_its_turn() -> None:
    found = armed(fault(count=2, error="EINTR"), fault(fault_id=2, error="ENOSPC"))
    taken = [found.take("copy.write", "web-0", 0, 4) for _ in range(4)]
    assert [each and each.error for each in taken] == ["EINTR", "EINTR", "ENOSPC", "ENOSPC"]


def test_a_fault_armed_again_counts_anew() -> None:
    found = armed(fault(count=1))
    assert fires_at(found, 4) == [0]
    found.clear()
    found.arm(fault(count=1, fault_id=2))
    assert fires_at(found, 4) == [0]


def test_copiers_on_many_threads_fire_a_counted_fault_exactly_so_often() -> None:
    found = armed(fault(count=10))
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: found.take("copy.write", "web-0", 0, 4), range(400)))
    assert sum(each is not None for each in taken) == 10


# -- what firing does


class Recorded(Effects):
    """Does nothing but note which act was asked for, and with what."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattribute__(self, name: str) -> Any:
        if name not in ACTS:
            return super().__getattribute__(name)
        return lambda *arguments: self.calls.append((name, arguments))


def effects(*faults: Fault, chunks: int = 4) -> tuple[FaultyEffects, Recorded, list[tuple[int, int | None]]]:
    inner, told = Recorded(), list[tuple[int, int | None]]()
    made = FaultyEffects(inner, armed(*faults), "web-0", lambda each, index: told.append((each.fault_id, index)))
    made.planned(chunks)
    return made, inner, told


def arguments_of(act: str, index: int = 0) -> tuple[Any, ...]:
    names = list(inspect.signature(getattr(Effects, act)).parameters)[1:]
    return tuple(chunk(index) if name == "chunk" else object() for name in names)


def test_every_act_is_passed_on_as_it_is_where_nothing_is_armed() -> None:
    made, inner, told = effects()
    for act in ACTS:
        arguments = arguments_of(act)
        getattr(made, act)(*arguments)
        assert inner.calls[-1] == (act, arguments)
    assert len(inner.calls) == len(ACTS)
    assert told == []


def test_every_act_of_the_engine_is_wrapped() -> None:
    assert set(ACTS) <= set(vars(FaultyEffects))


POINTS = [
    ("copy.read", "copy_read"),
    ("copy.write", "copy_write"),
    ("publish", "publish"),
    ("punch", "punch"),
]


@pytest.mark.parametrize(("point", "act"), [*POINTS, ("condemn", "condemn")])
def test_a_fault_fails_its_act_with_its_errno_and_the_act_is_not_done(point: FaultPoint, act: str) -> None:
    made, inner, told = effects(fault(point, error="ENOSPC"))
    with pytest.raises(OSError, match=r"No space left on device \(injected\)") as failed:
        getattr(made, act)(*arguments_of(act))
    assert failed.value.errno == errno.ENOSPC
    assert inner.calls == []
    assert told == [(1, None if point == "condemn" else 0)]


@pytest.mark.parametrize(("point", "act"), POINTS)
def test_other_chunks_and_other_acts_are_not_touched(point: FaultPoint, act: str) -> None:
    made, inner, told = effects(fault(point, at=AtChunk(2)))
    getattr(made, act)(*arguments_of(act, 1))
    for other in set(ACTS) - {act}:
        getattr(made, other)(*arguments_of(other, 2))
    assert len(inner.calls) == len(ACTS)
    assert told == []


def test_freeing_clean_pages_belongs_to_no_chunk_and_is_never_hit() -> None:
    made, inner, _ = effects(fault("punch"))
    made.punch(MEMFD, 0, 4096, PERMIT, None)  # type: ignore[arg-type]
    assert [name for name, _ in inner.calls] == ["punch"]


def test_the_last_chunk_is_that_of_the_pauses_own_plan() -> None:
    made, inner, _ = effects(fault("publish", at="last"), chunks=3)
    made.publish(CACHE, chunk(1))  # type: ignore[arg-type]
    with pytest.raises(OSError, match="injected"):
        made.publish(CACHE, chunk(2))  # type: ignore[arg-type]
    assert len(inner.calls) == 1


CRASHES = f"""
from types import SimpleNamespace
from engine.effects import Effects
from sim.faults import ArmedFaults, Fault, FaultyEffects

class Inner(Effects):
    def publish(self, cache, chunk): print("published", chunk.index, flush=True)

armed = ArmedFaults()
armed.arm(Fault(1, "publish", {CRASH!r}, 50.0, "web-*", 1))
effects = FaultyEffects(Inner(), armed, "web-0", lambda fault, chunk: print("told", chunk, flush=True))
effects.planned(4)
for index in range(4):
    effects.publish(None, SimpleNamespace(index=index))
"""


def test_a_crash_is_told_first_and_then_kills_the_process_before_the_act() -> None:
    run = subprocess.run([sys.executable, "-c", CRASHES], capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert run.stdout.splitlines() == ["published 0", "published 1", "told 2"]
