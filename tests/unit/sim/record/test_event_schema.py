"""The published schema is the code's own, and every name in the mapping exists."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import typing

import pytest

from engine.pause import Outcome
from engine.plan import Path
from sim import cli
from sim.files import schemas
from sim.files.scenario import is_scenario
from sim.files.schemas import json_schema
from sim.record import schema
from sim.record.ledger import EVENT_TYPES
from sim.record.schema import CHOICES, TRACE_NAMES
from sim.record.verdict import ExitCode

SCENARIOS = pathlib.Path(__file__).parents[4] / "scenarios"


@pytest.mark.parametrize("name", sorted(EVENT_TYPES))
def test_every_event_is_published_with_its_fields_and_its_sentence(name: str) -> None:
    kind, published = EVENT_TYPES[name], schema.json_schema()["$defs"][name]
    fields = dataclasses.fields(kind)
    assert set(published["properties"]) == {"t", "event", "sandbox", "pause"} | {each.name for each in fields}
    needed = {
        each.name
        for each in fields
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    }
    assert set(published["required"]) == {"t", "event"} | needed
    assert published["description"].split()[0] in (kind.__doc__ or "")
    assert published["properties"]["event"] == {"const": name}


def test_what_is_a_choice_is_published_as_one_and_is_the_engines_own() -> None:
    assert set(CHOICES["planned", "path"]) == set(Path)
    assert set(CHOICES["pause_settled", "outcome"]) == {*Outcome, "refused"}
    outcome = schema.json_schema()["$defs"]["pause_settled"]["properties"]["outcome"]
    assert outcome == {"enum": ["finished", "rolled-back", "discarded", "refused"]}
    for name, field in CHOICES:
        assert field in typing.get_type_hints(EVENT_TYPES[name])


def test_every_name_of_the_original_is_mapped_to_an_event_and_a_field_that_exist() -> None:
    for each in TRACE_NAMES:
        assert each.event in EVENT_TYPES, each
        known = {field.name for field in dataclasses.fields(EVENT_TYPES[each.event])}
        assert each.field is None or each.field in known, each


def test_every_event_with_a_place_in_the_mapping_is_there_once_for_each_name_and_field() -> None:
    rows = [(each.original, each.event, each.field) for each in TRACE_NAMES]
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize("what", ["events", "scenario", "trace-names"])
def test_each_schema_is_printed_as_json(capsys: pytest.CaptureFixture[str], what: str) -> None:
    assert cli.main(["schema", what]) == ExitCode.HELD
    printed = json.loads(capsys.readouterr().out)
    expected = {
        "events": schema.json_schema(),
        "scenario": json_schema(),
        "trace-names": schema.trace_names(),
    }
    assert printed == json.loads(json.dumps(expected[what]))
    if what != "trace-names":
        assert printed["$schema"] == schemas.DRAFT


def test_an_unknown_schema_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema", "evnts"]) == ExitCode.USAGE
    assert "'events', 'scenario', 'trace-names'" in capsys.readouterr().err


def test_the_schema_that_the_shipped_scenarios_name_is_this_versions() -> None:
    shipped = json.loads((SCENARIOS / "scenario.schema.json").read_text())
    assert shipped == json.loads(json.dumps(json_schema())), (
        "scenarios/scenario.schema.json is old: `snapdrill schema scenario > scenarios/scenario.schema.json`"
    )


@pytest.mark.parametrize("path", sorted(filter(is_scenario, SCENARIOS.rglob("*.yaml"))), ids=lambda path: path.stem)
def test_every_shipped_scenario_tells_editors_its_schema_after_what_it_shows(path: pathlib.Path) -> None:
    head = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        head.append(line)
    assert head[-1:] == [
        f"# yaml-language-server: $schema={'../' * (len(path.relative_to(SCENARIOS).parts) - 1)}scenario.schema.json"
    ]
    assert len(head) > 1
    assert "yaml-language-server" not in head[0]
