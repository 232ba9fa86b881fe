"""A run is owned by the lock of its runner: what `clean` may take, and what it leaves."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from sim import cli
from sim.record import owner
from sim.record.folder import RunRecord, read_record, write_record
from sim.record.verdict import ExitCode

STAMP = "20260102T030405Z-1"
RUN = "0123abcd"


def left(runs: pathlib.Path, name: str = "demo", *, cache: pathlib.Path | None = None) -> pathlib.Path:
    """The folder of a run whose runner's pid is of another namespace, with the cache that it left."""
    folder = runs / name / STAMP
    folder.mkdir(parents=True)
    made = cache or folder / f"snapdrill-{RUN}-cache"
    made.mkdir(parents=True, exist_ok=True)
    write_record(folder, RunRecord(RUN, 1 << 22, 1, None, None, None, None, str(made), str(made), None, ended=False))
    return folder


def clean(runs: pathlib.Path) -> ExitCode:
    return ExitCode(cli.main(["clean", "--runs-dir", str(runs)]))


def test_a_run_whose_lock_is_held_is_left_alone_whatever_its_pid_says(tmp_path: pathlib.Path) -> None:
    folder = left(tmp_path)
    fd = owner.take(folder)
    assert clean(tmp_path) == ExitCode.HELD
    assert not read_record(folder).ended
    os.close(fd)
    assert clean(tmp_path) == ExitCode.HELD
    assert read_record(folder).ended
    assert not (folder / f"snapdrill-{RUN}-cache").exists()


def test_a_lock_ends_with_the_process_that_holds_it(tmp_path: pathlib.Path) -> None:
    code = "import sys, pathlib, time; from sim.record import owner; owner.take(pathlib.Path(sys.argv[1])); print()"
    command = [sys.executable, "-c", f"{code}; sys.stdout.flush(); time.sleep(60)", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        fd = owner.watch(str(tmp_path / owner.OWNER_FILE))
        assert fd is not None
        with owner.taken_over(tmp_path) as free:
            assert free is False
        assert not owner.is_free(fd)
        holder.kill()
        holder.wait()
        assert owner.is_free(fd)
        with owner.taken_over(tmp_path) as free:
            assert free is True
        os.close(fd)


def test_a_run_that_a_link_leads_to_is_not_cleaned(tmp_path: pathlib.Path) -> None:
    elsewhere, runs = tmp_path / "elsewhere", tmp_path / "runs"
    folder = left(elsewhere)
    runs.mkdir()
    (runs / "demo").symlink_to(elsewhere / "demo")
    assert clean(runs) == ExitCode.HELD
    assert not read_record(folder).ended


def test_a_record_that_is_a_link_or_another_users_is_not_obeyed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = left(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert clean(tmp_path) == ExitCode.HELD
    monkeypatch.undo()
    (folder / "run.json").rename(folder / "mine.json")
    (folder / "run.json").symlink_to("mine.json")
    assert clean(tmp_path) == ExitCode.HELD
    assert not read_record(folder).ended


@pytest.mark.parametrize("name", ["precious", f"{RUN}-cache", f"snapdrill-{RUN[:-1]}0-cache"])
def test_a_folder_without_the_prefix_of_the_run_stays(tmp_path: pathlib.Path, name: str) -> None:
    precious = tmp_path / "home" / name
    folder = left(tmp_path / "runs", cache=precious)
    (folder / "condemned").mkdir()
    build = json.dumps({"name": "web-0.1", "pid": 1 << 22, "start_time": 1, "memfd_inode": 1, "build": "../x"})
    (folder / "condemned" / "web-0.1.json").write_text(build)
    (folder / "events.jsonl").write_text("")
    (tmp_path / "home" / "x.partial").mkdir()
    assert clean(tmp_path / "runs") == ExitCode.HELD
    assert precious.is_dir()
    assert (tmp_path / "home" / "x.partial").is_dir()


def test_a_ledger_that_is_a_link_is_not_cut(tmp_path: pathlib.Path) -> None:
    folder = left(tmp_path / "runs")
    (folder / "condemned").mkdir()
    (tmp_path / "passwd").write_text("a line and a half\nof text")
    (folder / "events.jsonl").symlink_to(tmp_path / "passwd")
    assert clean(tmp_path / "runs") == ExitCode.HELD
    assert (tmp_path / "passwd").read_text() == "a line and a half\nof text"


@pytest.mark.parametrize("run", ["", "..", "*", "web-0", "0123ABCD"])
def test_a_record_with_no_id_of_a_run_is_refused(tmp_path: pathlib.Path, run: str) -> None:
    folder = left(tmp_path)
    content = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**content, "run": run}))
    assert clean(tmp_path) == ExitCode.USAGE
    assert (folder / f"snapdrill-{RUN}-cache").is_dir()
