"""Real runs through the local pool: forked nodes do what executed ones do, nothing outlives a worker or the pool."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from flags.client import SDK_KEY
from sim.files.scenario import Scenario, load_text
from sim.record import events
from sim.record.folder import read_record
from sim.record.ledger import EVENTS_FILE, read
from sim.record.leftovers import processes_of
from sim.run.cases import Unit, UnitResult, scratch
from sim.run.pool import LocalPool, Worker, start_worker
from sim.run.runner import RunOptions, run_scenario
from sim.run.sweep import points_of

WaitUntil = Callable[..., Any]
BUDGET = 1 << 30

STEPS = """\
  - tick: 1
  - inject: {fault: copy.write, errno: EIO, at: {chunk: 1}, sandboxes: web-1}
  - pause: {}
  - clear: {}
  - crash: {at: {fault: resume.read}, sandboxes: web-0}
  - resume: {state: paused}
  - restart: {}
  - resume: {state: paused}
  - tick: 1
  - pause: {}
"""
LONG = "  - tick: 1\n  - wait: 60s\n"


def scenario_of(runs: Any, steps: str, **options: Any) -> Scenario:
    path = runs.folder / "crash.yaml"
    path.write_text(runs.scenario_text(memory="4MiB", steps=steps, **options))
    return load_text(path.read_text(), path)


def unit_of(runs: Any, steps: str, **options: Any) -> Unit:
    return Unit.of("u", scenario_of(runs, steps, **options), runs.runs)


def live_runs(runs: Any) -> list[pathlib.Path]:
    """Runs in workers' own folders whose guests have begun to work."""
    begun = [path.parent for path in runs.runs.glob(f".unit-*/*/*/{EVENTS_FILE}") if not path.parent.is_symlink()]
    return [each for each in begun if '"ticked"' in (each / EVENTS_FILE).read_text()]


def of_this_machine(run: str) -> list[str]:
    """Folders and cgroups anywhere that carry the run's id."""
    places = [pathlib.Path("/dev/shm"), pathlib.Path(os.environ.get("TMPDIR", "/tmp"))]  # noqa: S108 - looked into
    found = [str(path) for place in places if place.is_dir() for path in place.glob(f"snapdrill-{run}*")]
    return found + [parent for parent, _, _ in os.walk("/sys/fs/cgroup") if parent.endswith(f"snapdrill-{run}")]


def assert_nothing_is_left(runs: Any, run: str) -> None:
    assert processes_of(run) == []
    assert of_this_machine(run) == []
    assert list(runs.runs.glob(".unit-*")) == []


async def test_a_unit_comes_to_what_a_plain_run_comes_to(runs: Any) -> None:
    unit = dataclasses.replace(unit_of(runs, STEPS), keep="always")
    with LocalPool(1, BUDGET) as pool:
        (result,) = pool.run([unit])
    plain = await run_scenario(scenario_of(runs, STEPS), RunOptions(runs_dir=runs.folder / "plain"))
    ended = plain.view.ended
    assert result.error is None
    assert ended is not None
    assert (result.verdict, result.digest) == (ended.verdict, ended.digest)
    assert result.states == {name: each.state for name, each in plain.view.sandboxes.items()}
    assert result.judged == plain.view.judged
    fired = {(entry.sandbox, event.fault) for entry, event in result.each(events.FaultFired)}
    assert fired == {("web-1", "copy.write"), ("web-0", "resume.read")}
    outcomes = {pause: settled.outcome for pause, settled in result.settled.items()}
    assert outcomes == {each.id: each.outcome for each in plain.view.pauses}
    runs.assert_nothing_is_left()
    assert list(runs.runs.glob(".unit-*")) == []


async def test_forked_processes_carry_their_runs_id_and_belong_to_no_other(runs: Any, process: Any) -> None:
    unit = dataclasses.replace(unit_of(runs, "  - tick: 1\n  - wait: 300ms\n"), keep="always")
    with LocalPool(2, BUDGET) as pool:
        first, second = pool.run([unit, unit])
    ids = set()
    for result in (first, second):
        record = read_record(result.run_dir or pathlib.Path())
        started = [e.event for e in read((result.run_dir or pathlib.Path()) / EVENTS_FILE)]
        nodes = [each.pid for each in started if isinstance(each, events.NodeStarted)]
        assert (len(nodes), record.ended) == (1, True)
        ids.add(record.run)
    assert len(ids) == 2


def test_a_killed_worker_costs_nothing_but_time(runs: Any, wait_until: WaitUntil) -> None:
    """Its unit is run by another, and what it had begun is gone: the node ends when its runner does."""
    workers: list[Worker] = []
    found: list[str] = []
    cpu, kept_to = min(os.sched_getaffinity(0)), set[int]()

    def start() -> Worker:
        workers.append(start_worker(cpu))
        return workers[-1]

    with LocalPool(1, BUDGET, start=start) as pool:
        results = pool.run([dataclasses.replace(unit_of(runs, LONG), time_limit=3.0, keep="never")])
        pool_results: list[UnitResult] = []

        def kill_once() -> None:
            (run_dir,) = wait_until(lambda: live_runs(runs))
            found.append(read_record(run_dir).run)
            processes = processes_of(found[0])
            assert processes
            for pid in (workers[0].pid, *processes):
                kept_to.update(os.sched_getaffinity(pid))
            os.kill(workers[0].pid, signal.SIGKILL)

        killer = threading.Thread(target=kill_once)
        killer.start()
        pool_results += results
        killer.join()
    assert [each.verdict for each in pool_results] == ["inconclusive"]  # of its time limit: it ran on the second
    assert len(workers) == 2
    assert kept_to == {cpu}
    assert not scratch(runs.runs, workers[0].pid).exists()
    assert_nothing_is_left(runs, found[0])


POOL = """
import dataclasses, pathlib, signal, sys
from sim.run.cases import Unit
from sim.run.pool import LocalPool
from sim.files.scenario import load
signal.signal(signal.SIGINT, signal.default_int_handler)
path, folder = map(pathlib.Path, sys.argv[1:])
unit = Unit.of("u", load(path), folder)
try:
    with LocalPool(2, 1 << 30) as pool:
        list(pool.run([unit] * 4))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_end_of_a_pool_ends_every_run(runs: Any, wait_until: WaitUntil, number: signal.Signals) -> None:
    """An interrupt waits for them; where the pool itself is killed, its workers end what they run by themselves."""
    scenario_of(runs, LONG, cache="tmpfs")
    command = runs.python(POOL, str(runs.folder / "crash.yaml"), str(runs.runs))
    live = wait_until(lambda: len(found := live_runs(runs)) == 2 and found)
    ids = [read_record(each).run for each in live]
    assert all(processes_of(each) for each in ids)
    command.send_signal(number)
    _, err = command.communicate(timeout=50)
    assert (command.returncode, err) == (130 if number == signal.SIGINT else -signal.SIGKILL, "")
    if number == signal.SIGKILL:
        wait_until(lambda: not list(runs.runs.glob(".unit-*")))
    for each in ids:
        assert_nothing_is_left(runs, each)


def test_a_run_that_held_leaves_no_folder_and_one_that_did_not_does(runs: Any) -> None:
    held = unit_of(runs, "  - tick: 1\n")
    failing = unit_of(runs, "  - pause: {}\n  - expect: {sandboxes: web-0, state: [running]}\n", cache="tmpfs")
    with LocalPool(1, BUDGET) as pool:
        first, second = pool.run([held, failing])
    assert (first.verdict, first.run_dir) == ("held", None)
    assert second.verdict == "violated"
    assert second.run_dir is not None
    assert runs.run_dirs() == [second.run_dir]
    assert [each.subject for each in second.violated] == ["state:web-0"]
    runs.assert_nothing_is_left()


def test_a_unit_that_is_no_scenario_is_an_error_of_its_own(runs: Any) -> None:
    good = unit_of(runs, "  - tick: 1\n")
    bad = dataclasses.replace(good, name="bad", text="name: x\n")
    with LocalPool(1, BUDGET) as pool:
        results = list(pool.run([bad, good]))
    assert [each.verdict for each in results] == [None, "held"]
    assert "crash.yaml:" in (results[0].error or "")


def test_points_are_told_where_they_are_asked_for(runs: Any) -> None:
    unit = dataclasses.replace(unit_of(runs, "  - tick: 1\n  - pause: {}\n"), trace=True)
    with LocalPool(1, BUDGET) as pool:
        (traced,) = pool.run([unit])
        (plain,) = pool.run([dataclasses.replace(unit, trace=False)])
    points = points_of(traced.entries, 2)
    assert {(each.fault, each.step) for each in points} >= {("copy.write", 1), ("condemn", 1)}
    assert {each.sandbox for each in points} == {"web-0", "web-1"}
    assert list(plain.each(events.PointReached)) == []
    assert traced.digest == plain.digest


def test_no_guest_is_told_the_key_to_the_flags(
    runs: Any, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SDK_KEY, "sdk-of-nobody")
    found: dict[str, bytes] = {}

    def look() -> None:
        (run_dir,) = wait_until(lambda: live_runs(runs))
        for pid in processes_of(read_record(run_dir).run):
            name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
            found[name] = pathlib.Path(f"/proc/{pid}/environ").read_bytes()

    looker = threading.Thread(target=look)
    looker.start()
    with LocalPool(1, BUDGET) as pool:
        (result,) = pool.run([dataclasses.replace(unit_of(runs, LONG), time_limit=2.0, keep="never")])
    looker.join()
    assert result.error is None
    assert set(found) == {"node", "zygote", "guest web-0", "guest web-1"}
    assert not any(b"sdk-of-nobody" in environment for environment in found.values())
