"""The local pool's admission, retries and reports, with workers that are threads; and what a unit needs."""

from __future__ import annotations

import itertools
import os
import pathlib
import pickle
import threading
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.files.scenario import load_text
from sim.record.events import FaultFired, Judged
from sim.record.folder import RunRecord, read_record, write_record
from sim.record.ledger import Entry
from sim.record.leftovers import LeftoverError
from sim.run import cases
from sim.run import cases as unit_run
from sim.run import pool as cluster
from sim.run.cases import RUN_OVERHEAD, Unit, UnitResult, memory_need
from sim.run.pool import LocalPool, PoolError, Worker
from sim.run.runner import RunOptions

MIB = 1 << 20
HERE = pathlib.Path("/nowhere")


class DiedError(Exception):
    """What a fake run raises for the death of its worker."""


class Fleet:
    """Workers in threads: `run` is what they do with a unit. Knows what ran at the same time."""

    def __init__(self, run: Callable[[Unit], str]) -> None:
        self.run = run
        self.running: dict[str, int] = {}
        self.most_memory = self.most_at_once = 0
        self.started = self.ended = 0
        self._lock = threading.Lock()

    def start(self) -> Worker:
        with self._lock:
            self.started += 1
            return ThreadWorker(self, self.started)

    def execute(self, unit: Unit) -> UnitResult:
        with self._lock:
            self.running[unit.name] = unit.need
            self.most_memory = max(self.most_memory, sum(self.running.values()))
            self.most_at_once = max(self.most_at_once, len(self.running))
        try:
            return UnitResult(unit.name, self.run(unit))
        finally:
            with self._lock:
                del self.running[unit.name]


class ThreadWorker:
    """One of them; `pid` is nobody's."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self.pid = -number
        self.connection: Connection[Unit, UnitResult | None]
        self.connection, theirs = Pipe()
        self._fleet = fleet
        self._thread = threading.Thread(target=self._work, args=(theirs,))
        self._thread.start()

    def _work(self, connection: Connection[UnitResult | None, Unit]) -> None:
        with connection:
            try:
                connection.send(None)
                while True:
                    connection.send(self._fleet.execute(connection.recv()))
            except (EOFError, DiedError, OSError):
                return

    def end(self, deadline: float) -> None:
        self.connection.close()
        self._thread.join(deadline)
        self._fleet.ended += 1


def unit(name: str, need: int = 1, **more: Any) -> Unit:
    return Unit(name, "", HERE, HERE, need, **more)


def held(_unit: Unit) -> str:
    return "held"


def test_every_unit_gets_one_result_whatever_the_order() -> None:
    fleet = Fleet(held)
    with LocalPool(3, 100, start=fleet.start) as pool:
        results = list(pool.run(unit(f"u{n}") for n in range(20)))
    assert sorted(each.name for each in results) == sorted(f"u{n}" for n in range(20))
    assert {each.verdict for each in results} == {"held"}
    assert (fleet.started, fleet.ended) == (3, 3)


@pytest.mark.parametrize(
    ("jobs", "kept"), [(1, [None]), (2, [None] * 2), (3, [4, 5, 7]), (5, [4, 5, 7, 4, 5])], ids=str
)
def test_workers_that_are_as_many_as_the_cpus_keep_to_one_each(
    monkeypatch: pytest.MonkeyPatch, jobs: int, kept: list[int | None]
) -> None:
    fleet, cpus = Fleet(held), list[int | None]()

    def start(cpu: int | None = None) -> Worker:
        cpus.append(cpu)
        return fleet.start()

    monkeypatch.setattr(cluster, "start_worker", start)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {7, 4, 5})
    with LocalPool(jobs, 100):
        assert cpus == kept


@settings(max_examples=25, deadline=None)
@given(needs=st.lists(st.integers(0, 12), max_size=12), budget=st.integers(1, 10), jobs=st.integers(1, 4))
def test_what_runs_at_once_fits_the_budget_and_the_jobs(needs: list[int], budget: int, jobs: int) -> None:
    fleet = Fleet(held)
    with LocalPool(jobs, budget, start=fleet.start) as pool:
        results = {each.name: each for each in pool.run(unit(f"u{n}", need) for n, need in enumerate(needs))}
    assert fleet.most_memory <= budget
    assert fleet.most_at_once <= jobs
    for n, need in enumerate(needs):
        assert (results[f"u{n}"].verdict == "held") is (need <= budget)


def test_of_units_that_need_huge_pages_one_runs_at_a_time_and_others_beside_it() -> None:
    fleet, large, small = Fleet(held), (("hugetlb_mib", 16),), (("root", 1),)
    with LocalPool(3, 10, start=fleet.start) as pool:
        results = list(
            pool.run(unit(f"u{n}", 4 if n % 2 else 0, host_needs=large if n % 2 else small) for n in range(24))
        )
    assert len(results) == 24
    assert fleet.most_memory == 4


def test_a_unit_larger_than_the_budget_is_reported_and_not_waited_for() -> None:
    with LocalPool(1, 10 * MIB, start=Fleet(held).start) as pool:
        large, small = pool.run([unit("large", 11 * MIB), unit("small", MIB)])
    assert large == UnitResult("large", None, error="it needs 11MiB of memory and the budget is 10MiB")
    assert small.verdict == "held"


def test_units_do_run_side_by_side() -> None:
    both = threading.Barrier(2)

    def meet(_unit: Unit) -> str:
        both.wait(10)
        return "held"

    with LocalPool(2, 10, start=Fleet(meet).start) as pool:
        assert [each.verdict for each in pool.run([unit("a"), unit("b")])] == ["held", "held"]


def test_units_are_taken_as_there_is_room_for_them() -> None:
    taken: list[str] = []

    def units() -> Iterator[Unit]:
        for n in range(100):
            taken.append(f"u{n}")
            yield unit(f"u{n}")

    with LocalPool(2, 10, start=Fleet(held).start) as pool:
        results = pool.run(units())
        next(results)
        assert len(taken) <= 5
        results.close()  # type: ignore[attr-defined]


def test_a_unit_whose_worker_died_is_given_to_another() -> None:
    tries = itertools.count(1)

    def die_once(_unit: Unit) -> str:
        if next(tries) == 1:
            raise DiedError
        return "held"

    fleet = Fleet(die_once)
    with LocalPool(1, 10, start=fleet.start) as pool:
        (result,) = pool.run([unit("u")])
    assert (result.verdict, result.error) == ("held", None)
    assert fleet.started == fleet.ended == 2


def test_a_unit_that_kills_two_workers_is_an_error_and_the_others_go_on() -> None:
    def die(what: Unit) -> str:
        if what.name == "deadly":
            raise DiedError
        return "held"

    with LocalPool(1, 10, start=Fleet(die).start) as pool:
        results = {each.name: each for each in pool.run([unit("deadly"), unit("u")])}
    assert results["deadly"].verdict is None
    assert results["deadly"].error == "its worker died 2 times"
    assert results["u"].verdict == "held"


def test_workers_that_cannot_start_end_the_pool_in_words() -> None:
    class Stillborn(ThreadWorker):
        def _work(self, connection: Connection[UnitResult | None, Unit]) -> None:
            connection.close()

    fleet = Fleet(held)
    with (
        pytest.raises(PoolError, match="could not start"),
        LocalPool(1, 10, start=lambda: Stillborn(fleet, 1)) as pool,
    ):
        list(pool.run([unit("u")]))


def test_a_pool_can_run_again() -> None:
    fleet = Fleet(held)
    with LocalPool(2, 10, start=fleet.start) as pool:
        for _ in range(3):
            assert len(list(pool.run([unit("a"), unit("b"), unit("c")]))) == 3
    assert fleet.started == 2


def test_units_and_results_travel() -> None:
    entries = (
        Entry(0.5, Judged("state:*", "violated", 1, [{"sandbox": "web-2", "reason": "it is killed"}]), None, None),
        Entry(0.6, FaultFired(1, "copy.write", "EIO", 3), "web-2", "web-2.p1"),
    )
    result = UnitResult("u", "held", None, entries, {"web-0": "running", "web-1": "running", "web-2": "killed"})
    assert pickle.loads(pickle.dumps(result)) == result  # noqa: S301 - our own bytes
    assert pickle.loads(pickle.dumps(unit("u"))) == unit("u")  # noqa: S301 - our own bytes
    assert result.counts == {"running": 2, "killed": 1}


def test_a_result_answers_from_its_entries() -> None:
    kinds = ("state:*", "violated"), ("invariant:no_leaks", "held"), ("time-limit", "inconclusive")
    entries = tuple(Entry(0.0, Judged(subject, verdict, 1), None, None) for subject, verdict in kinds)
    result = UnitResult("u", "violated", entries=entries)
    assert [each.subject for each in result.judged] == ["state:*", "invariant:no_leaks", "time-limit"]
    assert [each.subject for each in result.violated] == ["state:*"]
    assert result.cut_off == Judged("time-limit", "inconclusive", 1)
    assert result.why_broken is None
    assert UnitResult("u", None, error="Traceback\nValueError: no\n").why_broken == "ValueError: no"
    assert UnitResult("u", None).why_broken == "it ended without a verdict"


SCENARIO = """\
name: need
node: {{memory: {node}}}
fleet: [{{name: web, count: 3, memory: 40MiB, workload: {{dirty: 50%, pattern: {pattern}}}}}]
flags: {{memfd-punch-on-snapshot: {punch}}}
steps: [{step}]
"""


def need(*, punch: str = "true", step: str = "tick: 1", node: str = "1GiB", pattern: str = "scattered") -> int:
    """MiB beyond a run's own and the snapshot that a checker fills."""
    text = SCENARIO.format(punch=punch, step=step, node=node, pattern=pattern)
    found = memory_need(load_text(text, HERE)) - RUN_OVERHEAD - 40 * MIB
    return found // MIB


COPIERS = 8  # MiB: two threads of a pause, each with a span as read and as packed


def test_a_guest_of_one_span_is_copied_by_one_thread() -> None:
    text = SCENARIO.format(punch="true", step="tick: 1", node="1GiB", pattern="full").replace("40MiB", "2MiB")
    assert memory_need(load_text(text, HERE)) == RUN_OVERHEAD + 2 * MIB + 3 * (2 + 1 + 2 * 2) * MIB


def test_where_all_is_punched_a_copy_needs_the_chunks_in_flight() -> None:
    assert need() == 3 * 40 + 3 * (8 + COPIERS)


@pytest.mark.parametrize("punch", ["false", "{rollout: 50%, by: sandbox}"])
def test_where_nothing_need_be_punched_a_copy_needs_twice_the_dirty_memory(punch: str) -> None:
    assert need(punch=punch) == 3 * 40 + 3 * (2 * 20 + COPIERS)


def test_a_switch_that_may_be_thrown_counts() -> None:
    assert need(step="flag: {memfd-punch-on-snapshot: false}") == 3 * 40 + 3 * (2 * 20 + COPIERS)


def test_a_hot_guest_is_dirty_all_over() -> None:
    assert need(punch="false", pattern="hot") == 3 * 40 + 3 * (2 * 40 + COPIERS)


def test_the_nodes_budget_caps_what_it_needs() -> None:
    assert need(punch="false", node="128MiB") == 128


def test_what_a_dead_worker_left_and_nobody_can_end_stays_where_it_is_found(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is all that tells of it: `snapdrill clean` reads that."""
    stuck, ended = tmp_path / "u/1-1", tmp_path / "u/2-1"
    for run_dir in (stuck, ended):
        run_dir.mkdir(parents=True)
        cache = run_dir / "cache"
        record = RunRecord(run_dir.name[0] * 8, 0, 0, None, None, None, None, str(cache), ".", None, ended=False)
        write_record(run_dir, record)

    def end(record: RunRecord, _run_dir: pathlib.Path) -> list[str]:
        if record.run == stuck.name[0] * 8:
            raise LeftoverError("it does not die")
        return []

    monkeypatch.setattr(unit_run, "end_leftovers", end)
    cases.remove_leftovers(tmp_path)
    assert read_record(stuck).run == stuck.name[0] * 8
    assert not ended.exists()
    monkeypatch.setattr(unit_run, "end_leftovers", lambda *_: [])
    cases.remove_leftovers(tmp_path)
    assert not tmp_path.exists()


async def test_a_unit_whose_teardown_broke_down_leaves_no_cache_when_its_folder_goes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the record is gone nothing would tell of what the run had elsewhere."""
    elsewhere = tmp_path / "shm" / "snapdrill-1234abcd-cache"

    async def broken(_scenario: object, options: RunOptions) -> None:
        run_dir = options.runs_dir / "u" / "1-1"
        run_dir.mkdir(parents=True)
        elsewhere.mkdir(parents=True)
        where = (str(elsewhere), ".", None)
        write_record(run_dir, RunRecord("1234abcd", 0, 0, None, None, None, None, *where, ended=False))
        raise RuntimeError("its teardown broke down")

    monkeypatch.setattr(unit_run, "run_scenario", broken)
    monkeypatch.setattr(unit_run, "load_text", lambda *_: None)
    result = await cases.run_unit(Unit("u", "", HERE, tmp_path / "runs", 1, keep="never"))
    assert "its teardown broke down" in (result.error or "")
    assert not elsewhere.exists()
    assert list((tmp_path / "runs").iterdir()) == []
