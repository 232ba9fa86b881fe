"""A runner is killed; `snapdrill clean`, as a process of its own, ends what it left and nothing else."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sim.record import folder, leftovers
from tests.command_line import snapdrill

# A runner as far as its record goes: it starts a child that carries the run's id, and the child forks another.
RUNNER = """
import os, pathlib, subprocess, sys, time
from engine.incarnation import start_time_of
from sim.record.folder import RunRecord, write_record
folder, run = pathlib.Path(sys.argv[1]), sys.argv[2]
(folder / "cache").mkdir()
child = "import os, time; os.setsid(); os.fork(); os.write(1, b'up\\\\n'); time.sleep(60)"
subprocess.Popen([sys.executable, "-c", child], env={**os.environ, "SNAPDRILL_RUN": run})
own = os.getpid(), start_time_of(os.getpid())
write_record(folder, RunRecord(run, *own, None, None, None, None, str(folder / "cache"), str(folder), None, False))
os.write(1, b"up\\n")
time.sleep(60)
"""


@dataclass(frozen=True)
class Dead:
    """A run whose runner can be killed."""

    runs: pathlib.Path
    folder: pathlib.Path
    run: str
    runner: subprocess.Popen[str]


@pytest.fixture
def started(tmp_path: pathlib.Path) -> Iterator[Dead]:
    folder = tmp_path / "demo" / "20260102T030405Z-1"
    folder.mkdir(parents=True)
    run = uuid.uuid4().hex
    command = [sys.executable, "-c", RUNNER, str(folder), run]
    runner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert runner.stdout is not None
    assert [runner.stdout.readline() for _ in range(3)] == ["up\n"] * 3
    yield Dead(tmp_path, folder, run, runner)
    runner.kill()
    runner.wait()
    runner.stdout.close()
    for pid in leftovers.processes_of(run):
        os.kill(pid, 9)


def clean(runs: pathlib.Path) -> subprocess.CompletedProcess[str]:
    return snapdrill("clean", "--runs-dir", runs)


def test_processes_and_cache_of_a_killed_runner_are_gone(started: Dead) -> None:
    left = leftovers.processes_of(started.run)
    assert len(left) == 2
    started.runner.kill()
    started.runner.wait()
    done = clean(started.runs)
    assert done.returncode == 0, done.stderr
    assert [line.partition(": ended ")[2].split(" (")[0] for line in done.stdout.splitlines()] == [
        *(f"process {pid}" for pid in left),
        f"cache folder {started.folder / 'cache'}",
    ]
    assert leftovers.processes_of(started.run) == []
    assert folder.read_record(started.folder).ended


def test_processes_of_a_living_runner_go_on(started: Dead) -> None:
    left = leftovers.processes_of(started.run)
    done = clean(started.runs)
    assert (done.returncode, done.stdout) == (0, f"nothing to clean in {started.runs}\n")
    assert leftovers.processes_of(started.run) == left
    assert (started.folder / "cache").is_dir()
