"""Flag values in a scenario: of each flag's own type, and every mistake at its place."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from flags.document import DocumentError
from flags.inline import Rollout
from sim.files.scenario import load_text
from sim.files.schemas import json_schema
from sim.files.steps import FlagStep

SCENARIO = """name: values
fleet:
  - {name: web, memory: 4MiB}
flags:
  %s
steps:
  - flag:
      %s
"""
PATH = pathlib.Path("s.yaml")


def parsed(value: str) -> list[Any]:
    """The same value as an inline flag and in a step."""
    scenario = load_text(SCENARIO % (value, value), PATH)
    step = scenario.steps[0]
    assert isinstance(step, FlagStep)
    assert isinstance(scenario.flags, dict)
    return [*scenario.flags.values(), *step.values.values()]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("memfile-diff-dedup: {enabled: true}", {"enabled": True}),
        ("memfile-diff-dedup: {enabled: true, blockFaultPct: 20}", {"enabled": True, "blockFaultPct": 20}),
        ("memfile-diff-dedup: {}", {}),
        ("memfile-diff-dedup: {rollout: 50%}", Rollout(50, "sandbox")),
        (
            "memfile-diff-dedup: {rollout: 5%, by: team, value: {enabled: true, directIO: true}}",
            Rollout(5, "team", {"enabled": True, "directIO": True}),
        ),
        ("use-memfd: false", False),
        ("use-memfd: {rollout: 5%, by: team}", Rollout(5, "team")),
    ],
)
def test_a_value_of_the_flags_type_is_taken(written: str, value: object) -> None:
    assert parsed(written) == [value, value]


@pytest.mark.parametrize(
    ("written", "column", "mistake"),
    [
        ("memfile-diff-dedup: true", 20, "memfile-diff-dedup: expected {enabled: true} or {rollout: 50%}, got true"),
        ("memfile-diff-dedup: [1]", 20, "memfile-diff-dedup: expected {enabled: true} or {rollout: 50%}, got a list"),
        ("memfile-diff-dedup: {enabled: 1}", 30, "memfile-diff-dedup.enabled: expected true or false, got 1"),
        ("memfile-diff-dedup: {enabld: true}", 21, 'memfile-diff-dedup.enabld: unknown key; did you mean "enabled"?'),
        (
            "memfile-diff-dedup: {blockFaultPct: -1}",
            36,
            "memfile-diff-dedup.blockFaultPct: expected at least 0, got -1",
        ),
        (
            "memfile-diff-dedup: {rollout: 5%, value: {enabled: 3}}",
            51,
            "memfile-diff-dedup.value.enabled: expected true or false, got 3",
        ),
        (
            "use-memfd: {rollout: 5%, value: {}}",
            25,
            "use-memfd.value: unknown key; use one of: by, rollout",
        ),
    ],
)
def test_a_value_of_another_type_is_refused_at_its_place(written: str, column: int, mistake: str) -> None:
    with pytest.raises(DocumentError) as error:
        parsed(written)
    assert str(error.value).splitlines() == [
        f"s.yaml:5:{3 + column}: error: flags.{mistake}",
        f"s.yaml:8:{7 + column}: error: steps[0].flag.{mistake}",
    ]


def test_the_schema_for_editors_knows_the_settings() -> None:
    definitions = json_schema()["$defs"].values()
    assert any("maxFetchWindowsPerBlock" in each.get("properties", {}) for each in definitions)
