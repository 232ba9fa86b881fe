from __future__ import annotations

import importlib.util
import subprocess

import pytest

from engine.errors import EngineError
from sim.rollout import bench, bench_calls
from sim.rollout.bench import rows
from sim.rollout.bench_ways import Bench, BenchCase
from sim.tui import screen_cost

FLEET_SCREEN = next(row for row in rows() if row.name == "fleet-screen")


def test_without_a_screen_the_row_is_left_out_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench.reason_to_leave_out(FLEET_SCREEN, 1 << 30, {}, None) is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert bench.reason_to_leave_out(FLEET_SCREEN, 1 << 30, {}, None) == "textual is not installed"


def test_a_screen_that_cannot_be_drawn_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "Traceback ...\nImportError: no textual\n")
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_options: failed)
    with pytest.raises(EngineError, match="the screen cannot be drawn: ImportError: no textual"):
        bench_calls.fleet_screen(Bench(0), BenchCase())


async def test_the_fleet_that_is_drawn_changes_a_tenth_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen_cost, "WARM", 0.1)
    monkeypatch.setattr(screen_cost, "SECONDS", 0.6)
    found = await screen_cost.measure()
    assert found["hz"] > 1
    assert found["cpu_percent"] > 0
    fleet = screen_cost.ChangingFleet()
    before, after = fleet.view().sandboxes, fleet.view().sandboxes
    assert len(after) == 1000
    assert sum(before[name] is not after[name] for name in after) == 100
