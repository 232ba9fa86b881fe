"""The arms of a twin as runs: each has a node, a folder and a verdict of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.errors import UserError
from sim.requirements import free_memory, missing, needed_memory
from sim.runner import RunOptions, run_scenario
from sim.scenario import Scenario
from sim.tui.twin import RunArm
from sim.tui.variants import arm
from sim.view import View

MIB = 1 << 20


def runs_of(scenario: Scenario, runs_dir: Path, seed: int | None) -> RunArm:
    """Arms of this scenario, on its own seed or on this."""

    async def run(view: View, progress: Callable[[str], None], *, punch: bool) -> View:
        made = arm(scenario, view.flags, punch=punch)
        if reason := refusal(made, view):
            raise UserError(reason)
        return (await run_scenario(made, RunOptions(runs_dir, seed), progress)).view

    return run


def refusal(made: Scenario, view: View) -> str | None:
    """Why there is no room for it beside the fleet on screen, which may come to need as much; None where there is."""
    if reason := missing(made):
        return reason
    need, free = needed_memory(made), free_memory()
    growth = max(0, need - view.memory.now)
    if need + growth <= free:
        return None
    return (
        f"it needs {need // MIB} MiB, the fleet on screen may still take {growth // MIB} MiB, and {free // MIB} MiB"
        " are available"
    )
