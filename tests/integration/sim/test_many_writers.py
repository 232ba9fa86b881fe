"""Guests with several writing threads, with a child that writes, and with pages that they free."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from engine import events as copying
from sim.files.faults import AtChunk, Harm
from sim.files.scenario import load_text
from sim.record import events
from sim.run.drill import Drill
from tests.forked import forked_node

FLEET = """\
name: writers
fleet:
  - {{name: web, memory: 4MiB, workload: {{dirty: 100%, pattern: full, threads: {threads}}}}}
flags: {{memfd-punch-on-snapshot: true}}
steps: [{{tick: 1}}]
"""


def drill_of(folder: pathlib.Path, threads: int) -> Drill:
    scenario = load_text(FLEET.format(threads=threads), folder / "s.yaml")
    return Drill(scenario, runs_dir=folder / "runs", start_node=forked_node)


def told(drill: Drill, kind: type[Any]) -> list[Any]:
    return [each.event for each in drill.entries if isinstance(each.event, kind)]


@pytest.mark.parametrize("threads", [1, 2, 5])
async def test_the_freeze_reads_every_writing_thread_and_what_they_wrote_does_not_depend_on_their_number(
    tmp_path: pathlib.Path, threads: int
) -> None:
    async with drill_of(tmp_path, threads) as drill:
        await drill.tick(2)
        await drill.pause(["web-0"])
        await drill.resume(["web-0"])
        view = await drill.finish()
    assert [each for each in view.judged if each.verdict != "held"] == []
    (frozen,) = told(drill, events.GuestFrozen)
    assert len(frozen.threads) == threads
    (settled,) = told(drill, events.PauseSettled)
    assert settled.content_hash == (await _content_of_one_thread(tmp_path / "one"))


async def _content_of_one_thread(folder: pathlib.Path) -> str | None:
    async with drill_of(folder, 1) as drill:
        await drill.tick(2)
        await drill.pause(["web-0"])
        (settled,) = told(drill, events.PauseSettled)
    return str(settled.content_hash)


@pytest.mark.parametrize("kind", ["free-pages", "second-writer"])
async def test_what_no_scan_of_writes_sees_is_in_the_next_snapshot(tmp_path: pathlib.Path, kind: Any) -> None:
    """Nothing was written since the parent but by the fault; `bytes_exact` compares every page with the oracle."""
    async with drill_of(tmp_path, 2) as drill:
        await drill.tick()
        await drill.pause(["web-0"])
        await drill.resume(["web-0"])
        await drill.inject("freeze", Harm(kind), AtChunk(0), "web-0")
        await drill.pause(["web-0"])
        await drill.clear()
        await drill.resume(["web-0"])
        view = await drill.finish()
    assert [each for each in view.judged if each.verdict != "held"] == []
    first, second = told(drill, copying.Scanned)
    seen = second.empty_bytes if kind == "free-pages" else second.dirty_bytes
    assert seen > 0
    assert (first.empty_bytes, view.faults) == (0, ())
