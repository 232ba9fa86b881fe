"""`snapdrill flags explain`, `cohort` and the group itself."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import click
import pytest

from flags.inline import Rollout, flag_from
from sim.cli import main
from sim.commands import flags as group
from sim.record.verdict import ExitCode

PUNCH = "memfd-punch-on-snapshot"
FILES = pathlib.Path(__file__).parent / "flag_files"
CLEAN = str(FILES / "clean.json")

LINT_WITHOUT_LINUX = """
import sys
sys.modules["engine.linux"] = None
from sim.cli import main
codes = [main(["flags", *each.split()]) for each in sys.argv[1:]]
sys.exit(sum(codes))
"""


@pytest.fixture
def rollouts(tmp_path: pathlib.Path) -> list[str]:
    """Files with the flag at 0, 1, 10, 50 and 100 %."""
    paths = []
    for percent in (0, 1, 10, 50, 100):
        path = tmp_path / f"{percent}.json"
        path.write_text(json.dumps({"flags": {PUNCH: flag_from(PUNCH, Rollout(percent, "sandbox"))}}))
        paths.append(str(path))
    return paths


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["flags", *arguments]) == ExitCode.HELD
    return capsys.readouterr().out


def test_every_flag_command_says_what_it_is_for() -> None:
    context = click.Context(group.command)
    for name in group.command.list_commands(context):
        command = group.command.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert len((command.help or "").splitlines()[0]) > 20


def test_an_unknown_flag_command_is_a_usage_error() -> None:
    assert main(["flags", "prune"]) == ExitCode.USAGE


def test_flag_files_are_checked_where_there_is_no_linux() -> None:
    commands = [
        f"lint {CLEAN} --kinds all",
        f"explain {CLEAN} --sandbox web-0",
        f"cohort {CLEAN} {CLEAN} --contexts 20",
    ]
    commands += [f"import {CLEAN}"]
    run = subprocess.run(
        [sys.executable, "-c", LINT_WITHOUT_LINUX, *commands], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_an_explanation_tells_value_reason_rule_and_bucket(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "explain", CLEAN, "--sandbox", "web-3", "--context", "team=acme", "--kinds", "all")
    assert out == (FILES / "explained.txt").read_text()


@pytest.mark.parametrize(
    ("context", "sentence"),
    [
        ("team=billing", 'it is a target: team "billing" is listed for variation 1'),
        ("firecracker-version=1.13.1", 'rule 2 matches: sandbox firecracker-version is older than version "1.14.0"'),
        ("template=golden", 'rule 3 matches: in the segment "kept"; it serves false'),
    ],
)
def test_an_explanation_names_the_target_or_rule(
    context: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--context", context, "--kinds", "all", "--flag", PUNCH)
    assert sentence in printed(capsys, "explain", CLEAN, "--sandbox", "web-3", *given)


def test_an_explanation_tells_which_prerequisite_is_not_met(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads((FILES / "clean.json").read_text())
    document["flags"]["punch-allowed"]["on"] = False
    (tmp_path / "f.json").write_text(json.dumps(document))
    out = printed(capsys, "explain", str(tmp_path / "f.json"), "--sandbox", "web-3", "--flag", PUNCH)
    assert 'PREREQUISITE_FAILED, variation 1, version 12\n  - the prerequisite "punch-allowed" is off' in out


def test_an_explanation_shows_the_danger_of_a_missing_kind(
    rollouts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = pathlib.Path(rollouts[0])
    document = json.loads(path.read_text())
    document["flags"][PUNCH]["fallthrough"]["rollout"]["contextKind"] = "team"
    document["flags"][PUNCH]["fallthrough"]["rollout"]["variations"] = [
        {"variation": 1, "weight": 0},
        {"variation": 0, "weight": 100_000},
    ]
    path.write_text(json.dumps(document))
    out = " ".join(printed(capsys, "explain", str(path), "--sandbox", "web-3", "--flag", PUNCH).split())
    assert out.startswith(f"{PUNCH} = false ")
    assert 'no bucket: the context has no kind "team"; production\'s SDK (Go) takes bucket 0, in entry 2' in out
    assert "Python's SDK serves true instead" in out
    assert "a following node serves the safe value (UNSAFE_FLAG): " in out


def test_an_explanation_as_json_has_the_bucket_as_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(printed(capsys, "explain", CLEAN, "--sandbox", "web-3", "--flag", PUNCH, "--json"))
    (row,) = document["flags"]
    assert 0 <= row["landing"]["low"] <= row["landing"]["bucket"] < row["landing"]["high"] <= 1


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("tema=acme", 'did you mean "team"'),
        ("team", "write NAME=VALUE or KIND.NAME=VALUE"),
        ("sandbox=x", "say it with --sandbox"),
        ("sandbox.cpus:=four", "after := comes JSON"),
    ],
)
def test_an_unknown_attribute_is_refused(given: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flags", "explain", CLEAN, "--sandbox", "web-0", "--context", given]) == ExitCode.USAGE
    assert hint in capsys.readouterr().err


def test_what_launchdarkly_would_refuse_is_named_and_off(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f.json").write_text('{"flags": []}')
    assert main(["flags", "explain", str(tmp_path / "f.json"), "--sandbox", "web-0"]) == ExitCode.HELD
    assert 'LaunchDarkly refuses "flags": it is not an object' in capsys.readouterr().err


def test_a_step_of_a_rollout_is_told_as_who_joins_and_who_leaves(
    rollouts: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(pathlib.Path(rollouts[0]).parent)
    out = printed(capsys, "cohort", "10.json", "50.json", "--contexts", "1000")
    assert out == (FILES / "step.txt").read_text()


def test_what_pythons_sdk_serves_otherwise_is_counted_beside_the_cohort(
    tmp_path: pathlib.Path, rollouts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(pathlib.Path(rollouts[0]).read_text())
    (flag,) = document["flags"].values()
    entries = [{"variation": 1, "weight": 0}, {"variation": 0, "weight": 100_000}]
    flag["fallthrough"] = {"rollout": {"contextKind": "team", "variations": entries}}
    (tmp_path / "team.json").write_text(json.dumps(document))
    files = (rollouts[0], str(tmp_path / "team.json"))
    said = "counted as Go's SDK serves; Python's serves something else to 20 sandboxes in B, and so may others"
    assert said in " ".join(printed(capsys, "cohort", *files, "--contexts", "20").split())
    found = json.loads(printed(capsys, "cohort", *files, "--contexts", "20", "--json"))
    assert found["python_differs"] == {"before": 0, "after": 20}


def test_a_step_back_is_no_superset_and_can_end_with_1(rollouts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "not a superset: " in printed(capsys, "cohort", rollouts[3], rollouts[2], "--contexts", "200")
    assert main(["flags", "cohort", rollouts[3], rollouts[2], "--contexts", "200", "--superset"]) == ExitCode.VIOLATED
    assert main(["flags", "cohort", rollouts[2], rollouts[3], "--contexts", "200", "--superset"]) == ExitCode.HELD


def test_your_fleet_is_counted_in_gib(
    tmp_path: pathlib.Path, rollouts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["sandbox,team,template,memory", *(f"web-{n},acme,python,{n + 1}GiB" for n in range(4))]
    (tmp_path / "fleet.csv").write_text("\n".join(rows))
    out = printed(capsys, "cohort", rollouts[0], rollouts[4], "--contexts-from", str(tmp_path / "fleet.csv"))
    assert "joins" in out
    assert ["joins", "4", "100.00", "%", "1", "10.0", "GiB", "100.00", "%"] in [
        line.split() for line in out.splitlines()
    ]


def test_a_cohort_as_json_has_every_name(rollouts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    document: dict[str, Any] = json.loads(
        printed(capsys, "cohort", rollouts[0], rollouts[4], "--contexts", "30", "--json")
    )
    assert document["superset"] is True
    assert document["fleet"] == {"sandboxes": 30, "memory": None}
    assert document["joins"]["sandboxes"] == [f"sandbox-{n}" for n in range(30)]


def test_a_column_that_the_flag_reads_and_the_table_lacks_is_a_warning_and_numbers_are_printed(
    tmp_path: pathlib.Path, rollouts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(pathlib.Path(rollouts[0]).read_text())
    (flag,) = document["flags"].values()
    clause = {"contextKind": "sandbox", "attribute": "kernel-version", "op": "in", "values": ["6.1.158"]}
    flag["rules"] = [{"id": "kernel", "variation": 1, "clauses": [clause]}]
    (tmp_path / "rule.json").write_text(json.dumps(document))
    (tmp_path / "fleet.csv").write_text("sandbox,team,template,temlate\nweb-0,acme,python,x\nweb-1,acme,python,x\n")
    asked = ("cohort", rollouts[0], str(tmp_path / "rule.json"), "--contexts-from", str(tmp_path / "fleet.csv"))
    found = json.loads(printed(capsys, *asked, "--json"))
    assert found["warnings"] == [
        f"{PUNCH} reads kernel-version (rule kernel); the table has no such column: absent everywhere"
    ]
    assert found["after"]["sandboxes"] == []  # no version of its own making lets a sandbox in
    assert "reads kernel-version (rule kernel)" in " ".join(printed(capsys, *asked).split())
