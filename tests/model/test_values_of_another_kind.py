"""A value of a shipped document, replaced by one of another kind, is a mistake with its place, or still valid."""

from __future__ import annotations

import copy
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from engine.errors import UserError
from sim.files.fleet_file import FLEET
from sim.files.loader import Form
from sim.files.plan import PLAN
from sim.files.scenario import SCENARIO
from sim.files.yaml import parse

OTHERS: tuple[Any, ...] = ({}, {"a": [1]}, [], [[1]], None, -1, 1e300, "x", True)
FOLDER = pathlib.Path(__file__).parents[2] / "scenarios"
DOCUMENTS: dict[str, Form[Any]] = {
    "demo.yaml": SCENARIO,
    "matrix.yaml": SCENARIO,
    "swarm/fleet.yaml": SCENARIO,
    "outages/outage-half-open-with-lease.yaml": SCENARIO,
    "rollouts/punch.yaml": PLAN,
    "fleets/example.yaml": FLEET,
}


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    for key, below in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths(below, (*path, key))


def replaced(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """The document with another value at that place; the rest of it is shared."""
    if not path:
        return value
    made = copy.copy(document)
    made[path[0]] = replaced(document[path[0]], path[1:], value)
    return made


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_value_of_another_kind_is_a_mistake_or_valid_and_never_a_defect(name: str) -> None:
    document = parse((FOLDER / name).read_text(encoding="utf-8")).data
    form, path = DOCUMENTS[name], FOLDER / name
    refusals = []
    for place in paths(document):
        for other in OTHERS:
            text = json.dumps(replaced(document, place, other))
            try:
                form.load_all_text(text, path, {})
            except UserError as error:
                refusals.append(str(error))
    assert len(refusals) > 100
    assert [each for each in refusals if not each.startswith(f"{path}:")] == []
