"""Documents as text: what is read back is what was written, and it reads like what people write."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.files.scenario import is_scenario
from sim.files.yaml import parse, scenario_text

SHIPPED = sorted(filter(is_scenario, (pathlib.Path(__file__).parents[4] / "scenarios").rglob("*.yaml")))
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=12)
SCALARS = st.one_of(TEXTS, st.integers(-(10**9), 10**9), st.booleans(), st.none())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(TEXTS, VALUES, min_size=1, max_size=4))
def test_what_is_read_back_is_what_was_written(document: dict[str, Any]) -> None:
    assert parse(scenario_text(document)).data == document


@pytest.mark.parametrize(
    "text", ["1e3", "0o7", "null", "~", "true", "-1", ".5", "a: b", "web-*", "", "#x", "[a]", ".inf"]
)
def test_a_string_stays_a_string(text: str) -> None:
    assert parse(scenario_text({"name": text, "steps": [{text: text}]})).data == {"name": text, "steps": [{text: text}]}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_scenario_survives(path: pathlib.Path) -> None:
    data = parse(path.read_text()).data
    assert parse(scenario_text(data)).data == data


def test_it_reads_like_what_people_write() -> None:
    document = {
        "name": "x",
        "fleet": [{"name": "web", "memory": "8MiB", "workload": {"dirty": "40%"}}],
        "flags": {"memfd-punch-on-snapshot": True},
        "steps": [{"tick": 1}, {"pause": {"sandboxes": "web-*"}}],
    }
    assert scenario_text(document, "What it shows.\n\nMore.").splitlines() == [
        "# What it shows.",
        "#",
        "# More.",
        "name: x",
        "fleet:",
        "  - {name: web, memory: 8MiB, workload: {dirty: 40%}}",
        "flags: {memfd-punch-on-snapshot: true}",
        "steps:",
        "  - tick: 1",
        '  - pause: {sandboxes: "web-*"}',
    ]
