"""What a process has loaded when it forks or begins: a guest's fork pays for it, and the start of every node."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOADED = """
import importlib, sys
importlib.import_module(sys.argv[1])
print(*sys.modules, sep=chr(10))
"""
OF_OTHERS = {
    "sim.run.pool_worker": {
        "asyncio",
        "engine.pause",
        "flags",
        "multiprocessing",
        "numpy",
        "pydantic",
        "sim.node.node",
        "ssl",
    },
    "sim.node.process": {"pydantic", "sim.node.wrong_pauses", "sim.files.scenario", "sim.record.view", "yaml"},
}


@pytest.mark.parametrize(
    ("module", "used"), [("sim.run.pool_worker", "sim.node.guest"), ("sim.node.process", "sim.node.pausing")]
)
def test_no_module_is_loaded_that_only_other_processes_need(module: str, used: str) -> None:
    command = [sys.executable, "-c", LOADED, module]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert used in loaded
    assert loaded.isdisjoint(OF_OTHERS[module])
