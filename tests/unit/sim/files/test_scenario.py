"""What a scenario file becomes."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.errors import UserError
from flags.inline import Rollout
from sim.files.counts import Comparison
from sim.files.expectations import MetricExpectation
from sim.files.faults import AtChunk, chunk_index
from sim.files.fleet import Group
from sim.files.scenario import Scenario, discover, is_scenario, load_all, load_text
from sim.files.schemas import json_schema
from sim.files.steps import (
    CrashPoint,
    FlagStep,
    Inject,
    PauseStep,
    Resume,
    StateExpectation,
    Step,
    Tick,
    Wait,
)

SHIPPED = sorted(filter(is_scenario, (pathlib.Path(__file__).parents[4] / "scenarios").rglob("*.yaml")))
SMALLEST = """
name: smallest
fleet:
  - {name: web, memory: 4MiB}
steps:
  - tick: 1
"""


def scenario(more: str = "") -> Scenario:
    return load_text(SMALLEST.lstrip() + more, pathlib.Path("smallest.yaml"))


def step(text: str) -> Step:
    return scenario(f"  - {text}\n").steps[-1]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_scenario_is_valid_and_is_named_like_its_file(path: pathlib.Path) -> None:
    assert {each.title.partition("[")[0] for each in load_all(path)} == {path.stem}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_scenario_opens_with_what_it_shows_and_is_small(path: pathlib.Path) -> None:
    assert path.read_text().startswith("# ")
    for each in load_all(path):
        most = 1 << 30 if path.parent.name == "large" else 256 << 20
        assert sum(sandbox.memory for sandbox in each.sandboxes()) <= most


def test_the_readme_has_every_shipped_scenario() -> None:
    readme = (pathlib.Path(__file__).parents[4] / "scenarios" / "README.md").read_text()
    assert [path.name for path in SHIPPED if f"{path.name}`" not in readme] == []


def test_only_name_fleet_and_steps_are_required() -> None:
    loaded = scenario()
    assert (loaded.seed, loaded.node.memory, loaded.node.cache) == (0, 1 << 30, "disk")
    assert (loaded.engine.mutant, loaded.requires, loaded.expect, dict(loaded.flags)) == (None, (), (), {})


def test_sandboxes_are_named_by_group_and_index_in_order() -> None:
    text = SMALLEST + "  - tick: 1\n"
    two = text.replace(
        "steps:", "  - {name: api, count: 2, memory: 4MiB, page_size: 2MiB, block_size: 4KiB, team: b}\nsteps:"
    )
    sandboxes = load_text(two, pathlib.Path("two.yaml")).sandboxes()
    assert [sandbox.name for sandbox in sandboxes] == ["web-0", "api-0", "api-1"]
    assert [(sandbox.page_size, sandbox.block_size) for sandbox in sandboxes[:2]] == [(4096, 4096), (2 << 20, 4096)]
    assert [sandbox.team for sandbox in sandboxes] == ["default", "b", "b"]


def test_blocks_are_as_large_as_pages_unless_they_are_given() -> None:
    text = SMALLEST.replace("4MiB", "4MiB, page_size: 2MiB")
    assert load_text(text, pathlib.Path("x.yaml")).sandboxes()[0].block_size == 2 << 20


def test_a_step_is_typed_by_its_key() -> None:
    assert step("tick: 3") == Tick(ticks=3)
    assert step("wait: 250ms") == Wait(seconds=0.25)
    assert step("pause: {until: returned, deadline: 2m}") == PauseStep(until="returned", deadline=120.0)
    assert step("resume: {}") == Resume(state="paused")
    assert step("clear: {}").kind == "clear"


def test_a_flag_takes_a_boolean_or_a_rollout() -> None:
    values = step("flag: {memfd-punch-on-snapshot: {rollout: 2.5%, by: team}, memfd-background-copy: false}")
    assert isinstance(values, FlagStep)
    assert values.values == {"memfd-punch-on-snapshot": Rollout(2.5, "team"), "memfd-background-copy": False}


def test_a_crash_is_at_once_or_at_a_fault_point() -> None:
    assert getattr(step("crash: {}"), "at", "none") is None
    armed = step('crash: {at: {fault: copy.write, chunk: 2}, sandboxes: "web-0"}')
    assert getattr(armed, "at", None) == CrashPoint(fault="copy.write", chunk=2)


@pytest.mark.parametrize(
    ("written", "index"),
    [("{chunk: 3}", 3), ("first", 0), ("last", 15), ("50%", 8), ("100%", 15), ("0%", 0), ("after_condemn", 1)],
)
def test_a_fault_s_place_is_a_chunk_of_the_plan(written: str, index: int) -> None:
    inject = step(f"inject: {{fault: copy.write, at: {written}}}")
    assert isinstance(inject, Inject)
    assert chunk_index(inject.at, 16) == index


def test_an_index_past_the_plan_is_kept_so_that_it_never_fires() -> None:
    assert chunk_index(AtChunk(chunk=99), 16) == 99


@given(st.integers(0, 50), st.integers(0, 50))
def test_comparisons_hold_as_in_arithmetic(count: int, number: int) -> None:
    held = {sign for sign in (">=", "<=", "==", "!=", ">", "<") if Comparison(sign, number).holds(count)}
    assert (">=" in held, "<" in held, "==" in held) == (count >= number, count < number, count == number)
    assert ("<=" in held, ">" in held, "!=" in held) == (count <= number, count > number, count != number)


def test_one_state_or_a_list_and_counts_with_or_without_a_sign() -> None:
    expected = scenario('expect:\n  - {state: running, counts: {running: 3, paused: "<2", killed: ">= 1"}}\n').expect[0]
    assert isinstance(expected, StateExpectation)
    assert expected.state == ("running",)
    assert expected.counts is not None
    assert [str(count) for count in expected.counts.values()] == ["==3", "<2", ">=1"]


def test_a_bound_of_a_metric_in_bytes_may_be_a_size() -> None:
    bound = scenario("expect:\n  - {metric: peak_over, where: {punch: true}, max: 8MiB}\n").expect[0]
    assert isinstance(bound, MetricExpectation)
    assert (bound.max, bound.min, bound.where.punch, bound.where.sandboxes) == (8 << 20, None, True, "*")


def test_the_place_of_each_step_and_expectation_is_kept() -> None:
    loaded = scenario("  - pause: {state: running}\nexpect:\n  - {metric: copy_ms, max: 3}\n")
    assert loaded.where(("steps", 1)) == (6, 5)
    assert loaded.where(("steps", 1, "pause", "state")) == (6, 20)
    assert loaded.where(("expect", 0, "max")) == (8, 28)
    assert loaded.path == pathlib.Path("smallest.yaml")
    assert loaded.source_text.startswith("name: smallest\n")


def test_another_seed_keeps_the_places() -> None:
    changed = scenario().model_copy(update={"seed": 9})
    assert (changed.seed, changed.where(("steps", 0))) == (9, (5, 5))


def test_a_scenario_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        scenario().seed = 3  # type: ignore[misc]


def test_a_scenario_made_in_code_takes_plain_numbers() -> None:
    made = Scenario(name="made", fleet=(Group(name="web", memory=4 << 20),), steps=(Wait(seconds=3.0), PauseStep()))
    assert made.sandboxes()[0].memory == 4 << 20
    assert made.where(("steps", 0)) == (1, 1)


def test_folders_stand_for_their_scenarios_but_not_for_plans(tmp_path: pathlib.Path) -> None:
    for name, text in {
        "b.yaml": "name: b",
        "a.yaml": "name: [",
        "plan.yaml": "kind: plan",
        ".c.yaml": "",
        "d.txt": "",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "e.yaml").write_text("name: e")
    assert discover([tmp_path]) == [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    assert discover([tmp_path / "plan.yaml", tmp_path / "b.yaml", tmp_path])[:2] == [
        tmp_path / "plan.yaml",
        tmp_path / "b.yaml",
    ]
    assert len(discover([tmp_path, tmp_path])) == 2


def test_a_path_that_is_not_there_is_an_error_of_the_user(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        discover([tmp_path / "nope"])


def test_the_json_schema_takes_units_as_text_and_steps_as_one_key() -> None:
    schema = json_schema()
    json.dumps(schema)
    memory, reference = schema["$defs"]["Group"]["properties"]["memory"]["anyOf"]
    assert memory["pattern"] == "^([0-9]+)(KiB|MiB|GiB)$"
    assert reference == {"$ref": "#/$defs/Reference"}
    assert schema["$defs"]["Workload"]["properties"]["dirty"]["anyOf"][0]["type"] == "string"
    forms: list[dict[str, Any]] = schema["properties"]["steps"]["items"]["oneOf"]
    by_key = {form["required"][0]: form["properties"] for form in forms}
    assert by_key["pause"] == {"pause": {"$ref": "#/$defs/PauseStep"}}
    assert by_key["tick"]["tick"]["anyOf"][0]["type"] == "integer"
    assert "kind" not in schema["$defs"]["PauseStep"]["properties"]


def test_every_reference_of_the_json_schema_is_defined() -> None:
    text = json.dumps(json_schema())
    used = {part.partition('"')[0] for part in text.split('"#/$defs/')[1:]}
    assert used <= json_schema()["$defs"].keys()


def test_the_json_schema_takes_a_file_that_extends_another_and_no_reference_in_what_declares_them() -> None:
    schema = json_schema()
    assert (schema["required"], schema["anyOf"]) == (
        ["name"],
        [{"required": ["name", "fleet", "steps"]}, {"required": ["name", "extends"]}],
    )
    for part in (schema["properties"]["vars"], schema["$defs"]["Matrix"], schema["properties"]["extends"]):
        assert "Reference" not in json.dumps(part)
