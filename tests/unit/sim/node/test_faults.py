"""Armed faults: where, on whom and how often they fire, and what firing does to the act behind them."""

from __future__ import annotations

import errno
import inspect
import os
import pathlib
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from engine.effects import Effects
from engine.snapshot import HEADER
from sim.files.faults import CATALOGUE, AtChunk, FaultPoint, Place, points_with
from sim.node.armed_faults import ArmedFaults, Fault, FaultyEffects, Passage
from sim.record import events
from tests.story import harm

MEMFD, CACHE, GUEST, RECORDS, PERMIT, DATA = (object() for _ in range(6))
ACTS = [name for name, _ in inspect.getmembers(Effects, inspect.isfunction) if not name.startswith("_")]


def fault(
    point: FaultPoint = "copy.write",
    at: Place = "first",
    sandboxes: str = "*",
    *,
    error: str = "EIO",
    count: int | None = None,
    nth: int | None = None,
    fault_id: int = 1,
) -> Fault:
    return Fault(fault_id, point, harm(error), at, sandboxes, count, nth)


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


def test_a_fault_of_the_second_pause_spares_the_first_and_the_third() -> None:
    found = armed(fault(nth=2))
    assert [nth for nth in (1, 2, 3) if found.take("copy.write", "web-0", 0, 4, nth)] == [2]


@pytest.mark.parametrize(
    ("point", "error", "said"),
    [
        ("publish", "short", "publish has no short"),
        ("guest.spawn", "cancel", "guest.spawn has no cancel"),
        ("copy.read", "corrupt", "copy.read has no corrupt"),
        ("copy.read", "ENOTHING", "unknown errno ENOTHING"),
    ],
)
def test_what_a_point_does_not_have_cannot_be_armed(point: FaultPoint, error: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fault(point, error=error)


@pytest.mark.parametrize(("point", "error"), [("publish", "EIO"), ("copy.read", "short"), ("punch", "delay 1 ms")])
def test_what_the_kernel_cannot_give_cannot_be_armed(point: FaultPoint, error: str) -> None:
    with pytest.raises(ValueError, match="the kernel cannot give"):
        Fault(1, point, harm(error), "first", "*", by_kernel=True)


def fired(rate: float, seed: int) -> set[tuple[str, int]]:
    """(sandbox, pause) of 500 sandboxes with four pauses each."""
    found = armed(replace(fault(), rate=rate, seed=seed))
    names = [f"web-{n}" for n in range(500)]
    return {(name, nth) for name in names for nth in range(4) if found.take("copy.write", name, 0, 4, nth)}


def test_a_rate_fires_in_that_share_of_pauses_which_the_seed_draws() -> None:
    assert 20 <= len(fired(0.02, 7)) <= 60  # of 2,000 pauses: 40 within three standard deviations
    assert fired(0.02, 7) == fired(0.02, 7) != fired(0.02, 8)
    assert fired(0.02, 7) < fired(0.2, 7)
    assert len(fired(1.0, 7)) == 2000


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
    assert [each and each.harm.error for each in taken] == ["EINTR", "EINTR", "ENOSPC", "ENOSPC"]


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


class Told:
    """What a passage was told and asked: ledger events, cancels and kills, in order."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.asked: list[str] = []

    @property
    def fired(self) -> list[tuple[int, int | None]]:
        return [(each.fault_id, each.chunk) for each in self.events if isinstance(each, events.FaultFired)]

    def passage(self, *, trace: bool = False) -> Passage:
        ask = self.asked.append
        return Passage("web-0", 1, self.events.append, trace, lambda: ask("cancel"), lambda: ask("kill"))


def effects(*faults: Fault, chunks: int = 4, trace: bool = False) -> tuple[FaultyEffects, Recorded, Told]:
    inner, told = Recorded(), Told()
    made = FaultyEffects(inner, armed(*faults), told.passage(trace=trace))
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
    assert told.events == []


def test_every_act_of_the_engine_is_wrapped() -> None:
    assert set(ACTS) <= set(vars(FaultyEffects))


POINTS: list[tuple[FaultPoint, str]] = [
    ("copy.read", "copy_read"),
    ("copy.write", "copy_write"),
    ("publish", "publish"),
    ("punch", "punch"),
]


ONCE: list[tuple[FaultPoint, str]] = [
    ("scan", "scan"),
    ("cache.create", "create_cache"),
    ("reserve", "reserve"),
    ("condemn", "condemn"),
    ("header.write", "write_header"),
    ("finish", "finish"),
    ("teardown", "kill"),
    ("death", "await_death"),
    ("close", "close"),
    ("resume.read", "resume_read"),
]


def test_every_point_stands_before_an_act_of_the_engine_or_of_the_node() -> None:
    assert {point for point, _ in [*POINTS, *ONCE]} | {"freeze", "guest.spawn"} == set(CATALOGUE)


@pytest.mark.parametrize(("point", "act"), [*POINTS, *ONCE])
def test_a_fault_fails_its_act_with_its_errno_and_the_act_is_not_done(point: FaultPoint, act: str) -> None:
    made, inner, told = effects(fault(point, error="ENOSPC"))
    with pytest.raises(OSError, match=r"No space left on device \(injected\)") as failed:
        getattr(made, act)(*arguments_of(act))
    assert failed.value.errno == errno.ENOSPC
    assert inner.calls == []
    assert told.fired == [(1, 0 if CATALOGUE[point].chunked else None)]


@pytest.mark.parametrize(("point", "act"), [*POINTS, *ONCE])
def test_a_hanging_act_fails_at_its_deadline_and_is_not_done(point: FaultPoint, act: str) -> None:
    made, inner, _ = effects(fault(point, error="hang 20 ms"))
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match="Connection timed out"):
        getattr(made, act)(*arguments_of(act))
    assert time.monotonic() - begun >= 0.02
    assert inner.calls == []


@pytest.mark.parametrize(("point", "act"), [*POINTS, *ONCE])
def test_a_delayed_act_is_done_after_its_time(point: FaultPoint, act: str) -> None:
    made, inner, told = effects(fault(point, error="delay 20 ms"))
    begun = time.monotonic()
    getattr(made, act)(*arguments_of(act))
    assert time.monotonic() - begun >= 0.02
    assert [name for name, _ in inner.calls] == [act]
    assert len(told.fired) == 1


@pytest.mark.parametrize(("point", "act"), [*POINTS, *ONCE])
@pytest.mark.parametrize(("error", "asked"), [("cancel", "cancel"), ("kill-guest", "kill")])
def test_a_cancel_or_a_kill_comes_first_and_the_act_is_done(
    point: FaultPoint, act: str, error: Any, asked: str
) -> None:
    if point not in points_with(error):
        with pytest.raises(ValueError, match="has no"):
            fault(point, error=error)
        return
    made, inner, told = effects(fault(point, error=error))
    getattr(made, act)(*arguments_of(act))
    assert told.asked == [asked]
    assert [name for name, _ in inner.calls] == [act]
    assert made.cancelled == (error == "cancel")


def test_the_node_s_own_acts_are_points_too() -> None:
    made, _, told = effects(fault("freeze", fault_id=1), fault("guest.spawn", fault_id=2))
    with pytest.raises(OSError, match="injected"):
        made.freeze(GUEST)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="injected"):
        made.spawn(lambda: pytest.fail("it was forked"))
    assert told.fired == [(1, None), (2, None)]
    assert effects()[0].spawn(lambda: "a guest") == "a guest"


def test_a_traced_run_tells_every_point_that_is_passed_and_an_untraced_one_none() -> None:
    made, _, told = effects(trace=True)
    for act in ACTS:
        getattr(made, act)(*arguments_of(act, 2))
    made.spawn(lambda: None)
    reached = [(each.fault, each.chunk, each.nth) for each in told.events]
    chunks = {point: 2 if CATALOGUE[point].chunked else None for point, _ in [*POINTS, *ONCE]}
    assert sorted(reached) == sorted([(p, c, 1) for p, c in chunks.items()] + [("guest.spawn", None, 1)])


# -- bytes: half of them, or one of them flipped


class Files(Effects):
    """Moves bytes between plain objects."""

    def copy_read(self, memory: Any, buffer: memoryview, offset: int, chunk: Any) -> None:
        buffer[:] = memory[offset : offset + len(buffer)]

    def copy_write(self, cache: Any, data: memoryview, chunk: Any) -> None:
        os.pwrite(cache.fd, data, chunk.cache_offset)

    def write_header(self, header: Any, folder: pathlib.Path) -> None:
        (folder / HEADER).write_bytes(header)

    def resume_read(self, source: Any, offset: int, length: int) -> bytes:
        return bytes(source[offset : offset + length])


def moving(point: FaultPoint, error: str) -> FaultyEffects:
    return FaultyEffects(Files(), armed(fault(point, error=error)), Told().passage())


def written(folder: pathlib.Path, error: str) -> tuple[bytes, OSError | None]:
    failed = None
    with (folder / "memfile").open("w+b", buffering=0) as file:
        cache = SimpleNamespace(fd=file.fileno())
        try:
            moving("copy.write", error).copy_write(cache, memoryview(CONTENT), SimpleNamespace(index=0, cache_offset=4))  # type: ignore[arg-type]
        except OSError as raised:
            failed = raised
        return file.read(), failed


CONTENT = bytes(range(100, 108))


def test_a_short_write_leaves_half_of_the_bytes_and_fails(tmp_path: pathlib.Path) -> None:
    content, failed = written(tmp_path, "short")
    assert content == bytes(4) + CONTENT[:4]
    assert failed is not None
    assert failed.errno == errno.EIO


def test_a_corrupt_write_flips_one_byte_of_the_file_and_succeeds(tmp_path: pathlib.Path) -> None:
    content, failed = written(tmp_path, "corrupt")
    assert failed is None
    assert [at for at in range(8) if content[4 + at] != CONTENT[at]] == [4]


def test_a_short_read_fills_half_of_the_buffer_and_fails() -> None:
    buffer = memoryview(bytearray(8))
    with pytest.raises(OSError, match="Input/output error"):
        moving("copy.read", "short").copy_read(CONTENT, buffer, 0, chunk(0))  # type: ignore[arg-type]
    assert bytes(buffer) == CONTENT[:4] + bytes(4)


def test_a_header_is_cut_in_half_or_has_one_byte_flipped(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        moving("header.write", "short").write_header(CONTENT, tmp_path)  # type: ignore[arg-type]
    assert (tmp_path / HEADER).read_bytes() == CONTENT[:4]
    moving("header.write", "corrupt").write_header(CONTENT, tmp_path)  # type: ignore[arg-type]
    content = (tmp_path / HEADER).read_bytes()
    assert [at for at in range(8) if content[at] != CONTENT[at]] == [4]


def test_a_resume_s_first_read_is_the_one_that_is_disturbed() -> None:
    made = moving("resume.read", "corrupt")
    first, second = (made.resume_read(CONTENT, 0, 8) for _ in range(2))  # type: ignore[arg-type]
    assert [at for at in range(8) if first[at] != CONTENT[at]] == [4]
    assert second == CONTENT
    with pytest.raises(OSError, match="Input/output error"):
        moving("resume.read", "short").resume_read(CONTENT, 0, 8)  # type: ignore[arg-type]


@pytest.mark.parametrize(("point", "act"), POINTS)
def test_other_chunks_and_other_acts_are_not_touched(point: FaultPoint, act: str) -> None:
    made, inner, told = effects(fault(point, at=AtChunk(2)))
    getattr(made, act)(*arguments_of(act, 1))
    for other in set(ACTS) - {act}:
        getattr(made, other)(*arguments_of(other, 2))
    assert len(inner.calls) == len(ACTS)
    assert told.events == []


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


CRASHES = """
from types import SimpleNamespace
from engine.effects import Effects
from sim.files.faults import KILL_NODE
from sim.node.armed_faults import ArmedFaults, Fault, FaultyEffects, Passage

class Inner(Effects):
    def publish(self, cache, chunk): print("published", chunk.index, flush=True)

armed = ArmedFaults()
armed.arm(Fault(1, "publish", KILL_NODE, 50.0, "web-*", 1))
effects = FaultyEffects(Inner(), armed, Passage("web-0", 1, lambda event: print("told", event.chunk, flush=True)))
effects.planned(4)
for index in range(4):
    effects.publish(None, SimpleNamespace(index=index))
"""


def test_a_crash_is_told_first_and_then_kills_the_process_before_the_act() -> None:
    run = subprocess.run([sys.executable, "-c", CRASHES], capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert run.stdout.splitlines() == ["published 0", "published 1", "told 2"]
