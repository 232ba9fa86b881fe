"""SIGKILL of the node at random moments with salvage: each pause ends whole, or is discarded for a reason with a code.

`SNAPDRILL_MOMENTS=50` takes as many moments; which sandboxes' copies fail as well, and when, is drawn by the number.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import pathlib
import random
import time

import pytest

from engine.events import Condemned, KeeperAsked, NotSalvaged
from sim.files.faults import AtChunk, failing
from sim.files.scenario import load_text
from sim.record import events
from sim.record.view import View
from sim.run.drill import Drill
from sim.run.node_link import NodeDiedError
from tests.forked import forked_node

COUNT = int(os.environ.get("SNAPDRILL_MOMENTS", "5"))
NAMES = [f"web-{index}" for index in range(4)]
CODES = {"torn", "given-up"}  # of what a crash of the node alone may leave
SCENARIO = """\
name: killed-while-salvaging
seed: 5
node: {spill: tmpfs}
engine: {on_copy_failure: salvage}
fleet:
  - {name: web, count: 4, memory: 12MiB, workload: {dirty: 60%, pattern: scattered}}
flags: {memfd-punch-on-snapshot: true, memfd-background-copy: true}
steps:
  - tick: 1
"""


async def killed_at_random(drill: Drill, draw: random.Random, longest: float, names: list[str]) -> None:
    """One moment of a pause, and the recovery of what it left."""
    await drill.set_flag("memfd-background-copy", draw.random() < 0.5)
    if draw.random() < 0.6:
        sandbox = draw.choice(names)
        await drill.inject("copy.write", failing("ENOSPC"), AtChunk(draw.randint(1, 5)), sandbox)
        if draw.random() < 0.5:
            await drill.inject("publish", failing("EIO"), "last", sandbox)
    await drill.tick()
    pausing = asyncio.ensure_future(drill.act("pause", names, 30.0, concurrency=2, settled=True))
    await asyncio.wait([pausing], timeout=draw.uniform(0, longest))
    await drill.crash()
    with contextlib.suppress(NodeDiedError):
        await pausing
    await drill.restart()
    await drill.resume([name for name in names if drill.view().sandboxes[name].state == "paused"])


async def run(folder: pathlib.Path, count: int) -> tuple[View, list[object]]:
    text, draw = load_text(SCENARIO, folder / "killed.yaml"), random.Random(29)
    longest = None
    async with Drill(text, runs_dir=folder / "runs", start_node=forked_node) as drill:
        for number in range(count):
            names = [name for name in NAMES if drill.view().sandboxes[name].state == "running"]
            assert names, "no sandbox is left"
            if longest is None:
                await drill.tick()
                begun = time.monotonic()
                await drill.pause(names)
                longest = 1.5 * (time.monotonic() - begun)
                await drill.resume(names)
            await killed_at_random(drill, draw, longest, names)
            assert drill.violations() == [], f"moment {number}"
        await drill.tick()
        return await drill.finish(), [entry.event for entry in drill.entries]


@pytest.mark.timeout(60 + 20 * COUNT)
def test_each_pause_that_its_node_s_death_cut_off_is_whole_or_says_why_it_is_not(tmp_path: pathlib.Path) -> None:
    view, happened = asyncio.run(run(tmp_path, COUNT))
    assert [(each.subject, each.violations) for each in view.judged if each.verdict == "violated"] == []
    lost = [each for each in happened if isinstance(each, NotSalvaged)]
    settled = [each for each in happened if isinstance(each, events.PauseSettled)]
    assert {each.code for each in lost} <= CODES
    assert {each.build for each in settled if each.outcome == "discarded"} == {each.build for each in lost}
    assert sum(isinstance(each, events.NodeCrashed) for each in happened) == COUNT
    asked = {each.build for each in happened if isinstance(each, KeeperAsked) and each.error is None}
    assert {each.build for each in happened if isinstance(each, Condemned)} <= asked
    ends = collections.Counter((each.outcome, each.salvage) for each in settled)
    assert sum(ends.values()) == len({each.build for each in settled})
    print(f"{COUNT} moments: {dict(ends)}")  # noqa: T201 - with -s, when it is run by hand
