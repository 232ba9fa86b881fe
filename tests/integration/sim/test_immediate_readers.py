"""A reader right after a pause: the sandbox is resumed while its copy runs, and stands or falls with that copy."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from typing import Any

import pytest

from engine.effects import Effects
from sim.files.faults import AtChunk, failing
from sim.node.armed_faults import Fault
from sim.node.memory import PUNCHED_PEAK, most_copier_bytes
from sim.node.node import Node
from sim.record import events
from sim.record.digest import facts
from sim.rules import judge
from sim.rules.evidence import Evidence

MEMORY = 4 << 20


async def begun(machine: Any, *, background: bool = True, count: int = 2) -> Node:
    """Everybody is read at once; two chunks each, and all have done a tick."""
    machine.set_flags(punch=True, background=background)
    machine.readers = 1.0
    node: Node = machine.node(count=count)
    await node.create()
    await node.tick(1)
    return node


async def pause(node: Node, *names: str) -> None:
    await node.pause(list(names), 4, settled=True)


def arm(node: Node, point: Any, chunk: int = 0) -> None:
    node.armed.arm(Fault(1, point, failing("EIO"), AtChunk(chunk), "web-0", 1))


def states(machine: Any) -> list[str]:
    return [each.state for each in machine.view().sandboxes.values()]


async def until(machine: Any, wait_until: Callable[..., Any], kind: type[Any]) -> None:
    """Such an event is in the ledger."""
    await asyncio.to_thread(wait_until, lambda: any(isinstance(each.event, kind) for each in machine.entries()))


def broken(machine: Any) -> list[Any]:
    """What the rules find in the ledger, except that it is that of a run which still goes on."""
    found = [each for finding in judge(Evidence(machine.entries())).values() for each in finding.violations]
    return [each for each in found if "guest_ended" not in each["reason"]]


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
async def test_after_a_settled_pause_that_was_read_at_once_the_sandbox_runs(machine: Any, background: bool) -> None:
    node = await begun(machine, background=background)
    await pause(node, "web-0", "web-1")
    assert states(machine) == ["running", "running"]
    pauses = machine.view().pauses
    assert [(each.read, each.outcome, each.punched_bytes) for each in pauses] == [(True, "finished", MEMORY)] * 2
    assert [each.read_while_copied for each in pauses] == [background] * 2
    assert all(each.reader_waited_ms is not None for each in pauses)
    assert (node.budget.in_flight, node.budget.granted, list(node.records.records())) == (0, 2 * MEMORY, [])
    assert broken(machine) == []


async def test_a_copy_that_fails_takes_the_guest_along_that_had_come_to_read_it(machine: Any) -> None:
    node = await begun(machine)
    arm(node, "copy.write", 1)
    await pause(node, "web-0", "web-1")
    assert states(machine) == ["discarded", "running"]
    assert node.budget.granted == MEMORY
    assert node.sandboxes["web-0"].guest is None
    assert broken(machine) == []


async def test_a_guest_that_runs_already_when_the_very_last_act_fails_is_ended(
    machine: Any, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., Any]
) -> None:
    """And that it ran by then is no fact of the run."""
    node = await begun(machine, count=1)
    resumed = threading.Event()

    def fails_late(*_given: Any) -> None:
        resumed.wait(10)
        raise OSError(errno.EIO, "the last act failed")

    monkeypatch.setattr(Effects, "finish", fails_late)
    paused = asyncio.ensure_future(pause(node, "web-0"))
    await until(machine, wait_until, events.Resumed)
    resumed.set()
    await paused
    assert states(machine) == ["discarded"]
    assert facts(machine.entries())[0]["web-0"][-1] == ["state", "resuming", "discarded", "discarded"]
    assert (node.sandboxes["web-0"].guest, node.budget.granted) == (None, 0)


async def test_a_pause_that_rolls_back_is_read_by_nobody(machine: Any) -> None:
    node = await begun(machine)
    arm(node, "copy.write", 0)
    await pause(node, "web-0")
    assert states(machine) == ["running", "running"]
    assert not [each for each in machine.entries() if isinstance(each.event, events.Resumed)]
    assert node.budget.granted == 2 * MEMORY


async def test_a_reader_whose_memory_is_not_there_refuses_the_pause_before_anything_is_lost(machine: Any) -> None:
    node = await begun(machine)
    extra = min(PUNCHED_PEAK, MEMORY) + most_copier_bytes(MEMORY, 4096, 4096)
    node.budget.total = node.budget.granted + extra + MEMORY - 1
    await pause(node, "web-0")
    assert states(machine) == ["running", "running"]
    refused = [each.event for each in machine.entries() if isinstance(each.event, events.RequestRefused)]
    assert [each.code for each in refused] == ["budget"]
    node.budget.total += 1
    await pause(node, "web-0")
    assert machine.view().pauses[-1].outcome == "finished"
    assert (states(machine)[0], node.budget.granted) == ("running", 2 * MEMORY)


async def test_a_crash_while_a_reader_waits_discards_what_stands_on_the_copy(
    machine: Any, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., Any]
) -> None:
    node = await begun(machine, count=1)
    stop = threading.Event()

    def never_ends(*_given: Any) -> None:
        stop.wait(10)

    monkeypatch.setattr(Effects, "finish", never_ends)
    paused = asyncio.ensure_future(pause(node, "web-0"))
    await until(machine, wait_until, events.Resumed)
    try:
        await machine.crash(node)
        assert states(machine) == ["discarded"]
        settled = [each.event for each in machine.entries() if isinstance(each.event, events.PauseSettled)]
        assert [(each.outcome, each.read) for each in settled] == [("discarded", True)]
    finally:
        stop.set()
        paused.cancel()
