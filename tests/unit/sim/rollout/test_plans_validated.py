from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from sim.cli import main
from sim.files.plan import PLAN_STEPS
from sim.files.schemas import fleet_schema, plan_schema
from sim.record.verdict import ExitCode

SCENARIOS = pathlib.Path(__file__).parents[4] / "scenarios"
PLAN = """\
kind: plan
name: small
fleet: [{name: web, count: 4, memory: 1MiB}]
steps:
  - setWeight: 0
"""
FLEET = """\
kind: fleet
name: ours
node: {memory: 8GiB, sandboxes: 10}
groups: [{name: web, count: 10, memory: 512MiB}]
"""


def validated(capsys: pytest.CaptureFixture[str], *paths: pathlib.Path) -> tuple[int, list[str], list[str]]:
    code = main(["validate", *map(str, paths)])
    told = capsys.readouterr()
    return code, told.out.splitlines(), told.err.splitlines()


def test_plans_and_fleets_are_validated_as_scenarios_are(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fleet.yaml").write_text(FLEET)
    (tmp_path / "plan.yaml").write_text(PLAN)
    assert validated(capsys, tmp_path) == (
        ExitCode.HELD,
        [
            f"{tmp_path}/fleet.yaml: ok",
            f"{tmp_path}/plan.yaml: ok",
            "critic: 1 concern that no go can bear, 2 in all",
            f"  {tmp_path}/plan.yaml: stops: no-metrics: the plan has no metrics: nothing can stop it",
            "      add metrics: corrupted_resumes and lost_because_of_the_flag, both critical, at least",
            f"  {tmp_path}/plan.yaml: note: no-drill: the kill switch is never thrown",
            "      add a drill where a sandbox is exposed",
        ],
        [],
    )


def test_every_mistake_of_every_one_is_told_with_line_and_column(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fleet.yaml").write_text(FLEET.replace("8GiB", "8GB").replace("name: ours", "nam: ours"))
    (tmp_path / "plan.yaml").write_text(PLAN.replace("1MiB", "0MiB") + "  - setWeight: 0\n  - wait: {}\n")
    code, _, told = validated(capsys, tmp_path / "plan.yaml", tmp_path / "fleet.yaml")
    assert code == ExitCode.USAGE
    assert told == [
        f"{tmp_path}/plan.yaml:3:39: error: fleet[0].memory: expected a multiple of 4KiB, got 0B",
        f"{tmp_path}/plan.yaml:6:16: error: steps[1].setWeight: the weight is 0 already; remove this step",
        f"{tmp_path}/plan.yaml:7:11: error: steps[2].wait.for: missing; it is required",
        f"{tmp_path}/fleet.yaml:1:1: error: name: missing; it is required",
        f'{tmp_path}/fleet.yaml:2:1: error: nam: unknown key; did you mean "name"?',
        f'{tmp_path}/fleet.yaml:3:16: error: node.memory: expected a size such as 32MiB, got "8GB"',
    ]


@pytest.mark.parametrize(("what", "made"), [("plan", plan_schema), ("fleet", fleet_schema)])
def test_the_schema_that_shipped_files_name_is_this_versions(
    what: str, made: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schema", what]) == ExitCode.HELD
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(made()))
    path = {"plan": "rollouts/plan", "fleet": "fleets/fleet"}[what]
    shipped = json.loads((SCENARIOS / f"{path}.schema.json").read_text())
    assert shipped == printed, f"it is old: `snapdrill schema {what} > scenarios/{path}.schema.json`"


@pytest.mark.parametrize(("folder", "what"), [("rollouts", "plan"), ("fleets", "fleet")])
def test_every_shipped_plan_and_fleet_tells_editors_its_schema_after_what_it_shows(folder: str, what: str) -> None:
    heads = {
        path.name: path.read_text().partition("\nkind:")[0].splitlines() for path in (SCENARIOS / folder).glob("*.yaml")
    }
    assert heads
    assert {head[-1] for head in heads.values()} == {f"# yaml-language-server: $schema={what}.schema.json"}
    assert min(map(len, heads.values())) > 1


def test_the_schema_of_a_plan_knows_each_step_as_one_key_and_either_kind_of_fleet() -> None:
    schema = plan_schema()
    forms = schema["properties"]["steps"]["items"]["oneOf"]
    assert [each["required"] for each in forms] == [[kind] for kind in PLAN_STEPS]
    assert "minimumContexts" in schema["$defs"]["PlanWait"]["properties"]
    assert {each.get("type") for each in schema["properties"]["fleet"]["anyOf"]} == {"array", "string"}
    assert schema["required"] == ["kind", "name", "fleet", "steps"]
    assert set(_references(schema)) <= {f"#/$defs/{name}" for name in schema["$defs"]}


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from ([schema["$ref"]] if "$ref" in schema else [])
        for each in schema.values():
            yield from _references(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from _references(each)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cluster", "local"], "--cluster goes with --matrix"),
        (["--jobs", "2"], "--jobs goes with --matrix"),
        (["--matrix", "--salvage-arm"], "--salvage-arm does not go with --matrix"),
        (["--matrix", "--cluster", "tcp://nowhere:1", "--jobs", "2"], "--jobs is for this machine"),
    ],
)
def test_what_is_of_the_matrix_alone_is_refused_without_it(
    options: list[str], said: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    assert main(["rehearse", str(tmp_path / "plan.yaml"), *options]) == ExitCode.USAGE
    assert said in capsys.readouterr().err
