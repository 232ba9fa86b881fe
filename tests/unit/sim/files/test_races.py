"""Races between a pause that is not waited for and the step that disarms its fault."""

from __future__ import annotations

import pathlib

import pytest

from sim.files.races import races
from sim.files.scenario import load_text

HEAD = "version: 1\nname: x\nfleet: [{name: web, memory: 4MiB}]\nsteps:\n"
INJECT = "  - inject: {fault: copy.write, delay: 50ms, at: last}\n"
LOOSE = "  - pause: {until: returned}\n"


@pytest.mark.parametrize(
    ("steps", "places"),
    [
        (INJECT + LOOSE + "  - clear: {}\n", [7]),
        (INJECT + LOOSE + "  - resume: {}\n  - clear: {}\n", [8]),
        (INJECT + "  - pause: {}\n  - clear: {}\n", []),
        (LOOSE + "  - clear: {}\n", []),
        (INJECT + LOOSE, []),
        (INJECT + LOOSE + "  - clear: {}\n  - clear: {}\n", [7]),
    ],
)
def test_a_step_that_may_disarm_a_fault_too_early_is_named(
    steps: str, places: list[int], tmp_path: pathlib.Path
) -> None:
    found = list(races(load_text(HEAD + steps, tmp_path / "x.yaml")))
    assert [each.position.line for each in found] == places
    assert {each.severity for each in found} <= {"warning"}


def test_a_race_names_both_steps_and_what_to_do(tmp_path: pathlib.Path) -> None:
    (found,) = races(load_text(HEAD + INJECT + LOOSE + "  - clear: {}\n", tmp_path / "x.yaml"))
    assert "the fault of line 5" in found.text
    assert "the pause of line 6" in found.text
    assert found.hint == "leave `until: returned` out there"
