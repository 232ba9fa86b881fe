"""docs/scenarios.md says what the schema and the catalogues say, and its three scenarios run."""

from __future__ import annotations

import pathlib
import re
from typing import get_args

import pytest

from sim.files.expectations import METRICS, Metric
from sim.files.fleet import PATTERNS, Pattern
from sim.files.lifecycle import MEANING, State
from sim.files.scenario import load_text
from sim.files.steps import STEPS
from sim.report.scenario_reference import MARK, reference

DOCS = pathlib.Path(__file__).parents[4] / "docs"
WRITTEN, _, MADE = (DOCS / "scenarios.md").read_text(encoding="utf-8").partition(f"{MARK}\n\n")
TUTORIAL = re.findall(r"```yaml\n(.*?)```", WRITTEN, re.DOTALL)


def test_the_reference_is_what_snapdrill_schema_reference_prints() -> None:
    assert reference() == MADE, "write docs/scenarios.md again: the part below its mark is `snapdrill schema reference`"


@pytest.mark.parametrize("text", TUTORIAL, ids=["first", "second", "third"])
def test_each_scenario_of_the_tutorial_is_valid(text: str, tmp_path: pathlib.Path) -> None:
    assert load_text(text, tmp_path / "drill.yaml").steps


def test_every_word_that_a_scenario_may_use_has_a_meaning() -> None:
    assert set(PATTERNS) == set(get_args(Pattern))
    assert set(METRICS) == set(get_args(Metric))
    assert set(MEANING) == set(State)


@pytest.mark.parametrize("kind", STEPS)
def test_every_step_has_a_section(kind: str) -> None:
    assert f"### step: {kind}\n" in MADE
