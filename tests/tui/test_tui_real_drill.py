"""The screen on a real run: real guests, a real discard, a resume that is refused; and a real twin."""

from __future__ import annotations

import asyncio
import pathlib
import time
from functools import partial

import pytest

from sim.files.scenario import load_text
from sim.record.view import View
from sim.run.drill import Drill
from sim.run.runner import RunOptions
from sim.tui import twin_runs
from sim.tui.fleet_app import FleetApp
from sim.tui.twin import Twin
from tests.forked import forked_node
from tests.tui.looking import until_seen

SCENARIO = """\
name: screen
seed: 3
fleet:
  - {name: web, count: 3, memory: 8MiB, workload: {dirty: 100%, pattern: full}}
flags: {memfd-punch-on-snapshot: false, memfd-background-copy: true}
steps:
  - tick: 1
"""


async def test_a_punched_sandbox_whose_copy_failed_is_discarded_and_its_resume_refused(tmp_path: pathlib.Path) -> None:
    scenario = load_text(SCENARIO, tmp_path / "screen.yaml")
    app = FleetApp(lambda: Drill(scenario, runs_dir=tmp_path / "runs", long=True))
    async with app.run_test(size=(110, 32)) as pilot:
        await until_seen(pilot, "web-0    ● running", "web-2    ● running", "guest pid")
        await pilot.press("t", "f", "j", "e", "P")
        await until_seen(pilot, "web-0    ■ paused", "web-1    ✗ discarded", "web-2    ■ paused")
        await until_seen(pilot, "1 armed: copy.write ENOSPC at chunk 3 on web-1, fired once")
        await pilot.press("r")
        await until_seen(pilot, "refused: it was discarded and can never run again: copy.write of chunk 3 failed")
        await pilot.press("c", "g", "r")
        await until_seen(pilot, "web-0    ● running", "faults none armed", "web-0 resumed as a new guest")
        await pilot.press("q")
        deadline = time.monotonic() + 40
        while app.is_running:
            assert time.monotonic() < deadline, "waited in vain until the run was torn down"
            await pilot.pause(0.05)
    assert app.failure is None
    assert app.last is not None
    assert app.last.ended is not None
    assert app.last.ended.verdict == "held"
    assert app.last.counts == {"running": 1, "discarded": 1, "paused": 1}


async def test_a_twin_is_two_runs_of_the_same_fleet_and_seed_of_which_nothing_is_left(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin_runs, "RunOptions", partial(RunOptions, start_node=forked_node))
    text = SCENARIO.replace("count: 3, memory: 8MiB", "count: 1, memory: 16MiB")
    twin = Twin(twin_runs.runs_of(load_text(text, tmp_path / "screen.yaml"), tmp_path / "runs", 5))
    over = asyncio.Event()
    twin.on_change = lambda: None if twin.said is not None and twin.said.tone == "busy" else over.set()
    twin.begin(View(flags={"memfd-background-copy": False}))
    async with asyncio.timeout(50):
        await over.wait()
    assert twin.said is None
    assert {punch: view.ended.verdict for punch, view in twin.arms.items() if view.ended} == {
        False: "held",
        True: "held",
    }
    off, on = (twin.arms[punch].memory.peak / (16 << 20) for punch in (False, True))
    assert off >= 1.9
    assert on <= 1.5
    assert [view.run.seed for view in twin.arms.values() if view.run] == [5, 5]
    assert {pause.path for view in twin.arms.values() for pause in view.pauses} == {"memfd"}, "the flags on screen"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["screen-twin-off", "screen-twin-on"]


async def test_a_stopped_copy_holds_up_no_other_sandbox_and_its_resume_is_refused_until_it_answers(
    tmp_path: pathlib.Path,
) -> None:
    scenario = load_text(SCENARIO.replace("seed: 3", "seed: 4"), tmp_path / "screen.yaml")
    app = FleetApp(lambda: Drill(scenario, runs_dir=tmp_path / "runs"))
    async with app.run_test(size=(110, 32)) as pilot:
        await until_seen(pilot, "web-0    ● running", "web-2    ● running", "guest pid")
        await pilot.press("t")
        await until_seen(pilot, "tick 1 stopped")
        await pilot.press("enter", "h", "p")
        await until_seen(pilot, "STOPPED before chunk")
        await pilot.press("r")
        await until_seen(pilot, "resume refused: the pause of web-0 has not answered yet")
        await pilot.press("escape", "j", "p")
        await until_seen(pilot, "web-0    ◐ pausing", "web-1    ■ paused")
        await pilot.press("r")
        await until_seen(pilot, "web-0    ◐ pausing", "web-1    ● running", "tick 2 stopped")
        await pilot.press("k", "enter", "n", "n", "n")
        await until_seen(pilot, "the copy goes on in the background")
        await pilot.press("escape", "g", "r")
        await until_seen(pilot, "resuming web-0")
        await pilot.press("enter", "h", "escape")
        await until_seen(pilot, "web-0    ● running", "web-0 resumed as a new guest")
        await pilot.press("q")
        deadline = time.monotonic() + 40
        while app.is_running:
            assert time.monotonic() < deadline, "waited in vain until the run was torn down"
            await pilot.pause(0.05)
    assert app.failure is None
    assert app.last is not None
    assert app.last.ended is not None
    assert app.last.ended.verdict == "held"
    assert app.last.counts == {"running": 3}
