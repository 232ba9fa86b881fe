"""Whoever does what the screen suggests, on real guests, sees 2x against about 1x and a resume that is refused."""

from __future__ import annotations

import pathlib
import time
from functools import partial

import pytest
from textual.pilot import Pilot

from sim.files.scenario import load_text
from sim.run.drill import Drill
from sim.tui import fleet_app as screen
from sim.tui.charts import alike, of_kind
from sim.tui.fleet_app import FleetApp
from tests.forked import forked_node
from tests.tui.looking import seen, until

SCENARIO = """\
name: story
seed: 3
fleet:
  - {name: web, count: 2, memory: 64MiB, workload: {dirty: 100%, pattern: full}}
flags: {memfd-punch-on-snapshot: false, memfd-background-copy: true}
steps:
  - tick: 1
"""
KEYS = ["t", "P", "f", "V", "P", "4", "V", "e", "p", "r", "q"]


async def ended(pilot: Pilot[None], app: FleetApp) -> None:
    deadline = time.monotonic() + 60
    while app.is_running:
        assert time.monotonic() < deadline, f"it goes on:\n{seen(app)}"
        await pilot.pause(0.05)


def says_other(app: FleetApp, before: str) -> bool:
    return app.live.step is None or app.live.step.says != before


def check_what_it_showed(app: FleetApp) -> None:
    assert app.failure is None
    assert app.last is not None
    assert app.last.ended is not None
    assert app.last.ended.verdict == "held"
    off, on = alike(of_kind(app.last, punch=False), of_kind(app.last, punch=True))
    assert off
    assert on
    assert {pause.dirty_bytes for pause in (*off, *on)} == {off[0].dirty_bytes}
    assert [round(pause.peak_ratio or 0, 2) for pause in off] == [2.0] * len(off)
    assert all((pause.peak_ratio or 9) <= 1.1 for pause in on)
    lost = [each for each in app.last.sandboxes.values() if each.state == "discarded"]
    assert [each.refused is not None for each in lost] == [True]


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_the_keys_that_it_suggests_lead_to_the_end(tmp_path: pathlib.Path) -> None:
    scenario = load_text(SCENARIO, tmp_path / "story.yaml")
    app = FleetApp(lambda: Drill(scenario, runs_dir=tmp_path / "runs", start_node=forked_node))
    pressed: list[str] = []
    async with app.run_test(size=(110, 32)) as pilot:
        while app.is_running and pressed[-1:] != ["q"]:
            await until(
                pilot, lambda: app.live.step is not None and app.live.step.key != "" and not app.live.is_asked, "?"
            )
            assert app.live.step is not None
            before = app.live.step.says
            pressed.append(app.live.step.key)
            if pressed[-1] in {"V", "e"} and pressed[-2:-1] == ["4"]:
                await pilot.press("1")
            await pilot.press(pressed[-1])
            if pressed[-1] != "q":
                await until(pilot, partial(says_other, app, before), before)
        await ended(pilot, app)
    assert pressed == KEYS
    check_what_it_showed(app)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_space_plays_it_by_itself(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "READ", 0.1)
    scenario = load_text(SCENARIO, tmp_path / "story.yaml")
    app = FleetApp(lambda: Drill(scenario, runs_dir=tmp_path / "runs", start_node=forked_node))
    async with app.run_test(size=(110, 32)) as pilot:
        await until(pilot, lambda: app.live.step is not None, "the run has begun")
        await pilot.press("space")
        await until(pilot, lambda: "that was the story" in seen(app), "it has played")
        assert not app.live.playing
        await pilot.press("q")
        await ended(pilot, app)
    check_what_it_showed(app)
