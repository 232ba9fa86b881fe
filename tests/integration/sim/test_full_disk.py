"""A disk that fills up under the run folder: one clear line, exit 4 where nothing had started, and nothing is left."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from sim.cli import main
from sim.files.scenario import load_text
from sim.record import events
from sim.record.run_id import RUN_VARIABLE
from sim.record.verdict import ExitCode
from sim.run.drill import Drill
from sim.run.runner import RunOptions, run_scenario
from tests.forked import forked_node

DEADLINE = 20.0
SIZE = 1024  # KiB
SCENARIO = """\
name: full
fleet:
  - {name: web, count: 4, memory: 4MiB, workload: {dirty: 100%, pattern: full}}
flags: {memfd-punch-on-snapshot: true}
steps:
  - tick: 1
  - pause: {}
  - resume: {}
  - tick: 1
  - pause: {}
"""


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """1 MiB of tmpfs in a private user and mount namespace, reached through /proc/PID/root."""
    mount = tmp_path / "small"
    mount.mkdir()
    script = f"mount -t tmpfs -o size={SIZE}k,mode=777 none {mount} && echo ready && exec cat"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    try:
        keeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        pytest.skip("needs unshare(1) of util-linux")
    with keeper:
        assert keeper.stdin
        assert keeper.stdout
        ready = keeper.stdout.readline()
        if ready:
            yield pathlib.Path(f"/proc/{keeper.pid}/root{mount}")
        keeper.stdin.close()
        keeper.wait(DEADLINE)
    if not ready:
        pytest.skip("needs a user and mount namespace without privileges")


def processes_of_runs_in(folder: pathlib.Path) -> list[int]:
    """Processes that still have something of this folder open or in their environment."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            files = [str(each.readlink()) for each in (process / "fd").iterdir()]
        except OSError:
            continue
        if RUN_VARIABLE.encode() in environment and any(file.startswith(str(folder)) for file in files):
            found.append(int(process.name))
    return found


def test_a_disk_that_is_full_before_the_run_is_named_with_what_is_free(
    small_disk: pathlib.Path, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (small_disk / "filler").write_bytes(b"x" * ((SIZE - 20) << 10))
    (tmp_path / "full.yaml").write_text(SCENARIO)
    assert main(["run", str(tmp_path / "full.yaml"), "--runs-dir", str(small_disk)]) == ExitCode.UNSUPPORTED
    assert " MiB are free" in capfd.readouterr().out


@pytest.mark.parametrize("room", [0, 4, 20, 36], ids=lambda room: f"{room}-KiB-left")
def test_a_run_whose_disk_is_full_is_not_started_and_says_so_in_one_line(
    small_disk: pathlib.Path,
    tmp_path: pathlib.Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    room: int,
) -> None:
    monkeypatch.setattr("sim.run.one_by_one.missing", lambda *_: None)  # it fills after the look
    here = tmp_path / "here"
    here.mkdir()
    (here / "mine").write_text("kept")
    monkeypatch.chdir(here)
    (small_disk / "filler").write_bytes(b"x" * ((SIZE - room) << 10))
    with contextlib.suppress(OSError):
        (small_disk / "runs").mkdir()
    scenario = tmp_path / "full.yaml"
    scenario.write_text(SCENARIO)
    arguments = ["run", str(scenario), "--runs-dir", str(small_disk / "runs"), "--cache-dir", str(tmp_path)]
    assert main(arguments) == ExitCode.UNSUPPORTED
    told = capfd.readouterr().err
    assert told.startswith("full: no space is left on the disk of ")
    assert "the run was not started; make room, or use --runs-dir" in told
    assert not (small_disk / "runs" / "full").exists()
    assert (here / "mine").read_text() == "kept"
    assert len(told.splitlines()) == 1
    assert [each.name for each in tmp_path.glob("snapdrill-*")] == []
    assert processes_of_runs_in(small_disk) == []


def test_a_run_whose_folder_cannot_be_made_removes_nothing_of_the_current_one(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> pathlib.Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    scenario = tmp_path / "full.yaml"
    scenario.write_text(SCENARIO)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sim.run.drill.make", full)
    assert main(["run", str(scenario), "--runs-dir", "runs"]) == ExitCode.UNSUPPORTED
    assert "the run was not started" in capfd.readouterr().err
    assert scenario.read_text() == SCENARIO


def oom_score(pid: int | str) -> int:
    return int(pathlib.Path(f"/proc/{pid}/oom_score_adj").read_text())


async def test_what_the_disk_fails_in_mid_run_is_told_apart_from_what_was_injected(
    small_disk: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Beside it: where memory runs out, guests are chosen before their node, and both before the judge."""
    fault = "  - inject: {fault: reserve, errno: ENOSPC, sandboxes: web-0}\n"
    text = (
        SCENARIO.replace("  - pause: {}\n", f"{fault}  - pause: {{}}\n", 1)
        + "expect: [{sandboxes: web-1, state: [paused]}]\n"
    )
    scores: list[tuple[int, int, int]] = []

    async def gate(step: int, drill: Drill) -> None:
        if step == 0:
            view = drill.view()
            guests = {oom_score(each.pid) for each in view.sandboxes.values() if each.pid}
            (node,) = [each.event.pid for each in drill.entries if isinstance(each.event, events.NodeStarted)]
            scores.append((oom_score("self"), oom_score(node), min(guests)))

    options = RunOptions(tmp_path / "runs", cache_dir=small_disk, start_node=forked_node)
    found = await run_scenario(load_text(text, tmp_path / "full.yaml"), options, gate=gate)
    assert found.view.ended is not None
    assert (found.view.ended.verdict, found.view.ended.exit_code) == ("inconclusive", ExitCode.INCONCLUSIVE)
    (host,) = [each for each in found.view.judged if each.subject.startswith("host:")]
    assert host.subject == "host:ENOSPC"
    assert {each["sandbox"] for each in host.violations} == {"web-1", "web-2", "web-3"}  # of web-0 it was injected
    (state,) = [each for each in found.view.judged if each.subject.startswith("state:")]
    assert (state.verdict, "this host failed a pause" in state.violations[0]["reason"]) == ("inconclusive", True)
    ((judge, node, guest),) = scores
    assert judge < node < guest
