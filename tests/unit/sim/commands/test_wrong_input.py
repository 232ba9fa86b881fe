"""What a user gets wrong ends with one line that says what, where and what to do, never with a traceback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim.cli import main
from sim.record.folder import open_run
from sim.record.verdict import ExitCode

TOO_LONG = "x" * 300
"""A name that no file can have: the kernel refuses to look for it, for root as well."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "scenario.yaml").write_text("name: a\nfleet: [{name: web, memory: 4MiB}]\nsteps: [{tick: 1}]\n")
    (tmp_path / "fleet.yaml").write_text("kind: fleet\nname: a\n")
    yield tmp_path
    assert not (tmp_path / "runs").exists(), "something was started"


@pytest.mark.parametrize(
    "words",
    [
        ["run", TOO_LONG],
        ["sweep", TOO_LONG],
        ["replay", TOO_LONG],
        ["shrink", TOO_LONG],
        ["check", TOO_LONG],
        ["report", TOO_LONG],
        ["diff", TOO_LONG, "empty"],
        ["clean", "--runs-dir", TOO_LONG],
    ],
    ids=lambda words: words[0],
)
def test_a_path_that_cannot_be_looked_for_is_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == ExitCode.USAGE
    assert capsys.readouterr().err == f"snapdrill: {TOO_LONG}: cannot be read: {os.strerror(36)}\n"


def test_a_path_that_cannot_be_looked_for_is_a_mistake_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", TOO_LONG]) == ExitCode.USAGE
    assert capsys.readouterr().err == f"{TOO_LONG}:1:1: error: cannot be read: {os.strerror(36)}\n"


@pytest.mark.parametrize("command", ["run", "sweep", "validate"])
def test_a_folder_without_files_is_named(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "empty"]) == ExitCode.NOTHING_SELECTED
    told = capsys.readouterr().err
    assert told.startswith("snapdrill: nothing selected: no ")
    assert told.endswith(" in empty\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["run", "fleet.yaml"],
            "fleet.yaml:1:7: error: kind: this is a fleet, not a scenario; use: snapdrill forecast ",
        ),
        (
            ["rehearse", "scenario.yaml"],
            "scenario.yaml:1:1: error: kind: this is a scenario, not a plan; use: snapdrill run ",
        ),
        (
            ["rehearse", "fleet.yaml"],
            "fleet.yaml:1:7: error: kind: this is a fleet, not a plan; use: snapdrill forecast ",
        ),
        (
            ["forecast", "scenario.yaml"],
            "scenario.yaml:1:1: error: kind: this is a scenario, not a fleet; use: snapdrill run ",
        ),
    ],
)
def test_a_file_of_another_kind_is_told_with_its_command(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == ExitCode.USAGE
    assert capsys.readouterr().err.splitlines()[0].startswith(told)


@pytest.mark.parametrize(
    "words",
    [["sweep", "scenario.yaml", "--junit", "none/x"], ["bench", "--calibrate", "none/x"]],
    ids=lambda words: words[0],
)
def test_a_file_that_cannot_be_written_is_told_before_anything_starts(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith("snapdrill: none/x: cannot be written: ")


def test_jobs_without_seeds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "scenario.yaml", "--jobs", "2"]) == ExitCode.USAGE
    assert "--jobs goes with --seeds" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["replay", "check", "report", "shrink"])
def test_a_folder_that_is_no_run_is_told(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "empty"]) == ExitCode.USAGE
    wanted = "empty: there is no events.jsonl; give a run folder such as runs/demo/latest"
    assert capsys.readouterr().err == f"snapdrill: {wanted}\n"


def test_a_time_before_the_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "empty", "--at", "-1"]) == ExitCode.USAGE
    assert "-1.0 is not in the range x>=0" in capsys.readouterr().err


def test_a_ledger_without_a_line_is_no_run(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "events.jsonl").touch()
    assert main(["diff", ".", "."]) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith("snapdrill: events.jsonl: it is empty: that run never began")
    with pytest.raises(Exception, match="it is empty"):
        open_run(elsewhere)


def test_on_github_each_mistake_of_a_file_is_an_annotation_at_its_line(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(elsewhere.parent))
    (elsewhere / "scenario.yaml").write_text(
        "name: a\nfleet: [{name: web, memory: 4MiB}]\nstep: []\nsteps: [{tick: 0}]\n"
    )
    for command in ("run", "validate"):
        assert main([command, "scenario.yaml"]) == ExitCode.USAGE
        told = capsys.readouterr().err.splitlines()
        assert told[0].startswith("scenario.yaml:3:1: error: step: unknown key")
        where = f"::error file={elsewhere.name}/scenario.yaml,line=3,col=1,title=invalid file::step: unknown key"
        assert told[2].startswith(where)
