"""`snapdrill clean`: which runs it takes for dead, what it says, and that it forgets nothing that remains."""

from __future__ import annotations

import os
import pathlib
import uuid
from dataclasses import replace

import pytest

from engine.incarnation import start_time_of
from sim import cli
from sim.record import folder as run_folder
from sim.record.folder import RunRecord
from sim.record.verdict import ExitCode


def run_in(runs: pathlib.Path, name: str, *, runner_lives: bool = False, ended: bool = False) -> RunRecord:
    """A run folder with its record and a cache that was left."""
    folder = runs / name / "20260102T030405Z-1"
    cache = folder / "cache"
    cache.mkdir(parents=True)
    (folder.parent / "latest").symlink_to(folder.name)
    start = start_time_of(os.getpid())
    assert start is not None
    began = start if runner_lives else start + 1
    nobody = None, None, None, None
    record = RunRecord(uuid.uuid4().hex, os.getpid(), began, *nobody, str(cache), str(cache), None, ended)
    run_folder.write_record(folder, record)
    return record


def test_a_run_whose_runner_is_dead_is_ended_once(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = run_in(tmp_path, "demo")
    assert cli.main(["clean", "--runs-dir", str(tmp_path)]) == ExitCode.HELD
    folder = tmp_path / "demo" / "20260102T030405Z-1"
    assert capsys.readouterr().out == f"{folder}: ended cache folder {record.cache_dir}\n"
    assert run_folder.read_record(folder).ended
    assert cli.main(["clean", "--runs-dir", str(tmp_path)]) == ExitCode.HELD
    assert capsys.readouterr().out == f"nothing to clean in {tmp_path}\n"


def test_a_spill_goes_with_its_run_where_its_name_says_whose_it_is(tmp_path: pathlib.Path) -> None:
    record = run_in(tmp_path, "demo")
    own, other = tmp_path / f"snapdrill-{record.run}-spill", tmp_path / "another"
    for spill in (own, other):
        spill.mkdir()
        run_folder.write_record(next((tmp_path / "demo").glob("2*")), replace(record, spill_dir=str(spill)))
        assert cli.main(["clean", "--runs-dir", str(tmp_path)]) == ExitCode.HELD
    assert not own.exists()
    assert other.is_dir()


def test_a_run_whose_runner_lives_is_never_touched(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = run_in(tmp_path, "demo", runner_lives=True)
    assert cli.main(["clean", "--runs-dir", str(tmp_path)]) == ExitCode.HELD
    assert capsys.readouterr().out.startswith("nothing to clean")
    assert pathlib.Path(record.cache_dir).is_dir()


def test_a_run_that_ended_is_left_as_it_is(tmp_path: pathlib.Path) -> None:
    record = run_in(tmp_path, "demo", ended=True)
    assert cli.main(["clean", "--runs-dir", str(tmp_path)]) == ExitCode.HELD
    assert pathlib.Path(record.cache_dir).is_dir()


def test_a_dry_run_says_what_would_go_and_changes_nothing(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run_in(tmp_path, "demo")
    assert cli.main(["clean", "--runs-dir", str(tmp_path), "--dry-run"]) == ExitCode.HELD
    assert f"would end cache folder {record.cache_dir}" in capsys.readouterr().out
    assert pathlib.Path(record.cache_dir).is_dir()
    assert not run_folder.read_record(tmp_path / "demo" / "20260102T030405Z-1").ended


def test_one_broken_record_does_not_keep_the_others_from_being_cleaned(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_in(tmp_path, "a-broken")
    (tmp_path / "a-broken" / "20260102T030405Z-1" / "run.json").write_text("{")
    record = run_in(tmp_path, "demo")
    assert cli.main(["clean", "--runs-dir", str(tmp_path)]) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert "run.json: not a run's record" in shown.err
    assert record.cache_dir in shown.out
    assert not pathlib.Path(record.cache_dir).exists()


def test_what_cannot_be_removed_leaves_the_run_open(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_in(tmp_path, "demo")

    def refuse(path: pathlib.Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr("sim.record.folder.shutil.rmtree", refuse)
    assert cli.main(["clean", "--runs-dir", str(tmp_path)]) == ExitCode.USAGE
    assert "remains: Operation not permitted" in capsys.readouterr().err
    assert not run_folder.read_record(tmp_path / "demo" / "20260102T030405Z-1").ended


def test_no_runs_at_all_is_nothing_to_clean(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["clean", "--runs-dir", str(tmp_path / "none")]) == ExitCode.HELD
    assert capsys.readouterr().out == f"nothing to clean in {tmp_path / 'none'}\n"


def test_what_a_dead_worker_of_a_pool_left_is_ended_and_its_folder_removed(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run_in(tmp_path / ".unit-77", "demo")
    living = run_in(tmp_path / ".unit-78", "demo", runner_lives=True)
    assert cli.main(["clean", "--runs-dir", str(tmp_path)]) == ExitCode.HELD
    assert f"ended cache folder {record.cache_dir}" in capsys.readouterr().out
    assert [each.name for each in tmp_path.iterdir()] == [".unit-78"]
    assert pathlib.Path(living.cache_dir).is_dir()
