"""A checkpoint that is not in place: its memory is consumed, its guest ends, and a new one goes on from the build."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from engine.effects import Effects
from engine.events import ChunkPublished, Condemned, CopyFailed
from sim.files.faults import AtChunk, failing
from sim.node.armed_faults import Fault
from sim.node.guest_link import GuestError
from sim.node.memory import most_copier_bytes
from sim.node.node import Node
from sim.node.sandbox import Successor
from sim.record import events
from sim.record.digest import digest, facts
from sim.record.view import LOST_AT_CHECKPOINT
from sim.rules import judge
from sim.rules.evidence import Evidence

MEMORY = 4 << 20
BACKGROUND = pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
WaitUntil = Callable[..., Any]


async def begun(machine: Any, **flags: bool) -> Node:
    """`web-0` and `web-1`, two chunks each, and both have done a tick."""
    machine.set_flags(**flags)
    node: Node = machine.node(count=2)
    await node.create()
    await node.tick(1)
    return node


def arm(node: Node, point: Any, chunk: int | None = None) -> None:
    node.armed.arm(Fault(1, point, failing("EIO"), AtChunk(0 if chunk is None else chunk), "web-0", 1))


def state(machine: Any, name: str = "web-0") -> tuple[str, str]:
    found = machine.view().sandboxes[name]
    return found.state, found.reason


def told(machine: Any, kind: type[Any]) -> list[Any]:
    return [each.event for each in machine.entries() if isinstance(each.event, kind)]


def broken(machine: Any) -> list[Any]:
    """What the rules find in the ledger, except that it is that of a run which still goes on."""
    evidence = Evidence(machine.entries())
    found = [each for finding in judge(evidence).values() for each in finding.violations]
    return [each for each in found if "guest_ended" not in each["reason"]]


@BACKGROUND
@pytest.mark.parametrize("punch", [False, True], ids=["kept", "punched"])
async def test_a_new_guest_goes_on_with_every_byte_and_the_old_one_is_dead(
    machine: Any, background: bool, punch: bool
) -> None:
    node = await begun(machine, punch=punch, background=background)
    old = node.sandboxes["web-0"].guest
    assert old is not None
    await node.checkpoint(["web-0"])
    assert state(machine)[0] == "running"
    assert old.name == "web-0.1"
    assert [each.incarnation for each in told(machine, events.GuestEnded)] == ["web-0.1"]
    (successor,) = told(machine, events.SuccessorSpawned)
    assert (successor.incarnation, successor.replaces) == ("web-0.2", "web-0.1")
    pause = machine.view().pauses[0]
    assert (pause.incarnation, pause.successor) == ("web-0.1", "web-0.2")
    assert (pause.consumed, pause.outcome_code) == (True, "finished")
    assert pause.punched_bytes == (MEMORY if punch else 0)
    assert pause.cpu_seconds is not None
    assert 0.0 < pause.cpu_seconds < 5.0
    assert (node.budget.in_flight, node.budget.granted, list(node.records.records())) == (0, 2 * MEMORY, [])
    await node.tick(1)
    await node.pause(["web-0"], 1, settled=True)
    await node.resume(["web-0"])
    assert machine.view().sandboxes["web-0"].incarnation == "web-0.3"
    assert broken(machine) == []
    await node.shut_down()


@BACKGROUND
async def test_a_copy_that_fails_past_the_point_of_no_return_loses_the_sandbox(machine: Any, background: bool) -> None:
    node = await begun(machine, background=background)
    arm(node, "copy.write", 1)
    await node.checkpoint(["web-0", "web-1"])
    pause = machine.view().pauses[0]
    assert (pause.outcome, pause.outcome_code) == ("discarded", LOST_AT_CHECKPOINT)
    assert state(machine)[0] == "discarded"
    assert state(machine)[1].startswith("lost at its checkpoint: ")
    assert state(machine, "web-1")[0] == "running"
    assert {each.incarnation for each in told(machine, events.GuestEnded)} == {"web-0.1", "web-0.2", "web-1.1"}
    assert (node.budget.in_flight, node.budget.granted, list(node.records.records())) == (0, MEMORY, [])
    assert not list(machine.builds.glob("web-0*"))
    assert broken(machine) == []
    await node.shut_down()


@BACKGROUND
async def test_in_place_the_same_failure_costs_nothing(machine: Any, background: bool) -> None:
    node = await begun(machine, background=background, in_place=True)
    arm(node, "copy.write", 1)
    await node.checkpoint(["web-0"])
    pause = machine.view().pauses[0]
    assert (pause.outcome_code, pause.consumed, pause.successor) == ("rolled-back", False, None)
    assert state(machine)[0] == "running"
    assert not told(machine, Condemned)
    assert node.budget.granted == 2 * MEMORY
    await node.shut_down()


@BACKGROUND
async def test_what_fails_at_the_first_chunk_is_rolled_back_and_the_old_guest_runs_on(
    machine: Any, background: bool
) -> None:
    node = await begun(machine, background=background)
    arm(node, "copy.write", 0)
    await node.checkpoint(["web-0"])
    assert state(machine)[0] == "running"
    assert [each.incarnation for each in told(machine, events.GuestEnded)] == ["web-0.2"]  # empty: it was not needed
    assert (node.budget.in_flight, node.budget.granted) == (0, 2 * MEMORY)
    await node.checkpoint(["web-0"])
    assert machine.view().sandboxes["web-0"].incarnation == "web-0.3"
    assert broken(machine) == []
    await node.shut_down()


async def test_without_room_for_the_new_guest_nothing_is_frozen(machine: Any) -> None:
    node = await begun(machine)
    copiers = most_copier_bytes(MEMORY, 4096, 4096)
    node.budget.total = node.budget.granted + copiers + 2 * MEMORY - 1  # the pause needs MEMORY, and so does the guest
    await node.checkpoint(["web-0"])
    assert [each.code for each in told(machine, events.RequestRefused)] == ["budget"]
    assert not told(machine, events.GuestFrozen)
    node.budget.total += 1
    await node.checkpoint(["web-0"])
    assert machine.view().sandboxes["web-0"].incarnation == "web-0.2"
    await node.shut_down()


async def test_a_new_guest_that_cannot_be_started_is_missed_before_anything_is_frozen(machine: Any) -> None:
    node = await begun(machine)
    arm(node, "guest.spawn")
    await node.checkpoint(["web-0"])
    assert state(machine)[0] == "running"
    assert machine.view().pauses[0].outcome == "rolled-back"
    assert not told(machine, events.GuestFrozen)
    assert (node.budget.in_flight, node.budget.granted) == (0, 2 * MEMORY)
    await node.tick(1)
    await node.shut_down()


@BACKGROUND
async def test_a_new_guest_that_cannot_be_filled_leaves_the_sandbox_paused_with_its_build(
    machine: Any, background: bool
) -> None:
    node = await begun(machine, background=background)
    arm(node, "resume.read")
    await node.checkpoint(["web-0"])
    assert machine.view().pauses[0].outcome == "finished"
    assert state(machine)[0] == "paused"
    assert node.budget.granted == MEMORY
    node.armed.clear()
    await node.resume(["web-0"])
    assert state(machine)[0] == "running"
    assert broken(machine) == []
    await node.shut_down()


async def test_the_new_guest_runs_while_the_build_is_still_being_copied(
    machine: Any, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    gate, real = threading.Event(), Effects.write_header

    def write_header(effects: Effects, *arguments: Any) -> None:
        assert gate.wait(30)
        real(effects, *arguments)

    node = await begun(machine, background=True)
    monkeypatch.setattr(Effects, "write_header", write_header)
    checkpoint = asyncio.ensure_future(node.checkpoint(["web-0"]))
    await asyncio.to_thread(wait_until, lambda: told(machine, events.Resumed) and state(machine)[0] == "running")
    assert machine.view().pauses[0].settled is None
    await node.tick(1)
    gate.set()
    await checkpoint
    assert machine.view().pauses[0].outcome == "finished"
    assert node.sandboxes["web-0"].header.build == "web-0.p1"
    await node.pause(["web-0"], 1, settled=True)
    assert broken(machine) == []
    await node.shut_down()


@pytest.mark.parametrize(
    ("last", "background", "expected"),
    [
        (events.SuccessorSpawned, True, "running"),
        (events.GuestFrozen, True, "running"),
        (CopyFailed, True, "discarded"),
        (events.PauseSettled, False, "paused"),  # the build is finished
        (events.GuestSpawned, False, "paused"),  # and so it is recorded
        (events.Resumed, False, "running"),
    ],
)
async def test_a_crash_keeps_the_old_guest_the_build_or_nothing(
    machine: Any, last: type[Any], background: bool, expected: str
) -> None:
    """Nothing from the first event of that kind on is in the ledger."""
    node = await begun(machine, background=background)
    if last is CopyFailed:
        arm(node, "copy.write", 1)
    cut_off = CutLedger(node.ledger, last)
    node.ledger = cut_off  # type: ignore[assignment]
    for sandbox in node.sandboxes.values():
        sandbox._ledger = cut_off  # type: ignore[assignment]
    if last in {events.SuccessorSpawned, events.GuestFrozen}:
        arm(node, "copy.write", 0)
    await node.checkpoint(["web-0"])
    again = await machine.crash(node)
    assert state(machine)[0] == expected, state(machine)
    assert state(machine, "web-1")[0] == "running"
    if expected == "paused":
        await again.resume(["web-0"])
    if expected != "discarded":
        assert state(machine)[0] == "running"
        await again.tick(1)
        await again.pause(["web-0"], 1, settled=True)
        assert state(machine)[0] == "paused"
    await again.shut_down()


class CutLedger:
    """Loses everything from the first event of a kind on."""

    def __init__(self, ledger: Any, kind: type[Any]) -> None:
        self._ledger, self._kind, self._is_cut = ledger, kind, False

    def append(self, event: Any, **of: Any) -> None:
        self._is_cut = self._is_cut or isinstance(event, self._kind)
        if not self._is_cut:
            self._ledger.append(event, **of)

    def try_append(self, event: Any, **of: Any) -> bool:
        self.append(event, **of)
        return True


async def test_whether_the_new_guest_was_filled_before_a_late_failure_is_not_in_the_digest(
    machine: Any, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    """It is a race: the failure of the last act finds the new guest running, or still being filled."""
    node = await begun(machine, background=True)
    reached, real = threading.Event(), Effects.write_header

    def fail_late(effects: Effects, *arguments: Any) -> None:
        assert reached.wait(30)
        raise OSError(5, "late")

    monkeypatch.setattr(Effects, "write_header", fail_late)
    checkpoint = asyncio.ensure_future(node.checkpoint(["web-0"]))
    await asyncio.to_thread(wait_until, lambda: state(machine)[0] == "running" and told(machine, events.Resumed))
    reached.set()
    await checkpoint
    monkeypatch.setattr(Effects, "write_header", real)
    assert [each.new for each in told(machine, events.StateChanged)][-3:] == ["checkpointing", "running", "discarded"]
    sequence = facts(machine.entries())[0]["web-0"]
    assert sequence[-1] == ["state", "checkpointing", "discarded", "discarded"]
    assert digest(machine.entries())
    await node.shut_down()


@pytest.mark.parametrize("checkpoint", [False, True], ids=["resume", "checkpoint"])
async def test_a_guest_that_was_filled_just_before_the_last_act_failed_never_runs(
    machine: Any, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil, checkpoint: bool
) -> None:
    """The failure is recorded first: the guest may not be recorded as running on that build after it."""
    node = await begun(machine, background=True)
    filled, settled, real = threading.Event(), threading.Event(), Node._fill

    def fill(node: Node, *arguments: Any) -> int:
        written = real(node, *arguments)
        filled.set()
        assert settled.wait(30)
        return written

    def fail_late(effects: Effects, *arguments: Any) -> None:
        assert filled.wait(30)
        raise OSError(5, "late")

    monkeypatch.setattr(Node, "_fill", fill)
    monkeypatch.setattr(Effects, "write_header", fail_late)
    if checkpoint:
        acting = asyncio.ensure_future(node.checkpoint(["web-0"]))
    else:
        await node.pause(["web-0"], 1, settled=False)
        acting = asyncio.ensure_future(node.resume(["web-0"]))
    await asyncio.to_thread(wait_until, lambda: told(machine, events.PauseSettled))
    settled.set()
    await acting
    assert not told(machine, events.Resumed)
    assert state(machine)[0] == "discarded"
    assert broken(machine) == []
    await node.shut_down()


async def test_readers_of_the_copy_see_published_chunks_only(machine: Any) -> None:
    node = await begun(machine, background=True)
    await node.checkpoint(["web-0", "web-1"])
    assert len(told(machine, ChunkPublished)) == 4
    assert judge(Evidence(machine.entries()))["no_unpublished"].violations == []
    with pytest.raises(GuestError):
        await node.go_on_with(node.sandboxes["web-0"], Successor())
    await node.shut_down()
