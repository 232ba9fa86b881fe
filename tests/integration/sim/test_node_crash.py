"""The node is killed at every named point of a pause: what was condemned ends, what was not runs on, nothing leaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import signal
from typing import Any

import pytest

from sim.files.faults import KILL_NODE, AtChunk, FaultPoint
from sim.record import events
from sim.run.node_link import NodeDiedError

ROOT = pathlib.Path(__file__).parents[3]
LAST = 3
RUNS = {"R", "S", "D"}  # states of a process that is not stopped
POINTS: list[tuple[FaultPoint, int, bool]] = [  # the point, the chunk, and whether the crash comes after the condemning
    ("copy.read", 0, False),
    ("copy.write", 0, False),
    ("publish", 0, False),
    ("condemn", 0, False),
    ("punch", 0, True),
    ("copy.read", 1, True),
    ("copy.write", 1, True),
    ("publish", LAST, True),
    ("punch", 1, True),
    ("punch", LAST, True),
]
BACKGROUND = [POINTS[2], POINTS[4], POINTS[6], POINTS[9]]

# A runner as an interactive shell starts it, that ignores SIGHUP as nohup does: its node dies in the middle of a punch.
RUNNER = """
import asyncio, json, os, pathlib, signal, sys
from engine.incarnation import state_of
from sim.run.drill import Drill
from sim.run.node_link import NodeDiedError
from sim.files.faults import KILL_NODE, AtChunk
from sim.files.scenario import load

async def main(path, runs):
    async with Drill(load(path), runs_dir=runs) as drill:
        pids = {name: each.pid for name, each in drill.view().sandboxes.items()}
        await drill.tick()
        await drill.inject(sys.argv[3], KILL_NODE, AtChunk(int(sys.argv[4])), "web-0", 1)
        try:
            await drill.pause(["web-0"])
        except NodeDiedError:
            await drill.crash()  # reaped: whatever its death sends to others was sent
        crashed = {name: state_of(pid) for name, pid in pids.items()}
        await drill.restart()
        recovered = {name: each.state for name, each in drill.view().sandboxes.items()}
        living = {name: state_of(pid) for name, pid in pids.items()}
        await drill.tick()
        await drill.pause(list(pids))
        view = await drill.finish()
        print(json.dumps([crashed, recovered, living, view.ended.verdict, [list(j.violations) for j in view.judged]]))

signal.signal(signal.SIGHUP, signal.SIG_IGN)
asyncio.run(main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])))
"""


def violations(view: Any) -> list[Any]:
    return [(each.subject, each.violations) for each in view.judged if each.verdict != "held"]


@pytest.mark.parametrize(
    ("background", "points"),
    [
        pytest.param(False, POINTS, marks=pytest.mark.slow, id="in-turn"),
        pytest.param(True, BACKGROUND, id="background"),
    ],
)
async def test_a_crash_at_any_point_ends_the_condemned_and_lets_the_others_run_on(
    runs: Any, background: bool, points: list[tuple[FaultPoint, int, bool]]
) -> None:
    names = [f"web-{index}" for index in range(len(points))]
    async with runs.drill(count=len(points) + 1, background=background) as drill:
        await drill.tick()
        expected = {f"web-{len(points)}": "running"}
        for name, (point, chunk, condemned) in zip(names, points, strict=True):
            await drill.inject(point, KILL_NODE, AtChunk(chunk), name, 1)
            with pytest.raises(NodeDiedError):
                await drill.pause([name])
            await drill.restart()
            expected[name] = "discarded" if condemned else "running"
            assert drill.view().sandboxes[name].state == expected[name], f"crashed at {point} of chunk {chunk}"
        await drill.tick()
        assert {name: each.state for name, each in drill.view().sandboxes.items()} == expected
        await drill.pause([name for name, state in expected.items() if state == "running"])
        view = await drill.finish()
    assert violations(view) == []
    assert {each.state for each in view.sandboxes.values()} == {"discarded", "paused"}
    runs.assert_nothing_is_left()


async def test_a_build_that_was_finished_as_its_guest_was_to_be_condemned_is_given_up(runs: Any) -> None:
    async with runs.drill(punch=False) as drill:
        await drill.tick()
        await drill.inject("condemn", KILL_NODE, AtChunk(0), "web-0", 1)
        with pytest.raises(NodeDiedError):
            await drill.pause(["web-0"])
        assert (drill.cache_dir / "web-0.p1").is_dir()
        await drill.restart()
        assert not (drill.cache_dir / "web-0.p1").exists()
        assert drill.view().sandboxes["web-0"].state == "running"
        await drill.pause(["web-0"])
        view = await drill.finish()
    assert violations(view) == []
    assert [each.outcome for each in view.pauses] == ["rolled-back", "finished"]


async def test_a_crash_in_a_checkpoint_in_place_forgets_no_dirty_page(runs: Any) -> None:
    async with runs.drill(in_place=True) as drill:
        await drill.tick()
        await drill.inject("copy.write", KILL_NODE, AtChunk(2), "web-0", 1)
        with pytest.raises(NodeDiedError):
            await drill.checkpoint(["web-0"])
        await drill.restart()
        assert drill.view().sandboxes["web-0"].state == "running"
        await drill.pause(["web-0"])
        view = await drill.finish()
    assert violations(view) == []
    assert [each.outcome for each in view.pauses] == ["rolled-back", "finished"]


@pytest.mark.parametrize(("point", "chunk"), [("copy.write", 0), ("punch", 1)])
async def test_teardown_ends_everything_without_a_restart(runs: Any, point: FaultPoint, chunk: int) -> None:
    async with runs.drill() as drill:
        await drill.tick()
        await drill.inject(point, KILL_NODE, AtChunk(chunk), "web-0", 1)
        with pytest.raises(NodeDiedError):
            await drill.pause(["web-0", "web-1"])
        view = await drill.finish()
    assert violations(view) == []
    runs.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("point", "chunk", "recovered", "frozen"),
    [("punch", "1", "discarded", {None, "Z"}), ("copy.write", "0", "running", {"T"})],
    ids=["punch", "copy"],
)
def test_no_frozen_guest_runs_on_when_its_node_dies_under_a_runner_that_ignores_hang_ups(
    runs: Any, point: str, chunk: str, recovered: str, frozen: set[str | None]
) -> None:
    """One that is to be punched is dead by then."""
    scenario = runs.folder / "crash.yaml"
    scenario.write_text(runs.scenario_text())
    runner = runs.python(RUNNER, str(scenario), str(runs.runs), point, chunk)
    out, err = runner.communicate(timeout=50)
    assert runner.returncode == 0, err
    crashed, states, living, verdict, found = json.loads(out)
    assert crashed["web-0"] in frozen
    assert crashed["web-1"] in RUNS
    assert states == {"web-0": recovered, "web-1": "running"}
    assert living["web-1"] in RUNS
    assert living["web-0"] in ({None, "Z"} if recovered == "discarded" else RUNS)
    assert (verdict, [each for each in found if each]) == ("held", [])
    runs.assert_nothing_is_left()


async def test_a_node_killed_from_outside_is_noticed_at_the_next_request_and_named(runs: Any) -> None:
    async with runs.drill() as drill:
        await drill.tick()
        pid = drill.view().node_pid
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(NodeDiedError):
            await drill.tick()
        assert drill.is_down()
        await drill.restart()
        await drill.tick()
        view = await drill.finish()
    (found,) = violations(view)
    assert f"the node (pid {pid}) died " in str(found)
    assert view.counts == {"running": 2}


async def test_a_crash_in_the_middle_of_a_tick_loses_no_page(runs: Any, wait_until: Any) -> None:
    async with runs.drill(count=3) as drill:
        await drill.tick()
        await drill.crash()
        await drill.restart()
        ticking = asyncio.ensure_future(drill.tick(50))
        await asyncio.to_thread(wait_until, lambda: len(runs.told(events.Ticked)) > 5)
        await drill.crash()
        with pytest.raises(NodeDiedError):
            await ticking
        await drill.restart()
        await drill.pause(["web-0", "web-1", "web-2"])
        await drill.resume(["web-0", "web-1", "web-2"])
        view = await drill.finish()
    assert violations(view) == []
    assert view.counts == {"running": 3}


def descriptors(pid: int) -> set[tuple[str, str]]:
    """By number, and what each is."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # it was of this very look
            found.add((fd, os.readlink(f"/proc/{pid}/fd/{fd}")))
    return found


async def test_neither_node_nor_zygote_nor_runner_keeps_descriptors_of_what_has_ended(runs: Any) -> None:
    foreign = descriptors(os.getpid())  # what other tests have opened may be closed at any time
    async with runs.drill(count=2) as drill:
        names = ["web-0", "web-1"]

        async def held() -> list[int]:
            await drill.tick()
            await drill.pause(names)
            await drill.resume(names)
            started = next(e.event for e in reversed(drill.entries) if isinstance(e.event, events.NodeStarted))
            ours = descriptors(os.getpid()) - foreign
            return [len(each) for each in (descriptors(started.pid), descriptors(started.zygote_pid), ours)]

        await held()
        first = await held()
        for _ in range(3):
            assert await held() == first
        await drill.crash()
        await drill.restart()
        await held()
        assert await held() == first
