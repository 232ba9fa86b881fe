"""Run folders, their record, and the end of what carries a run's id: nothing else is touched."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest

from engine.errors import UserError
from engine.incarnation import start_time_of
from sim.record import folder as run_folder
from sim.record import leftovers
from sim.record.folder import RunRecord
from sim.record.leftovers import LeftoverError

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
# Tells when it is up, then waits; a forked child carries the environment that its parent was started with.
SLEEPER = "import os, sys, time; sys.argv[1:] and os.fork(); os.write(1, b'.'); time.sleep(60)"


def record_of(run: str, folder: pathlib.Path, **changes: object) -> RunRecord:
    start = start_time_of(os.getpid())
    assert start is not None
    whole = RunRecord(
        run=run,
        runner_pid=os.getpid(),
        runner_start_time=start,
        node_pid=None,
        node_start_time=None,
        zygote_pid=None,
        zygote_start_time=None,
        cache_dir=str(folder / f"snapdrill-{run}-cache"),
        socket_dir=str(folder / f"snapdrill-{run}-sockets"),
        cgroup=None,
        ended=False,
    )
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]


@pytest.fixture
def run_id() -> str:
    return uuid.uuid4().hex[:12]


class Sleepers:
    """Processes that carry a run's id, or not; killed with the test."""

    def __init__(self) -> None:
        self._all: list[subprocess.Popen[bytes]] = []

    def start(self, run: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "SNAPDRILL_RUN": run}
        command = [sys.executable, "-c", SLEEPER, *arguments]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        self._all.append(process)
        assert process.stdout is not None
        for _ in range(2 if arguments else 1):
            assert process.stdout.read(1) == b"."
        return process

    def end(self) -> None:
        for process in self._all:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


@pytest.fixture
def sleepers() -> Iterator[Sleepers]:
    started = Sleepers()
    yield started
    started.end()


def test_a_run_folder_is_named_for_its_start_in_utc_and_its_seed(tmp_path: pathlib.Path) -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5)))
    assert run_folder.make(tmp_path, "demo", 42, elsewhere) == tmp_path / "demo" / "20260102T030405Z-42"


def test_two_runs_in_one_second_get_two_folders_and_latest_is_the_second(tmp_path: pathlib.Path) -> None:
    folders = [run_folder.make(tmp_path, "demo", 42, NOW) for _ in range(3)]
    for folder in folders:
        run_folder.point_latest_at(folder)
    names = [folder.name for folder in folders]
    assert names == ["20260102T030405Z-42", "20260102T030405Z-42-2", "20260102T030405Z-42-3"]
    assert os.readlink(tmp_path / "demo" / "latest") == names[-1]
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == [*names, "latest"]


def test_a_record_reads_back_as_it_was_written(tmp_path: pathlib.Path) -> None:
    record = record_of("0123abcd", tmp_path, node_pid=5, node_start_time=9, cgroup="/sys/fs/cgroup/snapdrill-r1")
    run_folder.write_record(tmp_path, record)
    assert run_folder.read_record(tmp_path) == record
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run": 1}'])
def test_a_record_that_is_none_is_refused_in_one_line_that_names_the_file(tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json: not a run's record: .") as refused:
        run_folder.read_record(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_record_with_an_unknown_field_is_refused(tmp_path: pathlib.Path) -> None:
    run_folder.write_record(tmp_path, record_of("0123abcd", tmp_path))
    path = tmp_path / "run.json"
    path.write_text(path.read_text().replace('"ended"', '"more": 1, "ended"'))
    with pytest.raises(UserError, match="more"):
        run_folder.read_record(tmp_path)


def test_a_missing_record_is_a_users_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        run_folder.read_record(tmp_path)


def test_a_runner_lives_only_under_its_own_start_time(tmp_path: pathlib.Path) -> None:
    record = record_of("0123abcd", tmp_path)
    assert record.runner_lives
    assert not dataclasses.replace(record, runner_start_time=record.runner_start_time + 1).runner_lives


def test_a_zombie_runner_is_dead(tmp_path: pathlib.Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    start = start_time_of(child)
    assert start is not None
    zombie = record_of("0123abcd", tmp_path, runner_pid=child, runner_start_time=start)
    assert not zombie.runner_lives
    os.waitpid(child, 0)


def test_processes_are_found_by_the_whole_id_only(sleepers: Sleepers, run_id: str) -> None:
    mine = sleepers.start(run_id)
    sleepers.start(run_id + "x")
    sleepers.start("x" + run_id)
    assert leftovers.processes_of(run_id) == [mine.pid]


def test_this_process_never_finds_itself(run_id: str) -> None:
    code = "import os, sys; from sim.record import leftovers; print(leftovers.processes_of(sys.argv[1]))"
    environment = {**os.environ, "SNAPDRILL_RUN": run_id}
    command = [sys.executable, "-c", code, run_id]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=True)
    assert run.stdout == "[]\n"


def test_everything_that_carries_the_id_dies_forked_children_too(
    sleepers: Sleepers, run_id: str, tmp_path: pathlib.Path
) -> None:
    mine, other = sleepers.start(run_id, "fork"), sleepers.start(run_id + "x")
    assert len(leftovers.processes_of(run_id)) == 2
    told = leftovers.end_leftovers(record_of(run_id, tmp_path))
    assert len(told) == 2
    assert told[0].startswith("process ")
    assert mine.wait(5) == -9
    assert leftovers.processes_of(run_id) == []
    assert other.poll() is None


def test_folders_of_the_run_are_removed_and_named(run_id: str, tmp_path: pathlib.Path) -> None:
    record = record_of(run_id, tmp_path)
    for folder in (record.cache_dir, record.socket_dir):
        pathlib.Path(folder, "inside").mkdir(parents=True)
    assert leftovers.leftovers(record) == [f"cache folder {record.cache_dir}", f"socket folder {record.socket_dir}"]
    assert leftovers.end_leftovers(record) == [
        f"cache folder {record.cache_dir}",
        f"socket folder {record.socket_dir}",
    ]
    assert list(tmp_path.iterdir()) == []
    assert leftovers.end_leftovers(record) == []


def test_a_folder_that_snapdrill_did_not_name_is_left_alone(run_id: str, tmp_path: pathlib.Path) -> None:
    precious = tmp_path / "home"
    precious.mkdir()
    record = record_of(run_id, tmp_path, cache_dir=str(precious), socket_dir=str(tmp_path / "snapdrill-other"))
    (tmp_path / "snapdrill-other").mkdir()
    assert leftovers.end_leftovers(record, tmp_path / "run") == []
    assert precious.is_dir()
    assert (tmp_path / "snapdrill-other").is_dir()


def test_a_record_without_an_id_removes_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "snapdrill-precious").mkdir()
    record = record_of("", tmp_path, cache_dir=str(tmp_path / "snapdrill-precious"))
    assert leftovers.leftovers(record, tmp_path) == []


def test_a_link_with_the_right_name_is_not_followed(run_id: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / f"snapdrill-{run_id}-cache").symlink_to("home")
    assert leftovers.end_leftovers(record_of(run_id, tmp_path)) == []
    assert (tmp_path / "home").is_dir()


def test_a_folder_inside_the_run_folder_is_the_runs_the_run_folder_itself_is_not(
    run_id: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "cache").mkdir()
    record = record_of(run_id, tmp_path, cache_dir=str(tmp_path / "cache"), socket_dir=str(tmp_path))
    assert leftovers.end_leftovers(record, tmp_path) == [f"cache folder {tmp_path / 'cache'}"]
    assert tmp_path.is_dir()


def test_a_cgroup_that_stays_busy_is_reported_not_forgotten(
    run_id: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgroup = tmp_path / f"snapdrill-{run_id}"
    (cgroup / "busy").mkdir(parents=True)
    monkeypatch.setattr(leftovers, "RMDIR_SECONDS", 0.01)
    with pytest.raises(LeftoverError, match=f"cgroup {cgroup} of run {run_id} remains"):
        leftovers.end_leftovers(record_of(run_id, tmp_path, cgroup=str(cgroup)))


@pytest.mark.parametrize("ended", [False, True])
def test_a_run_is_removed_only_once_it_has_ended(tmp_path: pathlib.Path, run_id: str, ended: bool) -> None:
    folder = run_folder.make(tmp_path, "x", 1, NOW)
    run_folder.write_record(folder, record_of(run_id, tmp_path, ended=ended))
    assert run_folder.remove(folder) is ended
    assert folder.exists() is not ended


def test_a_run_whose_record_cannot_be_read_is_not_removed(tmp_path: pathlib.Path) -> None:
    folder = run_folder.make(tmp_path, "x", 1, NOW)
    (folder / run_folder.RUN_FILE).write_text("{", encoding="utf-8")
    assert not run_folder.remove(folder)
    assert folder.exists()


def test_a_folder_without_a_record_has_nothing_to_end(tmp_path: pathlib.Path) -> None:
    assert run_folder.remove(run_folder.make(tmp_path, "x", 1, NOW))
    assert list(tmp_path.iterdir()) == []
