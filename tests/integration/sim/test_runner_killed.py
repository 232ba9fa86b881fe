"""The runner is killed: its node ends everything by itself; where that is dead too the zygote does, or `clean`."""

from __future__ import annotations

import errno
import os
import pathlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.errors import UserError
from sim.record import events
from sim.record.folder import read_record
from sim.record.leftovers import leftovers, processes_of

WaitUntil = Callable[..., Any]

# Starts a fleet and keeps it busy until it is killed.
RUNNER = """
import asyncio, pathlib, sys
from sim.run import drill as drills
from sim.files.scenario import load

async def main(path, runs, work):
    async with drills.Drill(load(path), runs_dir=runs) as drill:
        names = list(drill.view().sandboxes)
        while True:
            await drill.tick(100_000 if work == "tick" else 1)
            await drill.pause(names)
            await drill.resume(names)

drills.GRACE = float(sys.argv[3])
asyncio.run(main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[4]))
"""


@pytest.fixture
def busy(runs: Any, wait_until: WaitUntil) -> Iterator[Callable[..., Any]]:
    """A runner whose fleet is at work, and the pid of its node."""
    started = []

    def start(work: str, grace: float) -> tuple[Any, int]:
        path = runs.folder / "crash.yaml"
        path.write_text(runs.scenario_text(count=3))
        runner = runs.python(RUNNER, str(path), str(runs.runs), str(grace), work)
        started.append(runner)
        wait_until(lambda: runs.told(events.Decided if work == "pause" else events.Ticked))
        (node,) = runs.told(events.NodeStarted)
        return runner, node.pid

    yield start
    for runner in started:
        runner.kill()
        runner.communicate()


def kill(runner: Any) -> None:
    runner.kill()
    runner.wait()


async def test_a_cache_is_told_of_before_anything_else_is_made(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner that is killed while it sets up leaves nothing that `clean` does not find."""
    told = []

    def look(*_: object, **__: object) -> str:
        (run_dir,) = runs.run_dirs()
        record = read_record(run_dir)
        told.append((pathlib.Path(record.cache_dir).is_dir(), leftovers(record, run_dir), record.ended))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sim.run.drill.tempfile.mkdtemp", look)
    with pytest.raises(UserError, match="cannot be set up"):
        async with runs.drill():
            pass
    ((made, found, ended),) = told
    assert made
    assert not ended
    assert [each.partition(" /")[0] for each in found] == ["cache folder"]


@pytest.mark.parametrize("work", ["tick", "pause"])
def test_node_zygote_and_guests_of_a_killed_runner_end_by_themselves(
    runs: Any, busy: Callable[..., Any], wait_until: WaitUntil, work: str
) -> None:
    runner, _ = busy(work, 600)
    run = runs.run_id()
    assert len(processes_of(run)) >= 2
    kill(runner)
    wait_until(lambda: processes_of(run) == [])


def test_the_zygote_ends_its_guests_with_the_runner_where_the_node_is_dead_too(
    runs: Any, busy: Callable[..., Any], wait_until: WaitUntil
) -> None:
    """Its grace of ten minutes is for a runner that lives."""
    runner, node = busy("pause", 600)
    run = runs.run_id()
    runner.send_signal(signal.SIGSTOP)  # so that it cannot end them
    os.kill(node, signal.SIGKILL)
    kill(runner)
    wait_until(lambda: processes_of(run) == [], 5.0)


def test_clean_ends_at_once_what_runner_and_node_have_left(
    runs: Any, busy: Callable[..., Any], wait_until: WaitUntil
) -> None:
    runner, node = busy("pause", 600)
    run, (run_dir,) = runs.run_id(), runs.run_dirs()
    runner.send_signal(signal.SIGSTOP)
    os.kill(node, signal.SIGKILL)
    (started,) = runs.told(events.NodeStarted)
    os.kill(started.zygote_pid, signal.SIGSTOP)  # else it ends by itself, a second or two after the runner
    kill(runner)
    assert "zygote" in {pathlib.Path(f"/proc/{pid}/comm").read_text().strip() for pid in processes_of(run)}
    assert not read_record(run_dir).ended
    cleaning = runs.command("clean", "--runs-dir", str(runs.runs))
    out, err = cleaning.communicate(timeout=30)
    assert (cleaning.returncode, err) == (0, "")
    assert "(zygote)" in out
    assert processes_of(run) == []
    record = read_record(run_dir)
    assert record.ended
    left = [record.cache_dir, record.socket_dir, *([record.cgroup] if record.cgroup else [])]
    assert [path for path in left if os.path.exists(path)] == []
