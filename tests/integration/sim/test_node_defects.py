"""A forked node that ends by its own defect is an error that names the traceback; one that is killed is a verdict."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
from typing import Any

import pytest

from sim.files.scenario import load_text
from sim.node.config import NodeConfig
from sim.record import events
from sim.record.verdict import ExitCode, Verdict
from sim.run.cases import Unit, run_unit
from sim.run.node_link import NodeFailedError, NodeProcess
from sim.run.seeds import Seeds
from sim.run.sweep import ERROR, Case, Point, result_of
from tests.forked import forked_node

DEFECT = r"the node ended by itself, with exit code 1: json\.decoder\.JSONDecodeError: .*node\.log"


def send_nonsense(drill: Any) -> None:
    """What no runner sends: the node does not expect it, and its traceback is in its log."""
    drill._node._writer.write(b"{\n")


async def test_an_exception_that_a_node_does_not_catch_ends_the_request_with_its_traceback(runs: Any) -> None:
    async with runs.drill() as drill:
        send_nonsense(drill)
        with pytest.raises(NodeFailedError, match=DEFECT):
            await drill.tick()
    runs.assert_nothing_is_left()


async def test_a_defect_while_nothing_is_asked_is_noticed_at_the_end(runs: Any) -> None:
    async with runs.drill() as drill:
        send_nonsense(drill)
        async with asyncio.timeout(30):
            await drill._node.died.wait()
        with pytest.raises(NodeFailedError, match=DEFECT):
            await drill.finish()
    runs.assert_nothing_is_left()
    assert runs.told(events.NodeCrashed) == []


async def test_a_forked_node_that_is_killed_is_inconclusive_and_named(runs: Any) -> None:
    async with runs.drill() as drill:
        os.kill(drill._node.process.pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            await drill._node.died.wait()
        view = await drill.finish()
    assert view.ended is not None
    assert view.ended.verdict == Verdict.INCONCLUSIVE
    (deaths,) = [each for each in view.judged if each.subject.endswith("deaths_explained")]
    assert f"the node (pid {drill._node.process.pid}) died" in deaths.violations[0]["reason"]


async def test_a_case_and_a_seed_whose_node_has_a_defect_end_with_70_and_name_it(runs: Any) -> None:
    def damaged(config: NodeConfig, config_file: pathlib.Path, fd: int) -> NodeProcess:
        config_file.write_text("{")
        return forked_node(config, config_file, fd)

    scenario = load_text(runs.scenario_text(count=1, memory="4MiB"), runs.folder / "crash.yaml")
    result = await run_unit(Unit.of("a case", scenario, runs.runs), damaged)
    assert result.error is not None
    assert "JSONDecodeError" in result.error.splitlines()[-1]
    case = result_of(Case(Point("web-0", "scan", None, 1, 1), "errno"), result)
    assert (case.outcome, case.exit_code) == (ERROR, ExitCode.INTERNAL)
    seed = Seeds(scenario, 1).add(1, scenario, result)
    assert (seed.exit_code, "JSONDecodeError" in seed.why) == (ExitCode.INTERNAL, True)
