"""The scenarios of docs/scenarios.md hold."""

from __future__ import annotations

import pathlib
import re

import pytest

from sim.files.scenario import load_text
from sim.report.judgements import why
from sim.run.runner import RunOptions, run_scenario
from tests.forked import forked_node

DOCS = pathlib.Path(__file__).parents[2] / "docs"
TUTORIAL = re.findall(r"```yaml\n(.*?)```", (DOCS / "scenarios.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("text", TUTORIAL, ids=["first", "second", "third"])
async def test_a_scenario_of_the_tutorial_holds(text: str, tmp_path: pathlib.Path) -> None:
    scenario = load_text(text, tmp_path / "drill.yaml")
    run = await run_scenario(scenario, RunOptions(runs_dir=tmp_path / "runs", start_node=forked_node))
    assert (run.view.ended and run.view.ended.verdict) == "held", why(run.view)
