"""`snapdrill init`."""

from __future__ import annotations

import json
import pathlib

import pytest
import yaml

from sim.cli import main
from sim.files.flag_values import FlagFile
from sim.files.scenario import discover, load
from sim.record.verdict import ExitCode

NAMES = ["drill.yaml", "flags.json", ".github/workflows/snapdrill.yml"]


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


def test_the_workflow_runs_the_folder_and_keeps_its_runs(empty: pathlib.Path) -> None:
    main(["init"])
    steps = yaml.safe_load((empty / NAMES[2]).read_text())["jobs"]["drill"]["steps"]
    assert {"run": "snapdrill run drill.yaml"} in steps
    assert steps[-1]["with"]["path"] == "runs/"
    assert steps[-1]["if"] == "always()"


def test_a_folder_that_is_not_there_yet_is_made(empty: pathlib.Path) -> None:
    assert main(["init", "new/er"]) == ExitCode.HELD
    assert sorted(
        str(path.relative_to(empty / "new/er")) for path in (empty / "new/er").rglob("*") if path.is_file()
    ) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_where_one_file_exists_it_is_named_and_none_is_written(
    name: str, empty: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty / name).parent.mkdir(parents=True, exist_ok=True)
    (empty / name).write_text("mine")
    assert main(["init"]) == ExitCode.USAGE
    assert capsys.readouterr().err == f"snapdrill: {name}: there already; nothing was written\n"
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
