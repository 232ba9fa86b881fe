"""The screen on a real run: real guests, a real discard, and a resume that is refused."""

from __future__ import annotations

import pathlib
import time

from sim.drill import Drill
from sim.scenario import load_text
from sim.tui.app import FleetApp
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
    app = FleetApp(lambda: Drill(scenario, runs_dir=tmp_path / "runs"))
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
