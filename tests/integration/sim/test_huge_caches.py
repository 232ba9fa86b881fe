"""Caches on a tmpfs of huge pages that is mounted nowhere: who holds them, and when they are gone."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from sim.files.faults import KILL_NODE, AtChunk
from sim.record import events
from sim.record.folder import read_record
from sim.record.leftovers import leftovers, processes_of
from sim.run import private_tmpfs
from sim.run.node_link import NodeDiedError

pytestmark = pytest.mark.skipif(not private_tmpfs.has_huge(), reason="no huge-page caches here: see snapdrill doctor")

# A runner that says where its builds are, pauses one sandbox, and waits to be killed.
RUNNER = """
import asyncio, pathlib, sys
from sim.run.drill import Drill
from sim.files.scenario import load

async def main(path, runs):
    async with Drill(load(path), runs_dir=runs) as drill:
        await drill.tick()
        await drill.pause(["web-0"])
        print("paused", flush=True)
        await asyncio.sleep(600)

asyncio.run(main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])))
"""


async def test_builds_outlive_the_node_that_made_them_and_not_their_run(runs: Any) -> None:
    async with runs.drill(cache="tmpfs", background=True) as drill:
        assert str(drill.cache_dir).startswith(f"/proc/{os.getpid()}/fd/")
        await drill.tick()
        await drill.pause(["web-0"])
        await drill.inject("copy.write", KILL_NODE, AtChunk(2), "web-1", 1)
        with pytest.raises(NodeDiedError):
            await drill.pause(["web-1"])
        await drill.crash()
        await drill.restart()
        assert drill.view().sandboxes["web-0"].state == "paused"
        await drill.resume(["web-0"])
        await drill.tick()
        await drill.pause(["web-0"])
        view = await drill.finish()
    held = {each.subject: each.verdict for each in view.judged}
    assert held["invariant:bytes_exact"] == held["invariant:no_leaks"] == held["invariant:peak_bounded"] == "held"
    (started,) = runs.told(events.RunStarted)
    assert started.host["huge_cache"] is True
    runs.assert_nothing_is_left()


def test_nothing_of_them_is_left_of_a_killed_runner(runs: Any, wait_until: Callable[..., Any]) -> None:
    path = runs.folder / "crash.yaml"
    path.write_text(runs.scenario_text(count=1, cache="tmpfs"))
    runner = runs.python(RUNNER, str(path), str(runs.runs))
    assert runner.stdout.readline() == "paused\n"
    (run_dir,) = runs.run_dirs()
    record = read_record(run_dir)
    assert os.listdir(record.cache_dir) == ["web-0.p1"]
    runner.kill()
    runner.communicate()
    wait_until(lambda: processes_of(record.run) == [])
    assert not os.path.exists(record.cache_dir)
    assert [each.partition(" /")[0] for each in leftovers(record, run_dir)] in (
        ["socket folder"],
        ["socket folder", "cgroup"],
    )
