"""`snapdrill validate`."""

from __future__ import annotations

import pathlib

import pytest

from sim.cli import main
from sim.record.verdict import ExitCode

GOOD = "name: good\nfleet:\n  - {name: web, memory: 4MiB}\nsteps:\n  - tick: 1\n"


def test_a_right_file_is_ok(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    assert main(["validate", str(tmp_path / "good.yaml")]) == ExitCode.HELD
    assert capsys.readouterr().out == f"{tmp_path}/good.yaml: ok\n"


def test_the_mistakes_of_every_file_are_shown_and_right_ones_are_still_ok(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in {"a": GOOD + "sed: 1\n", "b": GOOD, "c": GOOD.replace("tick", "tik")}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    assert main(["validate", str(tmp_path)]) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path}/b.yaml: ok\n"
    assert shown.err.splitlines() == [
        f'{tmp_path}/a.yaml:6:1: error: sed: unknown key; did you mean "seed"?',
        f'{tmp_path}/c.yaml:5:5: error: steps[0]: unknown step "tik"; did you mean "tick"?',
    ]


def test_each_path_that_is_not_there_is_told(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    names = ["no.yaml", "good.yaml", "nope.yaml"]
    assert main(["validate", *(str(tmp_path / name) for name in names)]) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path}/good.yaml: ok\n"
    assert shown.err.splitlines() == [
        f"{tmp_path}/{name}:1:1: error: cannot be read: No such file or directory" for name in ("no.yaml", "nope.yaml")
    ]


def test_a_folder_without_scenarios_selects_nothing(tmp_path: pathlib.Path) -> None:
    assert main(["validate", str(tmp_path)]) == ExitCode.NOTHING_SELECTED


def test_a_matrix_says_how_many_scenarios_it_is(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.yaml").write_text(GOOD + "seed: ${{ matrix.seed }}\nmatrix: {seed: [1, 2]}\n")
    assert main(["validate", str(tmp_path)]) == ExitCode.HELD
    assert capsys.readouterr().out == f"{tmp_path}/m.yaml: ok (2 scenarios)\n"


def test_a_mistake_of_a_file_that_several_extend_is_told_once(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "base.yaml").write_text(GOOD.replace("tick", "tik"))
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\nextends: shared/base.yaml\n")
    assert main(["validate", str(tmp_path)]) == ExitCode.USAGE
    assert capsys.readouterr().err.splitlines() == [
        f'{tmp_path}/shared/base.yaml:5:5: error: steps[0]: unknown step "tik"; did you mean "tick"?'
    ]
