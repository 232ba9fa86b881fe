"""`snapdrill init`."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess

import pytest
import yaml

from sim.cli import main
from sim.files.ci_workflows import FILL_IN, PATHS, SERVICES, Service
from sim.files.flag_values import FlagFile
from sim.files.scenario import discover, load
from sim.files.schemas import json_schema
from sim.record.verdict import ExitCode

GITHUB = ".github/workflows/snapdrill.yml"
NAMES = ["drill.yaml", "flags.json", "scenario.schema.json", GITHUB]


@pytest.fixture
def empty(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_empty_folder_becomes_one_valid_scenario_with_a_flag_file(empty: pathlib.Path) -> None:
    assert main(["init"]) == ExitCode.HELD
    assert discover([empty]) == [empty / "drill.yaml"]
    assert load(empty / "drill.yaml").flags == FlagFile(file="flags.json")


def test_the_flag_file_rolls_out_to_half_of_the_sandboxes_and_lists_the_safe_value_first(empty: pathlib.Path) -> None:
    main(["init", str(empty)])
    punch = json.loads((empty / "flags.json").read_text())["flags"]["memfd-punch-on-snapshot"]
    assert (punch["variations"], punch["offVariation"]) == ([False, True], 0)
    weights = [(entry["variation"], entry["weight"]) for entry in punch["fallthrough"]["rollout"]["variations"]]
    assert weights == [(0, 50_000), (1, 50_000)]
    assert punch["fallthrough"]["rollout"]["contextKind"] == "sandbox"


def test_the_schema_beside_it_is_the_one_that_the_scenario_names(empty: pathlib.Path) -> None:
    main(["init"])
    named = re.search(r"\$schema=(\S+)", (empty / "drill.yaml").read_text())
    assert named is not None
    assert json.loads((empty / named[1]).read_text()) == json_schema()


def test_a_github_workflow_installs_what_was_given_and_uploads_its_results(empty: pathlib.Path) -> None:
    assert main(["init", "--ci", "github", "--from", "git+https://example.org/a/snapdrill@1"]) == ExitCode.HELD
    job = yaml.safe_load((empty / GITHUB).read_text())["jobs"]["drill"]
    assert job["env"] == {"SNAPDRILL": "git+https://example.org/a/snapdrill@1"}
    assert {"run": "snapdrill run . --junit snapdrill.xml"} in job["steps"]
    assert job["steps"][-1]["with"]["path"].split() == ["snapdrill.xml", "runs/"]
    assert job["steps"][-1]["if"] == "always()"
    assert job["timeout-minutes"] == 15


def test_a_gitlab_file_shows_its_results_in_the_merge_request(empty: pathlib.Path) -> None:
    assert main(["init", "--ci", "gitlab"]) == ExitCode.HELD
    job = yaml.safe_load((empty / ".gitlab-ci.yml").read_text())["drill"]
    assert job["artifacts"]["reports"] == {"junit": "snapdrill.xml"}
    assert job["timeout"] == "15 minutes"
    assert job["script"][-1] == "snapdrill run . --junit snapdrill.xml"
    assert {type(line) for line in job["script"]} == {str}


def test_a_jenkinsfile_asks_for_the_strict_format(empty: pathlib.Path) -> None:
    assert main(["init", "--ci", "jenkins", "--from", "https://example.org/it's.whl"]) == ExitCode.HELD
    text = (empty / "Jenkinsfile").read_text()
    assert "--junit-family xunit2" in text
    assert "SNAPDRILL = 'https://example.org/it\\'s.whl'" in text
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize("service", SERVICES)
def test_without_a_source_nothing_that_anybody_may_register_is_installed(
    service: Service, empty: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "--ci", service]) == ExitCode.HELD
    text = (empty / PATHS[service]).read_text()
    assert "install snapdrill\n" not in text.replace("name: install snapdrill\n", "")
    assert FILL_IN in text
    assert "fill in SNAPDRILL" in capsys.readouterr().out
    guard = next(line.strip().removeprefix("- ") for line in text.splitlines() if "test -n" in line)
    refused = subprocess.run(["sh", "-c", guard], env={"SNAPDRILL": ""}, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout.strip()) == (2, FILL_IN)


def test_a_workflow_goes_to_the_top_of_the_repository_and_names_the_folder_and_the_wheel_from_there(
    empty: pathlib.Path,
) -> None:
    (empty / ".git").mkdir()
    (empty / "tools").mkdir()
    (empty / "tools" / "snapdrill.whl").write_bytes(b"")
    assert main(["init", "a/drills", "--ci", "github", "--from", "tools/snapdrill.whl"]) == ExitCode.HELD
    job = yaml.safe_load((empty / GITHUB).read_text())["jobs"]["drill"]
    assert job["env"] == {"SNAPDRILL": "./tools/snapdrill.whl"}
    assert {"run": "snapdrill run a/drills --junit snapdrill.xml"} in job["steps"]


def test_a_wheel_outside_of_the_repository_is_refused(empty: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (empty / "inside" / ".git").mkdir(parents=True)
    assert main(["init", "inside", "--ci", "github", "--from", "snapdrill.whl"]) == ExitCode.USAGE
    assert "the wheel is not in the repository" in capsys.readouterr().err
    assert not (empty / "inside" / "drill.yaml").exists()


def test_a_source_without_a_service_is_refused(empty: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--from", "x.whl"]) == ExitCode.USAGE
    assert "--from goes with --ci" in capsys.readouterr().err
    assert not (empty / "drill.yaml").exists()


def test_a_folder_that_is_not_there_yet_is_made(empty: pathlib.Path) -> None:
    assert main(["init", "new/er", "--ci", "github"]) == ExitCode.HELD
    assert sorted(
        str(path.relative_to(empty / "new/er")) for path in (empty / "new/er").rglob("*") if path.is_file()
    ) == sorted([*NAMES, ".gitignore"])


def test_a_gitignore_that_exists_is_left_alone_and_what_belongs_there_is_said(
    empty: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty / ".gitignore").write_text("mine\n")
    assert main(["init"]) == ExitCode.HELD
    assert (empty / ".gitignore").read_text() == "mine\n"
    assert "add to .gitignore: runs/ and snapdrill.xml" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_where_one_file_exists_it_is_named_and_none_is_written(
    name: str, empty: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty / name).parent.mkdir(parents=True, exist_ok=True)
    (empty / name).write_text("mine")
    assert main(["init", "--ci", "github"]) == ExitCode.USAGE
    assert (
        capsys.readouterr().err == f"snapdrill: {name}: already there, so nothing was written; choose another folder\n"
    )
    assert [path for path in NAMES if (empty / path).exists()] == [name]
    assert (empty / name).read_text() == "mine"


def test_a_dangling_link_counts_as_a_file_that_exists(empty: pathlib.Path) -> None:
    (empty / "flags.json").symlink_to("nowhere")
    assert main(["init"]) == ExitCode.USAGE
    assert not (empty / "drill.yaml").exists()


def test_a_folder_that_cannot_be_made_is_one_clear_line(
    empty: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty / "file").write_text("")
    assert main(["init", "file/below"]) == ExitCode.USAGE
    assert "cannot be written: Not a directory" in capsys.readouterr().err
