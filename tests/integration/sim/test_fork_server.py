"""Processes that a server forks: whose they are, what they hold, and that neither end takes the other with it."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from sim.record.leftovers import processes_of
from sim.record.run_id import PLACEHOLDER, RUN_VARIABLE

WaitUntil = Callable[..., Any]
ROOT = pathlib.Path(__file__).parents[3]

HOLDER = """
import json, os, select, signal, sys, time
from sim.node.forked import ForkError, ForkServer
from sim.record.run_id import carry_run

def become(arguments, fds):
    if arguments["run"] == "none":
        return 0
    carry_run(arguments["run"])
    open_fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}"))
    default = signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    os.write(fds[0], json.dumps([os.getpid(), open_fds, fds, default]).encode())
    time.sleep(60)
    return 0

server = ForkServer.start("a server", become)
secret, _ = os.pipe()
for line in sys.stdin:
    match line.split():
        case ["fork", run]:
            inside, outside = os.pipe()
            try:
                forked = server.fork({"run": run}, [outside])
            except ForkError as error:
                print(json.dumps(str(error)), flush=True)
                continue
            os.close(outside)
            pid, fds, given, default = json.loads(os.read(inside, 4096))
            assert pid == forked.pid
            print(json.dumps([pid, fds, given, default]), flush=True)
        case ["die-at-once", times]:
            pidfds = [server.fork({"run": "none"}, []).pidfd for _ in range(int(times))]
            print(json.dumps([bool(select.select([pidfd], [], [], 10)[0]) for pidfd in pidfds]), flush=True)
        case ["close"]:
            server.close()
            print("null", flush=True)
"""


class Holder:
    """A process that holds a server, and is told what to do with it line by line."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, RUN_VARIABLE: PLACEHOLDER},
        )
        self.pids: list[int] = []

    def ask(self, *words: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def fork(self, run: str) -> Any:
        answer = self.ask("fork", run)
        self.pids.append(answer[0])
        return answer

    def server(self) -> int:
        """The pid of the server: the holder's only child."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def end(self) -> None:
        for pid in self.pids:
            if f"{RUN_VARIABLE}=".encode() in _environment(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()


def _environment(pid: int) -> bytes:
    try:
        return pathlib.Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def holder() -> Any:
    made = Holder()
    yield made
    made.end()


def test_a_fork_carries_its_run_and_the_server_carries_none(holder: Holder) -> None:
    first, *_ = holder.fork("aaaaaaa1")
    second, *_ = holder.fork("aaaaaaa2")
    assert processes_of("aaaaaaa1") == [first]
    assert processes_of("aaaaaaa2") == [second]
    assert set(processes_of(PLACEHOLDER)) >= {holder.process.pid, holder.server()}


def test_a_fork_has_the_fds_that_it_was_given_and_no_others(holder: Holder) -> None:
    _, fds, given, default = holder.fork("aaaaaaa3")
    assert fds == [0, 1, 2, *given]
    assert default


def test_a_fork_that_ends_leaves_no_zombie(holder: Holder, wait_until: WaitUntil) -> None:
    pid, *_ = holder.fork("aaaaaaa4")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not pathlib.Path(f"/proc/{pid}").exists())


def test_a_fork_that_ends_at_once_is_one_that_has_ended_and_no_failure_to_fork(
    holder: Holder, wait_until: WaitUntil
) -> None:
    assert holder.ask("die-at-once", "40") == [True] * 40
    children = pathlib.Path(f"/proc/{(server := holder.server())}/task/{server}/children")
    wait_until(lambda: children.read_text() == "")


def test_a_killed_server_ends_nothing_else_and_is_told_of(holder: Holder, process: Any) -> None:
    forked = process.of(holder.fork("aaaaaaa5")[0])
    os.kill(holder.server(), signal.SIGKILL)
    assert holder.ask("fork", "aaaaaaa6") == "the server is gone"
    assert forked.state() is not None


def test_a_server_that_nobody_holds_ends_and_its_forks_do_not(
    holder: Holder, process: Any, wait_until: WaitUntil
) -> None:
    forked, server = process.of(holder.fork("aaaaaaa7")[0]), process.of(holder.server())
    holder.ask("close")
    wait_until(lambda: server.state() is None)
    assert forked.state() is not None
