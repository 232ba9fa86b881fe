"""The scenario in a run's folder: one file that runs on its own, wherever the folder is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sim.files.scenario import Scenario
from sim.files.yaml import parse, scenario_text

GIVEN_FLAGS = "given-flags.json"
"""The flag file as it was before the run; the node has a separate copy, which the run changes."""


def store(scenario: Scenario, path: Path) -> None:
    """Write it to `path`, and its flag file beside it."""
    text = scenario.source_text
    if scenario.flag_file is not None and text:
        shutil.copyfile(scenario.flag_file, path.with_name(GIVEN_FLAGS))
        data = parse(text).data
        data["flags"]["file"] = GIVEN_FLAGS
        text = scenario_text(data, f"{scenario.title}, with the flag file that it was run with beside it.")
    path.write_text(text, encoding="utf-8")


def chosen(scenario: Scenario) -> dict[str, Any]:
    """What was drawn for this scenario, for the first line of the ledger; empty if its file says everything."""
    found = {"matrix": dict(scenario.chosen), "vars": dict(scenario.variables)}
    return {name: values for name, values in found.items() if values}
