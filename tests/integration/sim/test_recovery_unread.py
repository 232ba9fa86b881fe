"""A restarted node that cannot read something just now, or finds a guest and a build that belong to two moments."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from engine.dirty import Forgotten
from engine.pause import Pause
from engine.snapshot import Build, template
from sim.files.faults import AtChunk, failing
from sim.node import recovery
from sim.node.armed_faults import Fault
from sim.node.node import Node
from sim.node.pausing import Pausing
from sim.record import events
from sim.rules import judge
from sim.rules.evidence import Evidence
from sim.rules.reality import Reality
from tests.failing_reads import FailingReads
from tests.integration.sim.test_recovery_windows import (
    begun,
    cut,
    end_before_the_record,
    outcome,
    page_generations,
    silence_web_0,
    states,
)

WaitUntil = Callable[..., Any]


class Rules:
    """Looks at a machine as a run's barriers do, and judges it."""

    def __init__(self, machine: Any) -> None:
        self._machine = machine
        self._reality = Reality(machine.run, 1, machine.folder, machine.builds, machine.sockets)

    def violations(self) -> dict[str, list[str]]:
        """What each rule that is violated says."""
        evidence = Evidence(self._machine.entries(), reality=self._reality)
        found = {name: [each["reason"] for each in finding.violations] for name, finding in judge(evidence).items()}
        return {name: reasons for name, reasons in found.items() if reasons}


def header_of(node: Node, build: str) -> Any:
    with closing(Build.open(node.builds, build)) as found:
        return found.header


def reasons(machine: Any, name: str) -> list[str]:
    changed = (each.event for each in machine.entries() if each.sandbox == name)
    return [each.reason for each in changed if isinstance(each, events.StateChanged)]


async def recovered(machine: Any, node: Node, nth: int, number: int) -> tuple[Node, bool]:
    """The next node, whose read number `nth` of `web-0.p2` fails; and whether there were as many."""
    with pytest.MonkeyPatch.context() as patched:
        reads = FailingReads(machine.builds / "web-0.p2", nth, number).install(patched)
        again = await machine.crash(node)
    return again, reads.has_failed


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
async def test_whatever_read_fails_once_a_paused_sandbox_resumes_with_the_header_on_disk(
    machine: Any, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr("sim.node.node.on_tmpfs", lambda _folder: True)  # what its caches hold is asked too
    node = await begun(machine)
    await node.pause(["web-0"], 1, settled=True)
    nth, failed, rules = 1, True, Rules(machine)
    while failed:
        node, failed = await recovered(machine, node, nth, number)
        nth += 1
    assert nth > 4
    node, _ = await recovered(machine, node, 1, number)
    assert states(machine)["web-0"] == "paused"
    await node.resume(["web-0"])
    assert node.sandboxes["web-0"].header == header_of(node, "web-0.p2")
    assert page_generations(node, "web-0") == {2}
    await node.pause(["web-0"], 1, settled=True)
    await node.resume(["web-0"])
    assert page_generations(node, "web-0") == {2}
    assert rules.violations() == {}
    await node.shut_down()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
async def test_whatever_read_fails_once_a_running_guests_next_build_holds_all_of_its_memory(
    machine: Any, number: int
) -> None:
    node = await begun(machine)
    await node.pause(["web-0"], 1, settled=True)
    await node.resume(["web-0"])
    nth, failed = 1, True
    while failed:
        node, failed = await recovered(machine, node, nth, number)
        sandbox = node.sandboxes["web-0"]
        whole, alone = header_of(node, "web-0.p2"), template(sandbox.config.memory, sandbox.config.block_size)
        assert sandbox.header == (alone if failed else whole)
        assert sandbox.guest is not None
        assert isinstance(sandbox.guest.tracker, Forgotten) is failed
        nth += 1
    assert nth > 3
    node, _ = await recovered(machine, node, 1, number)
    await node.pause(["web-0"], 1, settled=True)
    assert outcome(machine, "web-0.p3") == "finished"
    await node.resume(["web-0"])
    assert page_generations(node, "web-0") == {2}
    assert Rules(machine).violations() == {}
    await node.shut_down()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
async def test_whatever_read_fails_once_a_resume_costs_nothing(machine: Any, number: int) -> None:
    node = await begun(machine)
    await node.pause(["web-0"], 1, settled=True)
    nth = 1
    while states(machine)["web-0"] == "paused":
        with pytest.MonkeyPatch.context() as patched:
            FailingReads(machine.builds / "web-0.p2", nth, number).install(patched)
            await node.resume(["web-0"])
        nth += 1
    assert nth > 5
    assert sum("cannot be read" in each for each in reasons(machine, "web-0")) >= 3
    assert node.sandboxes["web-0"].header == header_of(node, "web-0.p2")
    assert page_generations(node, "web-0") == {2}
    await node.shut_down()


@pytest.mark.parametrize(("answers", "dropped"), [(True, True), (True, False), (False, True)])
async def test_a_consuming_checkpoint_without_a_record_leaves_its_guest_or_its_build(
    machine: Any, monkeypatch: pytest.MonkeyPatch, answers: bool, dropped: bool
) -> None:
    """The node died between the build's name and the record; and the build may be one that cannot be deleted."""
    node, rules = await begun(machine, punch=False), Rules(machine)

    def full(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        end_before_the_record(patched)
        cut(node, events.PauseSettled)
        await node.checkpoint(["web-0"])
    with monkeypatch.context() as patched:
        if not answers:
            silence_web_0(patched)
        if not dropped:
            patched.setattr(recovery, "delete_build", full)
        again = await machine.crash(node)
    assert states(machine)["web-0"] == ("running" if answers else "paused")
    assert outcome(machine, "web-0.p2") == ("rolled-back" if answers else "finished")
    assert rules.violations() == {}
    if not answers:
        await again.resume(["web-0"])
    assert page_generations(again, "web-0") == {2}
    await again.pause(["web-0"], 1, settled=True)
    await again.resume(["web-0"])
    assert page_generations(again, "web-0") == {2}
    assert rules.violations() == {}
    await again.shut_down()


class DecisionError(Exception):
    """Ends a pause where SIGKILL would have ended its node: it has no line yet."""


@pytest.mark.parametrize("lives", [False, True])
@pytest.mark.parametrize("request_of", ["pause", "checkpoint"])
async def test_a_pause_that_left_no_line_is_not_taken_for_the_one_before(
    machine: Any, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil, request_of: str, lives: bool
) -> None:
    node = await begun(machine)  # `web-0` stands on a finished build of tick 1, and has done tick 2

    def decide(*_: object) -> Any:
        raise DecisionError

    with monkeypatch.context() as patched:
        patched.setattr(node.flags, "decide", decide)
        asked = node.pause(["web-0"], 1, settled=True) if request_of == "pause" else node.checkpoint(["web-0"])
        with pytest.raises(DecisionError):
            await asked
    guest = node.sandboxes["web-0"].guest
    assert guest is not None
    if not lives:
        os.kill(guest.pid, signal.SIGKILL)
        wait_until(guest.is_dead)
    again = await machine.crash(node)
    found = machine.view().sandboxes["web-0"]
    assert (found.state, found.stop_reason) == (("running", None) if lives else ("killed", "crashed"))
    if lives:
        assert found.reason == "it was rolled back: the node crashed"
        assert page_generations(again, "web-0") == {2}
    assert Rules(machine).violations() == {}
    await again.shut_down()


async def test_a_guest_that_was_paused_and_could_be_neither_ended_nor_condemned_does_not_run_on(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outcome is recorded, and the node died before it said that the sandbox is paused."""
    node, rules = await begun(machine, punch=False), Rules(machine)

    async def die(*_: object) -> None:
        pass

    node.armed.arm(Fault(1, "condemn", failing("EIO"), AtChunk(0), "web-0"))
    node.armed.arm(Fault(2, "teardown", failing("EPERM"), AtChunk(0), "web-0"))
    guest = node.sandboxes["web-0"].guest
    assert guest is not None
    with monkeypatch.context() as patched:
        patched.setattr(Pausing, "_finished", die)
        await node.pause(["web-0"], 1, settled=True)
    assert (outcome(machine, "web-0.p2"), guest.is_dead()) == ("finished", False)
    again = await machine.crash(node)
    assert guest.is_dead()
    assert states(machine)["web-0"] == "paused"
    assert rules.violations() == {}
    await again.resume(["web-0"])
    assert page_generations(again, "web-0") == {2}
    await again.shut_down()


@pytest.mark.parametrize("crashes", [1, 2])
@pytest.mark.parametrize("woken", [False, True], ids=["left-alone", "woken"])
@pytest.mark.parametrize("settled", [False, True], ids=["unrecorded", "recorded"])
async def test_what_a_guest_wrote_unseen_before_its_dirty_set_began_anew_is_in_its_next_build(
    machine: Any, monkeypatch: pytest.MonkeyPatch, settled: bool, woken: bool, crashes: int
) -> None:
    """Another process woke it between the checkpoint's last look and the new dirty set; then its node died."""
    node, rules = await begun(machine, in_place=True), Rules(machine)
    guest = node.sandboxes["web-0"].guest
    assert guest is not None
    real = Pause._begin_new_dirty_set

    def begin_new_dirty_set(pause: Pause) -> None:
        if woken:
            guest.wake()
        real(pause)

    async def die(*_: object) -> None:
        pass

    with monkeypatch.context() as patched:
        patched.setattr(Pause, "_begin_new_dirty_set", begin_new_dirty_set)
        patched.setattr(Pausing, "_finished", die)
        if not settled:
            cut(node, events.PauseSettled)
        await node.checkpoint(["web-0"])
    for _ in range(crashes):
        node = await machine.crash(node)
    assert reasons(machine, "web-0")[-1] == "its checkpoint is finished"
    going_on = node.sandboxes["web-0"].guest
    assert going_on is not None
    assert isinstance(going_on.tracker, Forgotten) is woken
    await node.pause(["web-0"], 1, settled=True)
    await node.resume(["web-0"])
    assert page_generations(node, "web-0") == ({2, 3} if woken else {2})
    assert rules.violations() == {}
    await node.shut_down()
