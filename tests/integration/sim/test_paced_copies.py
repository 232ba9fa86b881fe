"""Real copies that are held and stepped: up to the point of no return, past it, and let go by whatever ends them."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Callable

from sim.files.scenario import load_text
from sim.record.view import View
from sim.run.drill import Drill
from tests.forked import forked_node

SCENARIO = """\
name: paced
seed: 5
fleet:
  - {name: web, count: 1, memory: 8MiB, workload: {dirty: 100%, pattern: full}}
flags: {memfd-punch-on-snapshot: true, memfd-background-copy: false}
steps:
  - tick: 1
"""


def drill_in(folder: pathlib.Path) -> Drill:
    return Drill(load_text(SCENARIO, folder / "paced.yaml"), runs_dir=folder / "runs", start_node=forked_node)


async def until(drill: Drill, condition: Callable[[View], bool]) -> View:
    async with asyncio.timeout(30):
        while not condition(view := drill.view()):  # noqa: ASYNC110 - another process writes what is awaited
            await asyncio.sleep(0.01)
    return view


def waits_for(before: str, chunks: set[int]) -> Callable[[View], bool]:
    def is_so(view: View) -> bool:
        pause = view.sandboxes["web-0"].pause
        return pause is not None and pause.track.waits_for == before and set(pause.track.under) == chunks

    return is_so


async def test_a_held_copy_is_stepped_to_the_point_of_no_return_and_past_it(tmp_path: pathlib.Path) -> None:
    async with drill_in(tmp_path) as drill:
        await drill.tick()
        await drill.pace("web-0", held=True)
        pausing = asyncio.create_task(drill.pause(["web-0"]))
        view = await until(drill, waits_for("chunk", {0}))
        assert view.sandboxes["web-0"].punched == 0
        await drill.pace("web-0", held=True, steps=1)
        view = await until(drill, waits_for("condemn", set()))
        assert [(pause.condemned, pause.published) for pause in view.pauses] == [(False, 1)]
        await drill.pace("web-0", held=True, steps=1)
        view = await until(drill, waits_for("chunk", {1, 2}))
        assert view.pauses[0].condemned
        assert view.sandboxes["web-0"].punched == 2 << 20
        await drill.pace("web-0")
        await pausing
        view = await drill.finish()
    assert view.ended is not None
    assert view.ended.verdict == "held"
    assert [(pause.outcome, pause.paced) for pause in view.pauses] == [("finished", True)]
    assert view.measured == ()


async def test_a_slowed_copy_ends_by_itself_and_is_in_no_figure(tmp_path: pathlib.Path) -> None:
    async with drill_in(tmp_path) as drill:
        await drill.tick()
        await drill.pace("*", factor=20.0)
        await drill.pause(["web-0"])
        view = drill.view()
    assert [(pause.outcome, pause.paced) for pause in view.pauses] == [("finished", True)]
    assert view.pauses[0].track.runs == f"{(8 << 20) // 8192}d"
    assert view.pauses[0].track.copied == view.pauses[0].track.punched == ((0, 8 << 20),)


async def test_a_sandbox_whose_copy_is_held_can_be_killed(tmp_path: pathlib.Path) -> None:
    async with drill_in(tmp_path) as drill:
        await drill.tick()
        await drill.pace("web-0", held=True)
        pausing = asyncio.create_task(drill.pause(["web-0"]))
        await until(drill, waits_for("chunk", {0}))
        async with asyncio.timeout(20):
            await drill.kill(["web-0"])
        await pausing
        assert drill.view().sandboxes["web-0"].state == "killed"
        assert not drill.view().sandboxes["web-0"].pace.set


async def test_a_run_whose_copy_is_held_is_torn_down_all_the_same(tmp_path: pathlib.Path) -> None:
    drill = drill_in(tmp_path)
    async with drill:
        await drill.tick()
        await drill.pace("web-0", held=True)
        pausing = asyncio.create_task(drill.pause(["web-0"]))
        await until(drill, waits_for("chunk", {0}))
        async with asyncio.timeout(20):
            await drill.tear_down()
        await asyncio.wait([pausing])
        pausing.exception()
    assert drill.view().pauses[0].settled_at is not None
