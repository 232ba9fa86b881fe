"""A node dies between an act and its being told: the next one finds out from records, builds and processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.effects import Effects
from engine.events import Event
from engine.evidence import as_json
from engine.incarnation import PunchPermit, state_of
from engine.memfd import Memfd
from engine.pause import Pause
from sim.files.faults import AtChunk, failing
from sim.files.lifecycle import State
from sim.node.armed_faults import Fault
from sim.node.guest_link import Guest, GuestError
from sim.node.node import Node
from sim.record import events
from sim.record.oracle import generations, key_of, mismatches
from sim.rules.reality import pieces
from tests.story import harm

WaitUntil = Callable[..., Any]


class CutLedger:
    """Loses everything from the first event of a kind on: its node is dead from there, and does not know it."""

    def __init__(self, ledger: Any, kind: type[Event]) -> None:
        self._ledger = ledger
        self._kind = kind
        self._is_cut = False

    def append(self, event: Event, **of: Any) -> None:
        self._is_cut = self._is_cut or isinstance(event, self._kind)
        if not self._is_cut:
            self._ledger.append(event, **of)

    def try_append(self, event: Event, **of: Any) -> bool:
        self.append(event, **of)
        return True


def cut(node: Node, kind: type[Event]) -> None:
    ledger: Any = CutLedger(node.ledger, kind)
    node.ledger = ledger
    for sandbox in node.sandboxes.values():
        sandbox._ledger = ledger


def page_generations(node: Node, name: str) -> set[int]:
    """Of a living guest, whose every page must hold what its generation says."""
    guest = node.sandboxes[name].guest
    assert guest is not None
    pages, size = generations(guest.generations()), guest.spec["memory"]
    assert list(mismatches(key_of(1, name), pages, pieces(guest.memory().fd, size))) == []
    return set(pages)


def states(machine: Any) -> dict[str, str]:
    return {name: each.state for name, each in machine.view().sandboxes.items()}


def outcome(machine: Any, pause: str) -> Any:
    return next(each.outcome for each in machine.view().pauses if each.id == pause)


async def begun(machine: Any, *, punch: bool = True, background: bool = False, in_place: bool = False) -> Node:
    """Two sandboxes; `web-0` stands on a build of tick 1, and both have done tick 2."""
    machine.set_flags(punch=punch, background=background, in_place=in_place)
    node: Node = machine.node(count=2)
    await node.create()
    await node.tick(1)
    await node.pause(["web-0"], 1, settled=True)
    await node.resume(["web-0"])
    await node.tick(1)
    return node


def end_before_the_record(patched: pytest.MonkeyPatch) -> None:
    """A build gets its name, and its node dies before it records that."""

    def die(pause: Pause, *result: Any) -> None:
        pause._remember(*result)
        pause._settled.set()

    patched.setattr(Pause, "_tear_down", die)


def silence_web_0(patched: pytest.MonkeyPatch) -> None:
    """Asked by the next node, it does not hand its memory over."""
    real = Guest.hand_over_again

    def hand_over_again(guest: Guest) -> None:
        if guest.name.startswith("web-0"):
            raise GuestError("web-0.2 did not hand its memory over: timed out")
        real(guest)

    patched.setattr(Guest, "hand_over_again", hand_over_again)


def arm(node: Node, point: Any, error: str, chunk: int = 1) -> None:
    node.armed.arm(Fault(1, point, harm(error), AtChunk(chunk), "web-0"))


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
async def test_a_finished_build_whose_guest_is_gone_is_found_and_resumed(machine: Any, background: bool) -> None:
    node = await begun(machine, background=background)
    cut(node, events.PauseSettled)
    await node.pause(["web-0"], 1, settled=True)
    assert outcome(machine, "web-0.p2") is None
    again = await machine.crash(node)
    assert outcome(machine, "web-0.p2") == "finished"
    assert states(machine) == {"web-0": "paused", "web-1": "running"}
    await again.resume(["web-0"])
    assert page_generations(again, "web-0") == {2}
    await again.shut_down()


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
async def test_a_discard_that_was_not_told_of_is_not_resumed_from_the_build_before(
    machine: Any, background: bool
) -> None:
    node = await begun(machine, background=background)
    arm(node, "copy.write", "EIO")
    cut(node, events.PauseSettled)
    await node.pause(["web-0"], 1, settled=True)
    again = await machine.crash(node)
    assert outcome(machine, "web-0.p2") == "discarded"
    assert states(machine) == {"web-0": "discarded", "web-1": "running"}
    await again.resume(["web-0"])
    assert states(machine)["web-0"] == "discarded"
    await again.shut_down()


async def test_a_finished_checkpoint_that_was_not_told_of_is_the_parent_of_the_next_pause(machine: Any) -> None:
    node = await begun(machine, in_place=True)
    cut(node, events.PauseSettled)
    await node.checkpoint(["web-0"])
    again = await machine.crash(node)
    assert states(machine) == {"web-0": "running", "web-1": "running"}
    assert outcome(machine, "web-0.p2") == "finished"
    await again.pause(["web-0"], 1, settled=True)
    await again.resume(["web-0"])
    assert page_generations(again, "web-0") == {2}
    await again.shut_down()


async def test_a_resume_that_was_not_told_of_costs_nothing(machine: Any, wait_until: WaitUntil) -> None:
    node = await begun(machine)
    await node.pause(["web-0"], 1, settled=True)
    cut(node, events.GuestSpawned)
    await node.resume(["web-0"])
    untold = node.sandboxes["web-0"].guest
    assert untold is not None
    again = await machine.crash(node)
    assert states(machine) == {"web-0": "paused", "web-1": "running"}
    wait_until(untold.is_dead)
    await again.resume(["web-0"])
    assert page_generations(again, "web-0") == {2}
    await again.shut_down()


@pytest.fixture
def last_punch(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Every pause waits for it before it punches chunk 1, the last: all is published, and nothing is finished."""
    gate, real = threading.Event(), Effects.punch

    def punch(effects: Effects, memfd: Memfd, offset: int, length: int, permit: PunchPermit, chunk: Any) -> None:
        if chunk is not None and chunk.index == 1:
            assert gate.wait(30)
        real(effects, memfd, offset, length, permit, chunk)

    gate.set()
    monkeypatch.setattr(Effects, "punch", punch)
    yield gate
    gate.set()


async def resumed_from_a_copy(machine: Any, last_punch: threading.Event) -> tuple[Node, asyncio.Task[None]]:
    """`web-0` runs from a build that is still being copied; nothing more is told."""
    node = await begun(machine, background=True)
    last_punch.clear()
    await node.pause(["web-0"], 1, settled=False)
    settling = node.sandboxes["web-0"].settling
    await node.resume(["web-0"])
    assert states(machine)["web-0"] == "running"
    assert settling is not None
    cut(node, Event)
    return node, settling


async def test_a_guest_resumed_from_a_build_that_was_cut_off_is_discarded_with_it(
    machine: Any, last_punch: threading.Event
) -> None:
    node, settling = await resumed_from_a_copy(machine, last_punch)
    resumed = node.sandboxes["web-0"].guest
    assert resumed is not None
    again = await machine.crash(node)
    assert states(machine) == {"web-0": "discarded", "web-1": "running"}
    assert outcome(machine, "web-0.p2") == "discarded"
    assert resumed.is_dead()
    assert list(machine.builds.glob("web-0.p2*")) == []
    last_punch.set()
    await settling
    await again.shut_down()


async def test_a_guest_resumed_from_a_build_that_finished_untold_runs_on_and_stands_on_it(
    machine: Any, last_punch: threading.Event
) -> None:
    node, settling = await resumed_from_a_copy(machine, last_punch)
    last_punch.set()
    await settling
    again = await machine.crash(node)
    assert states(machine) == {"web-0": "running", "web-1": "running"}
    assert outcome(machine, "web-0.p2") == "finished"
    assert again.sandboxes["web-0"].header.build == "web-0.p2"
    await again.pause(["web-0"], 1, settled=True)
    await again.resume(["web-0"])
    assert page_generations(again, "web-0") == {2}
    await again.shut_down()


async def test_an_uncondemned_guest_that_died_with_its_node_is_crashed(machine: Any, wait_until: WaitUntil) -> None:
    node = await begun(machine)
    cut(node, events.GuestFrozen)
    arm(node, "copy.read", "EIO", 0)
    await node.pause(["web-0"], 1, settled=True)
    pid = machine.view().sandboxes["web-0"].pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: state_of(pid) in {None, "Z"})
    again = await machine.crash(node)
    assert (states(machine)["web-0"], machine.view().sandboxes["web-0"].stop_reason) == ("killed", "crashed")
    await again.shut_down()


async def test_a_guest_that_does_not_hand_over_again_is_killed_and_costs_no_other(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await begun(machine)
    silent = node.sandboxes["web-0"].guest
    assert silent is not None
    silence_web_0(monkeypatch)
    again = await machine.crash(node)
    assert states(machine) == {"web-0": "killed", "web-1": "running"}
    assert silent.is_dead()
    await again.tick(1)
    assert page_generations(again, "web-1") == {3}
    await again.shut_down()


@pytest.mark.parametrize("answers", [False, True])
async def test_a_finished_build_without_a_record_is_deleted_only_for_a_guest_that_runs_on(
    machine: Any, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """The node died between the build's name and the record: one of the two, guest or build, must be left."""
    node = await begun(machine, punch=False)
    with monkeypatch.context() as patched:
        end_before_the_record(patched)
        cut(node, events.PauseSettled)
        await node.pause(["web-0"], 1, settled=True)
    assert (machine.builds / "web-0.p2").is_dir()
    with monkeypatch.context() as patched:
        if not answers:
            silence_web_0(patched)
        again = await machine.crash(node)
    assert states(machine)["web-0"] == ("running" if answers else "paused")
    assert outcome(machine, "web-0.p2") == ("rolled-back" if answers else "finished")
    assert (machine.builds / "web-0.p2").is_dir() is not answers
    if not answers:
        await again.resume(["web-0"])
    assert page_generations(again, "web-0") == {2}
    await again.shut_down()


async def test_a_guest_that_was_resumed_after_a_failed_resume_is_known_to_the_next_node(machine: Any) -> None:
    """Its number is not how many guests there were: the one that failed was never told of."""
    node = await begun(machine)
    await node.pause(["web-0"], 1, settled=True)
    node.armed.arm(Fault(1, "guest.spawn", failing("EAGAIN"), AtChunk(0), "web-0", 1))
    await node.resume(["web-0"])
    await node.resume(["web-0"])
    assert machine.view().sandboxes["web-0"].incarnation == "web-0.4"
    again = await machine.crash(node)
    assert states(machine) == {"web-0": "running", "web-1": "running"}
    await again.tick(1)
    await again.pause(["web-0"], 1, settled=True)
    await again.resume(["web-0"])
    assert machine.view().sandboxes["web-0"].incarnation == "web-0.5"
    assert page_generations(again, "web-0") == {3}
    await again.shut_down()


def damage_header(machine: Any, build: str) -> None:
    with (machine.builds / build / "header").open("r+b") as file:
        file.seek(40)
        file.write(b"damage")


async def test_a_guest_whose_build_is_damaged_runs_on_and_its_next_pause_keeps_everything(machine: Any) -> None:
    """The build that it was resumed from cannot be read: what is clean since then is nowhere but in its memory."""
    node = await begun(machine)
    await node.pause(["web-0"], 1, settled=True)
    await node.resume(["web-0"])
    damage_header(machine, "web-0.p2")
    again = await machine.crash(node)
    assert states(machine) == {"web-0": "running", "web-1": "running"}
    await again.pause(["web-0"], 1, settled=True)
    shutil.rmtree(machine.builds / "web-0.p2")
    await again.resume(["web-0"])
    assert states(machine)["web-0"] == "running"
    assert page_generations(again, "web-0") == {2}
    await again.shut_down()


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
@pytest.mark.parametrize("checkpoint", [False, True], ids=["pause", "checkpoint"])
async def test_a_damaged_build_that_was_not_told_of_costs_no_other_sandbox(
    machine: Any, checkpoint: bool, background: bool
) -> None:
    node = await begun(machine, background=background, in_place=True)
    cut(node, events.PauseSettled)
    await (node.checkpoint(["web-0"]) if checkpoint else node.pause(["web-0"], 1, settled=True))
    damage_header(machine, "web-0.p2")
    again = await machine.crash(node)
    assert outcome(machine, "web-0.p2") == "finished"
    assert states(machine) == {"web-0": "running" if checkpoint else "paused", "web-1": "running"}
    if checkpoint:
        await again.pause(["web-0"], 1, settled=True)
        shutil.rmtree(machine.builds / "web-0.p2")
    await again.resume(["web-0"])
    assert states(machine)["web-0"] == ("running" if checkpoint else "paused")
    if checkpoint:
        assert page_generations(again, "web-0") == {2}
    await again.shut_down()


async def test_a_sandbox_paused_into_a_damaged_build_stays_paused_and_costs_no_other(machine: Any) -> None:
    node = await begun(machine)
    await node.pause(["web-0"], 1, settled=True)
    damage_header(machine, "web-0.p2")
    again = await machine.crash(node)
    await again.resume(["web-0"])
    found = machine.view().sandboxes["web-0"]
    assert found.state == "paused"
    assert "build web-0.p2: the header's checksum does not match" in found.reason
    await again.tick(1)
    assert page_generations(again, "web-1") == {3}
    await again.shut_down()


async def test_after_the_grace_there_is_a_new_zygote_and_what_was_paused_can_be_resumed(
    machine: Any, wait_until: WaitUntil
) -> None:
    machine.grace = 0.2
    node = await begun(machine)
    await node.pause(["web-0"], 1, settled=True)
    node.link._connection.close()
    await asyncio.to_thread(wait_until, lambda: machine.processes() == [])
    again = await machine.crash(node)
    assert states(machine) == {"web-0": "paused", "web-1": "killed"}
    await again.resume(["web-0"])
    assert page_generations(again, "web-0") == {2}
    await again.shut_down()


async def test_two_crashes_in_a_row_are_one(machine: Any) -> None:
    node = await begun(machine)
    cut(node, events.PauseSettled)
    arm(node, "copy.write", "EIO")
    await node.pause(["web-0"], 1, settled=True)
    again = await machine.crash(await machine.crash(node))
    assert states(machine) == {"web-0": "discarded", "web-1": "running"}
    await again.tick(1)
    assert page_generations(again, "web-1") == {3}
    await again.shut_down()


async def test_a_partial_build_that_cannot_be_deleted_keeps_no_condemned_guest_alive(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a recovery fails at it must not fail at before the condemned are dead."""
    node = await begun(machine)
    guest = node.sandboxes["web-0"].guest
    assert guest is not None
    real, pid = shutil.rmtree, guest.pid
    stuck = node.builds / "web-0.p2.partial"
    stuck.mkdir()
    node.records.condemn(guest.process.incarnation, "web-0.p2")
    died: list[bool] = []

    def rmtree(path: Any, ignore_errors: bool = False, **options: Any) -> None:
        if Path(path) != stuck:
            real(path, ignore_errors, **options)
            return
        died.append(state_of(pid) in {None, "Z"})
        if not ignore_errors:
            raise PermissionError

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    again = await machine.crash(node)
    assert died == [True]
    assert state_of(pid) in {None, "Z"}
    monkeypatch.setattr(shutil, "rmtree", real)
    await again.shut_down()


@pytest.mark.parametrize("woken", [False, True], ids=["left-alone", "woken-meanwhile"])
async def test_a_frozen_guest_of_a_crashed_node_is_compared_with_its_freeze_before_it_is_woken(
    machine: Any, wait_until: WaitUntil, woken: bool
) -> None:
    node = await begun(machine)
    sandbox = node.sandboxes["web-0"]
    assert sandbox.guest is not None
    process = sandbox.guest.process
    sandbox.to(State.PAUSING, "a pause was requested")
    decided = node.flags.decide(sandbox.config.attributes(), "pause")
    node.ledger.append(events.Decided(decided.as_fields(), []), sandbox="web-0", pause="web-0.p2")
    process.freeze()
    frozen = events.GuestFrozen(sandbox.guest.name, 1.0, as_json(process.frozen))
    node.ledger.append(frozen, sandbox="web-0", pause="web-0.p2")
    if woken:
        signal.pidfd_send_signal(process.pidfd, signal.SIGCONT)
        wait_until(lambda: not process.is_stopped())
        signal.pidfd_send_signal(process.pidfd, signal.SIGSTOP)
        wait_until(process.is_stopped)
    again = await machine.crash(node)
    assert states(machine)["web-0"] == "running"
    thawed = [each.event for each in machine.entries() if isinstance(each.event, events.GuestThawed)]
    assert [each.code for each in thawed] == (["ran"] if woken else [None])
    assert page_generations(again, "web-0") == {2}
    await again.shut_down()
