"""What the fleet screen costs, measured in a process of its own that draws with no terminal."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

from engine.errors import EngineError
from sim.bench.candidates import Bench, Case, Taken
from sim.bench.watch import Watch

_PATIENCE = 60.0
"""Seconds for a measurement of six."""


def fleet_screen(_bench: Bench, _case: Case) -> Taken:
    """`value`: percent of a core that 1,000 sandboxes take at `hz` frames a second; EngineError where it cannot run."""
    with Watch() as watch:
        ran = subprocess.run(
            [sys.executable, "-m", "sim.tui.screen_cost"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
        )
    if ran.returncode != 0:
        said = ran.stderr.strip().splitlines()
        raise EngineError(f"the screen cannot be drawn: {said[-1] if said else f'exit code {ran.returncode}'}")
    found = json.loads(ran.stdout)
    return Taken({"value": found["cpu_percent"], "hz": found["hz"]}, watch.noisy)


def reason_to_leave_out() -> str | None:
    """Why there is no screen on this host; None where there is one."""
    return None if importlib.util.find_spec("textual") else "textual is not installed"
