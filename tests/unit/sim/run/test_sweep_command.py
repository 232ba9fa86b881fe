from __future__ import annotations

import pathlib

import pytest

from sim.cli import main
from sim.files.faults import CATALOGUE, KINDS
from sim.record.verdict import ExitCode


def test_points_prints_the_catalogue_and_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--points"]) == ExitCode.HELD
    printed = capsys.readouterr().out
    assert [each for each in CATALOGUE if f"\n{each} " not in f"\n{printed}"] == []
    assert [each for each in KINDS.values() if each not in " ".join(printed.split())] == []
    assert max(map(len, printed.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shard", "3/2"], 'such as 2/4, got "3/2"'),
        (["--shard", "0/2"], 'such as 2/4, got "0/2"'),
        (["--shard", "2"], 'such as 2/4, got "2"'),
        (["--budget", "10"], "expected a duration such as 250ms, 3s or 2m"),
        (["--memory", "2GB"], "expected a size such as 32MiB"),
        (["--jobs", "0"], "0 is not in the range x>=1"),
        (["nosuch.yaml"], "nosuch.yaml: no such file or folder"),
    ],
)
def test_a_mistake_in_the_arguments_is_told_and_starts_nothing(
    arguments: list[str], said: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "some.yaml").write_text("name: some\nfleet: []\nsteps: []\n")
    scenario = [] if arguments == ["nosuch.yaml"] else [str(tmp_path / "some.yaml")]
    assert main(["sweep", *arguments, *scenario]) == ExitCode.USAGE
    assert said in capsys.readouterr().err


def test_without_a_scenario_there_is_nothing_to_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep"]) == ExitCode.USAGE
    assert "Missing argument 'SCENARIO...'" in capsys.readouterr().err


def test_every_mistake_of_every_file_is_told_before_anything_runs(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\nfleet: []\nsteps: []\n")
    assert main(["sweep", str(tmp_path), "--runs-dir", str(tmp_path / "runs")]) == ExitCode.USAGE
    printed = capsys.readouterr().err
    assert f"{tmp_path / 'a.yaml'}:2:8: error:" in printed
    assert f"{tmp_path / 'b.yaml'}:2:8: error:" in printed
    assert not (tmp_path / "runs").exists()
