"""The zygote keeps the memory of condemned guests; a copy that its own disk has no space for goes on elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pathlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.events import BuildSpilled, CopyFailed, NotSalvaged
from sim.files.faults import KILL_NODE, failing
from sim.files.scenario import load_text
from sim.node.completing import _kept
from sim.node.guest_link import GuestError
from sim.node.keeping import ZygoteKeeper, close_all
from sim.node.zygote_link import ZygoteSilentError
from sim.record import events
from sim.run.drill import Drill
from sim.run.node_link import NodeDiedError
from tests.descriptors import open_before
from tests.forked import forked_node

SCENARIO = """\
name: kept
seed: 5
node: {{spill: {spill}}}
engine: {{on_copy_failure: salvage}}
fleet:
  - {{name: web, count: 2, memory: 8MiB, workload: {{dirty: 100%, pattern: full}}}}
flags: {{memfd-punch-on-snapshot: true, memfd-background-copy: true}}
steps:
  - tick: 1
"""


def drill(folder: pathlib.Path, cache_dir: pathlib.Path | None = None) -> Drill:
    spill = folder / "spill"
    spill.mkdir()
    scenario = load_text(SCENARIO.format(spill=spill), folder / "kept.yaml")
    return Drill(scenario, runs_dir=folder / "runs", cache_dir=cache_dir, start_node=forked_node)


def of(made: Drill, kind: type[Any]) -> list[Any]:
    return [each.event for each in made.entries if isinstance(each.event, kind)]


def test_memory_is_handed_to_the_next_node_until_it_is_dropped(zygotes: Callable[..., Any]) -> None:
    zygote = zygotes()
    first = zygote.connect()
    (guest,) = zygote.spawn(first, "web-0.1")
    memory = os.memfd_create("snapdrill-kept")
    os.pwrite(memory, b"what it held", 0)
    keeper = ZygoteKeeper(first)
    keeper.keep("web-0.p1", memory)
    keeper.keep("web-1.p1", memory)
    os.close(memory)
    first._connection.close()
    second = ZygoteKeeper(zygote.connect())
    kept = second.kept()
    assert {build: os.pread(fd, 12, 0) for build, fd in kept.items()} == dict.fromkeys(kept, b"what it held")
    assert sorted(kept) == ["web-0.p1", "web-1.p1"]
    close_all(kept)
    for build in ("web-0.p1", "web-1.p1", "web-2.p1"):
        second.drop(build)
    assert second.kept() == {}
    assert not any("snapdrill-kept" in each for each in zygote.descriptors())
    assert guest.process.pidfd >= 0


def test_a_zygote_that_may_open_no_more_files_acknowledges_nothing(zygotes: Callable[..., Any]) -> None:
    zygote = zygotes()
    keeper = ZygoteKeeper(zygote.connect())
    subprocess.run(["prlimit", f"--pid={zygote.process.pid}", "--nofile=3"], check=True)
    with open(os.devnull, "rb") as file, pytest.raises(GuestError, match="no more files"):
        keeper.keep("web-0.p1", file.fileno())


def test_where_node_and_zygote_die_together_what_was_stranded_is_lost_and_says_so(tmp_path: pathlib.Path) -> None:
    async def run() -> tuple[str, str, list[Any]]:
        async with drill(tmp_path) as made:
            await made.tick()
            await made.inject("publish", failing("EIO"), "last", "web-0")
            await made.pause(["web-0"])
            assert made.view().sandboxes["web-0"].state == "paused"
            (started,) = of(made, events.NodeStarted)
            await made.crash()
            os.kill(started.zygote_pid, signal.SIGKILL)
            await made.restart()
            states = [made.view().sandboxes[name].state for name in ("web-0", "web-1")]
            return states[0], states[1], of(made, NotSalvaged)

    first, second, lost = asyncio.run(run())
    assert (first, second) == ("discarded", "killed")  # the other was idle, and ended with the zygote
    assert [(each.build, each.code) for each in lost] == [("web-0.p1", "lost")]


def test_a_pause_is_completed_though_its_node_died_and_its_record_is_gone(tmp_path: pathlib.Path) -> None:
    async def run() -> tuple[str, list[Any], list[Any]]:
        async with drill(tmp_path) as made:
            await made.tick()
            await made.inject("condemn", KILL_NODE, "first", "web-0", 1)
            with contextlib.suppress(NodeDiedError):
                await made.pause(["web-0"])
            shutil.rmtree(made.run_dir / "condemned")
            await made.restart()
            return made.view().sandboxes["web-0"].state, of(made, events.PauseSettled), made.violations()

    state, settled, violations = asyncio.run(run())
    assert state == "paused"
    assert [(each.outcome, each.salvage) for each in settled] == [("finished", "whole")]
    assert violations == []


class Unasked(ZygoteKeeper):
    """Cannot be asked the first few times."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    def kept(self) -> dict[str, int]:
        if self._errors:
            raise self._errors.pop()
        return {"web-0.p1": 7}


FULL = OSError(errno.ENFILE, os.strerror(errno.ENFILE))


@pytest.mark.parametrize("errors", [(FULL,), (FULL, GuestError("what the zygote holds cannot be received"))])
async def test_a_keeper_that_cannot_be_asked_just_now_is_asked_again(errors: tuple[Exception, ...]) -> None:
    kept, _ = await _kept(Unasked(*errors))
    assert kept == {"web-0.p1": 7}


@pytest.mark.parametrize(
    ("errors", "why"),
    [((FULL,) * 9, str(FULL)), ((ZygoteSilentError("the zygote does not answer"),), "the zygote does not answer")],
)
async def test_a_keeper_that_cannot_be_asked_at_all_is_not_called_dead(errors: tuple[Exception, ...], why: str) -> None:
    assert await _kept(Unasked(*errors)) == ({}, f"its memory could not be had from the zygote: {why}")


def test_what_a_keeper_holds_and_cannot_hand_over_just_now_is_held_all_the_same(
    zygotes: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = ZygoteKeeper(zygotes().connect())
    with open(os.devnull, "rb") as file:
        keeper.keep("web-0.p1", file.fileno())
        keeper.keep("web-1.p1", file.fileno())
    real, taken = socket.recv_fds, list[int]()

    def recv_fds(*arguments: Any) -> Any:
        message, fds, *rest = real(*arguments)
        if not fds or taken:
            return message, fds, *rest
        taken.extend(fds)
        return message, [], *rest

    before = open_before()
    monkeypatch.setattr(socket, "recv_fds", recv_fds)
    with pytest.raises(GuestError, match="no more files may be opened here"):
        keeper.kept()
    os.close(taken[0])
    assert len(os.listdir("/proc/self/fd")) == before
    kept = keeper.kept()
    assert sorted(kept) == ["web-0.p1", "web-1.p1"]
    close_all(kept)


def test_a_run_that_cannot_be_named_the_latest_leaves_neither_cache_nor_spill(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_folder: pathlib.Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def run() -> None:
        async with drill(tmp_path, tmp_path / "cache"):
            pytest.fail("it started")

    (tmp_path / "cache").mkdir()
    monkeypatch.setattr("sim.run.drill.point_latest_at", full)
    with pytest.raises(Exception, match="No space left"):
        asyncio.run(run())
    assert [*(tmp_path / "cache").iterdir(), *(tmp_path / "spill").iterdir()] == []


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """12 MiB of tmpfs in a private user and mount namespace, reached through /proc/PID/root."""
    mount = tmp_path / "small"
    mount.mkdir()
    script = f"mount -t tmpfs -o size=12m,mode=777 none {mount} && echo ready && exec cat"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes) as holder:  # type: ignore[call-overload]
        assert holder.stdin
        assert holder.stdout
        ready = holder.stdout.readline()
        if ready:
            yield pathlib.Path(f"/proc/{holder.pid}/root{mount}")
        holder.stdin.close()
    if not ready:
        pytest.skip("needs a user and mount namespace without privileges")


def test_two_copies_that_do_not_fit_on_a_small_disk_together_are_both_whole(
    tmp_path: pathlib.Path, small_disk: pathlib.Path, wait_until: Callable[..., Any]
) -> None:
    async def run() -> tuple[list[Any], Drill]:
        async with drill(tmp_path, small_disk) as made:
            await made.tick()
            await made.pace("*", held=True)  # until both have found that there is space for them
            pausing = asyncio.ensure_future(made.pause(["web-0", "web-1"]))
            ledger = made.run_dir / "events.jsonl"
            await asyncio.to_thread(wait_until, lambda: ledger.read_text().count('"boundary_reached"') == 2)
            await made.pace("*")
            await pausing
            await made.resume(["web-0", "web-1"])
            await made.tick()
            return [each.outcome for each in made.view().pauses], (await made.finish(), made)[1]

    outcomes, made = asyncio.run(run())
    assert outcomes == ["finished", "finished"]
    assert {each.errno for each in of(made, CopyFailed)} == {"ENOSPC"}
    assert of(made, BuildSpilled)
    assert [(each.subject, each.verdict) for each in made.view().judged if each.verdict == "violated"] == []
    assert list((tmp_path / "spill").iterdir()) == []
