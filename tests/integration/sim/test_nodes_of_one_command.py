"""The nodes of a command that makes several runs: forked from one server, executed where there is none."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from engine.incarnation import state_of
from sim.files.scenario import load_text
from sim.record import events
from sim.run import forked_nodes
from sim.run.forked_nodes import nodes_for, start_server
from sim.run.node_link import NodeStarter
from sim.run.node_server import NodeServer
from sim.run.runner import RunOptions, run_scenario


def run(runs: Any, start_node: NodeStarter) -> tuple[str, int]:
    """The verdict of a small run, and the pid of its node's parent while it lived."""
    scenario = load_text(runs.scenario_text(count=1, memory="4MiB"), runs.folder / "small.yaml")
    parents: list[int] = []

    def noted(*arguments: Any) -> Any:
        process = start_node(*arguments)
        stat = pathlib.Path(f"/proc/{process.pid}/stat").read_text()
        parents.append(int(stat.rpartition(") ")[2].split()[1]))
        return process

    result = asyncio.run(run_scenario(scenario, RunOptions(runs.runs, start_node=noted)))
    assert [each for each in result.entries if isinstance(each.event, events.NodeCrashed)] == []
    (parent,) = parents
    assert result.view.ended is not None
    return result.view.ended.verdict, parent


def test_the_node_of_the_only_run_is_executed(runs: Any) -> None:
    def start() -> NodeServer:
        raise AssertionError("one run needs no server")

    with nodes_for(1, start) as start_node:
        assert run(runs, start_node) == ("held", os.getpid())
    runs.assert_nothing_is_left()


def test_the_nodes_of_several_runs_have_one_parent_which_ends_with_them(
    runs: Any, wait_until: Callable[..., Any]
) -> None:
    with nodes_for(2) as start_node:
        (one, server), (other, again) = run(runs, start_node), run(runs, start_node)
        assert (one, other, server) == ("held", "held", again)
        assert server != os.getpid()
    wait_until(lambda: state_of(server) in {None, "Z"})
    runs.assert_nothing_is_left()


def test_a_node_is_executed_when_the_server_was_killed(runs: Any) -> None:
    with nodes_for(2) as start_node:
        _, server = run(runs, start_node)
        os.kill(server, signal.SIGKILL)
        assert run(runs, start_node) == ("held", os.getpid())
    runs.assert_nothing_is_left()


def test_a_node_is_executed_where_no_server_can_be_started(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked_nodes, "_START", "raise SystemExit(3)")
    with pytest.raises(subprocess.CalledProcessError):
        start_server()
    with nodes_for(2) as start_node:
        assert run(runs, start_node) == ("held", os.getpid())
    runs.assert_nothing_is_left()
