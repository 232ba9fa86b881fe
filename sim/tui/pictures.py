"""The pictures that the README links to: exported from the running app over real sandboxes, into one folder.

`python -m sim.tui.pictures FOLDER`; `make pictures` does it.
"""

from __future__ import annotations

import asyncio
import io
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from rich.console import Console
from rich.text import Text
from textual.app import App
from textual.pilot import Pilot

from engine.errors import UserError
from sim.files.scenario import load_text
from sim.files.shipped import scenario_path
from sim.run.drill import Drill
from sim.tui.app import ShowApp
from sim.tui.fleet_app import FleetApp
from sim.tui.stage_app import StageApp
from sim.tui.stage_beats import BEATS, Beat
from sim.tui.twin import Twin
from sim.tui.twin_runs import runs_of

SIZE, STAGE_SIZE = (120, 36), (84, 14)
"""Cells."""
PATIENCE = 60.0
SHOWN = {"fleet": "1", "sandbox": "1 enter", "flags": "2", "memory": "4"}
"""The keys to each picture of the fleet."""
STORY = ". p f j p j j e p r k k k"
"""Tick; web-0 with the flag off, web-1 with it on; web-3 fails and may not resume; and back to the first."""
HELD = "j j enter h p"
STEPS = 7
"""Then web-2 is paused, held in the middle of its copy; beside it the twin is run."""
PRINTED = {
    "guard": (("run", "scenarios/punched-copy-failure.yaml"), 24),
    "rehearse": (("rehearse", "scenarios/rollouts/punch.yaml"), 33),
}
"""Commands, and how many lines of what they print; run from a source checkout."""


def without_fonts(svg: str) -> str:
    """Fonts come from the reader's machine: a picture fetches nothing."""
    return re.sub(r"@font-face\s*{.*?}", "", svg, flags=re.DOTALL)


async def fleet_pictures(folder: pathlib.Path, runs: pathlib.Path) -> None:
    """One fleet, from four sides."""
    path = scenario_path("demo.yaml")
    scenario = load_text(path.read_text(), path)
    twin = Twin(runs_of(scenario, runs, None))
    app = FleetApp(lambda: Drill(scenario, runs_dir=runs), twin=twin)
    async with app.run_test(size=SIZE) as pilot:
        await _until(pilot, lambda: any(each.state == "running" for each in app.live.view.sandboxes.values()))
        for key in STORY.split():
            await _press(pilot, app, key)
        await pilot.press(*HELD.split())
        for boundary in range(1, STEPS):
            await _until(pilot, lambda at=boundary: _boundaries(app, "web-2") >= at)  # type: ignore[misc]
            await pilot.press("n")
        await pilot.press("escape", "4", "T")
        await _until(pilot, lambda: len(twin.arms) == 2)
        for name, keys in SHOWN.items():
            await pilot.press(*keys.split())
            await pilot.pause(0.5)
            _save(app, folder / f"{name}.svg")
            await pilot.press("1")
        await pilot.press("q")
        await _until(pilot, lambda: not app.is_running)


def _boundaries(app: ShowApp, name: str) -> int:
    """How many the copy has reached."""
    return sum(entry.name == "boundary_reached" and entry.sandbox == name for entry in app.live.view.log)


async def stage_picture(folder: pathlib.Path, runs: pathlib.Path) -> None:
    """The beat whose engine is wrong and is found out."""

    def play(beat: Beat) -> Drill:
        return Drill(load_text(beat.scenario(4, 32), pathlib.Path("stage.yaml")), runs_dir=runs)

    app = StageApp(play)
    app.beat = next(beat for beat in BEATS if beat.verdict == "violated")
    async with app.run_test(size=STAGE_SIZE) as pilot:
        await _until(pilot, lambda: bool(app.live.found))
        await pilot.pause(0.5)
        _save(app, folder / "stage.svg")
        await pilot.press("q")
        await _until(pilot, lambda: not app.is_running)


def report_pictures(folder: pathlib.Path, runs: pathlib.Path) -> None:
    """What commands print, as a terminal shows it: the report of a run, and the first lines of a rehearsal."""
    for name, (words, lines) in PRINTED.items():
        command = [str(pathlib.Path(sys.executable).with_name("snapdrill")), *words, "--runs-dir", str(runs)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        console = Console(record=True, width=100, file=io.StringIO())
        shown = [line for line in run.stdout.splitlines() if str(runs) not in line]
        console.print(Text("\n".join(shown[:lines])), no_wrap=True, overflow="ellipsis")
        title = " ".join(["snapdrill", *words])
        (folder / f"{name}.svg").write_text(without_fonts(console.export_svg(title=title)))


async def _press(pilot: Pilot[None], app: ShowApp, key: str) -> None:
    await pilot.press(key)
    await _until(pilot, lambda: not app.live.is_asked)


async def _until(pilot: Pilot[None], seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not seen():
        if time.monotonic() > deadline:
            raise UserError(f"a picture's scene did not appear within {PATIENCE:g} s: draw it again")
        await pilot.pause(0.05)


def _save(app: App[None], path: pathlib.Path) -> None:
    path.write_text(without_fonts(app.export_screenshot(title="snapdrill", simplify=True)))


async def export(folder: pathlib.Path) -> None:
    """All of them; the folder is there."""
    with tempfile.TemporaryDirectory() as runs:
        await fleet_pictures(folder, pathlib.Path(runs))
        await stage_picture(folder, pathlib.Path(runs))
        report_pictures(folder, pathlib.Path(runs))


if __name__ == "__main__":
    pathlib.Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    asyncio.run(export(pathlib.Path(sys.argv[1])))
