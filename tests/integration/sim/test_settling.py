"""How pauses and guests end on a node where something lacks: a whole parent, a thread, room in the ledger, death."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import pathlib
import re
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine.errors import FreezeError
from engine.incarnation import GuestProcess, state_of
from flags.inline import flag_from
from sim.files.faults import AtChunk, failing
from sim.node.armed_faults import Fault
from sim.node.guest_link import FDS_PER_GUEST, Guest, GuestError
from sim.record import events
from sim.record.stages import Pace
from sim.run.node_link import NodeFailedError
from tests.descriptors import open_before

PTRACE_SEIZE, PTRACE_DETACH, PTRACE_O_TRACEEXIT = 0x4206, 17, 0x40


async def fleet(machine: Any, *, count: int = 2, background: bool = False) -> Any:
    machine.set_flags(background=background)
    node = machine.node(count=count)
    await node.create()
    await node.tick(1)
    return node


def states(machine: Any) -> dict[str, str]:
    return {name: each.state for name, each in machine.view().sandboxes.items()}


def told(machine: Any, kind: type[Any]) -> list[Any]:
    return [each.event for each in machine.entries() if isinstance(each.event, kind)]


def memory(node: Any, name: str = "web-0") -> bytes:
    memfd = node.sandboxes[name].guest.memory()
    return os.pread(memfd.fd, memfd.size, 0)


# -- a parent that is damaged


def break_header(machine: Any, build: str) -> None:
    path = machine.builds / build / "header"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("checkpoint", [False, True], ids=["resumed", "checkpointed"])
@pytest.mark.parametrize("use_memfd", [True, False], ids=["memfd", "process"])
async def test_a_sandbox_on_a_damaged_build_runs_on_and_its_next_pause_saves_it(
    machine: Any, checkpoint: bool, use_memfd: bool
) -> None:
    machine.flags.set(flag_from("use-memfd", use_memfd))
    node = await fleet(machine, count=1)
    if checkpoint:
        await node.checkpoint(["web-0"])
    else:
        await node.pause(["web-0"], 1, settled=True)
        await node.resume(["web-0"])
    before = memory(node)
    break_header(machine, "web-0.p1")
    await node.pause(["web-0"], 1, settled=True)
    found = machine.view().sandboxes["web-0"]
    assert found.state == "running"
    why = "build web-0.p1: the header's checksum does not match"
    assert found.reason == f"it was rolled back: {why}; its next pause keeps all of its memory"
    await node.pause(["web-0"], 1, settled=True)
    await node.resume(["web-0"])
    assert states(machine) == {"web-0": "running"}
    assert memory(node) == before
    await node.shut_down()


# -- what lacks


async def test_a_pause_for_which_there_is_no_thread_is_rolled_back_by_name(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await fleet(machine)
    real = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "pause-web-0.p1":
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    node.armed.arm(Fault(1, "copy.write", failing("EIO"), AtChunk(1), "web-0", 1, by_kernel=True))  # whose filter stays
    await node.pause(["web-0", "web-1"], 1, settled=True)
    assert states(machine) == {"web-0": "running", "web-1": "paused"}
    why = "no thread could be started for pause-web-0.p1: can't start new thread"
    assert machine.view().sandboxes["web-0"].reason == f"it could not begin: {why}"
    assert (node.budget.in_flight, node.budget.granted, node.sandboxes["web-0"].pause) == (0, 4 << 20, None)
    node.armed.clear()
    await node.pause(["web-0"], 1, settled=True)
    assert states(machine)["web-0"] == "paused"
    await node.shut_down()


async def test_copies_that_are_held_take_no_thread_from_the_others(machine: Any) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    node = await fleet(machine, background=True)
    node.set_pace(["web-0"], Pace(held=True), steps=2)  # its first chunk and the point of no return: then it answers
    await node.pause(["web-0"], 1, settled=False)
    assert node.budget.in_flight == 1
    async with asyncio.timeout(20):
        await node.tick(1)
    node.set_pace(["web-0"], Pace())
    await node.sandboxes["web-0"].settling
    assert (states(machine), node.budget.in_flight) == ({"web-0": "paused", "web-1": "running"}, 0)
    await node.shut_down()


# -- what fails when all is over


@pytest.fixture
def full_ledger(machine: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Any]], None]:
    """The ledger has no room for the next event of one kind."""

    def fill(kind: type[Any]) -> None:
        real = machine.ledger.append
        refused: list[Any] = []

        def append(event: Any, **more: Any) -> None:
            if isinstance(event, kind) and not refused:
                refused.append(event)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(event, **more)

        monkeypatch.setattr(machine.ledger, "append", append)

    return fill


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
async def test_an_outcome_that_cannot_be_told_costs_nobody_anything_and_keeps_its_record(
    machine: Any, full_ledger: Callable[[type[Any]], None], background: bool
) -> None:
    node = await fleet(machine, background=background)
    full_ledger(events.PauseSettled)
    await node.pause(["web-0"], 1, settled=True)
    assert told(machine, events.SettlingFailed) == []
    assert (node.budget.in_flight, node.sandboxes["web-0"].settling) == (0, None)
    assert states(machine)["web-0"] == "paused"
    assert [record.build for record in node.records.records()] == ["web-0.p1"], "its outcome is not in the ledger"
    await node.resume(["web-0"])
    assert states(machine)["web-0"] == "running"
    await node.shut_down()


async def test_a_pause_whose_freeze_and_outcome_cannot_be_told_is_rolled_back_and_its_guest_runs_on(
    machine: Any, full_ledger: Callable[[type[Any]], None]
) -> None:
    node = await fleet(machine, count=1)
    full_ledger(events.GuestFrozen)
    full_ledger(events.PauseSettled)
    await node.pause(["web-0"], 1, settled=True)
    assert states(machine) == {"web-0": "running"}
    assert not node.sandboxes["web-0"].guest.process.is_stopped()
    assert (node.budget.in_flight, node.budget.granted, node.ledger.lost) == (0, 4 << 20, 0)
    await node.tick(1)
    await node.pause(["web-0"], 1, settled=True)
    assert states(machine) == {"web-0": "paused"}
    await node.shut_down()


@pytest.mark.parametrize("request_", ["pause", "checkpoint"])
@pytest.mark.parametrize("line", [events.StateChanged, events.Decided])
async def test_what_cannot_say_that_it_begins_does_not_begin_and_may_be_asked_for_again(
    machine: Any, full_ledger: Callable[[type[Any]], None], line: type[Any], request_: str
) -> None:
    node = await fleet(machine, count=1)

    async def ask() -> None:
        await (node.pause(["web-0"], 1, settled=True) if request_ == "pause" else node.checkpoint(["web-0"]))

    full_ledger(line)
    with pytest.raises(OSError, match="No space"):
        await ask()
    assert states(machine) == {"web-0": "running"}
    assert (node.sandboxes["web-0"].state.value, node.budget.in_flight) == ("running", 0)
    await ask()
    assert node.sandboxes["web-0"].state.value == ("paused" if request_ == "pause" else "running")
    await node.shut_down()


async def test_a_pause_that_is_refused_and_cannot_say_so_leaves_its_guest_running(
    machine: Any, full_ledger: Callable[[type[Any]], None]
) -> None:
    node = await fleet(machine, count=1)
    node.budget.total = node.budget.granted
    full_ledger(events.PauseSettled)
    full_ledger(events.RequestRefused)
    await node.pause(["web-0"], 1, settled=True)
    assert states(machine) == {"web-0": "running"}
    assert node.sandboxes["web-0"].state.value == "running"
    await node.shut_down()


async def test_what_is_resumed_from_a_build_whose_end_could_not_be_told_stands_on_that_build(
    machine: Any, full_ledger: Callable[[type[Any]], None]
) -> None:
    node = await fleet(machine, count=1, background=True)
    full_ledger(events.PauseSettled)
    await node.pause(["web-0"], 1, settled=True)
    await node.resume(["web-0"])
    before = memory(node)
    await node.pause(["web-0"], 1, settled=True)  # nothing was written since: all of it is in the first build
    await node.resume(["web-0"])
    assert states(machine) == {"web-0": "running"}
    assert memory(node) == before
    await node.shut_down()


async def test_a_run_in_which_an_end_could_not_be_carried_out_comes_to_no_verdict(runs: Any) -> None:
    async with runs.drill(count=1) as drill:
        drill.note(events.SettlingFailed("OSError: it was full"))
        with pytest.raises(NodeFailedError, match="could not be carried out: OSError: it was full"):
            await drill.finish()
    assert drill.view().ended is None
    runs.assert_nothing_is_left()


async def test_generations_that_a_new_guest_takes_only_a_part_of_are_no_success(machine: Any) -> None:
    node = await fleet(machine, count=1)
    with pytest.raises(GuestError, match="its generations could not be restored"):
        node.sandboxes["web-0"].guest.restore_generations(bytes(1 << 20))  # of a sealed file of 5 KiB
    await node.shut_down()


# -- a guest that will not die


class Undying:
    """Keeps a process from ending, as a stuck disk would: the kernel stops it on its way out, for whoever traces it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        if self._ptrace(PTRACE_SEIZE, PTRACE_O_TRACEEXIT):
            pytest.skip("needs ptrace of a child's child (Yama, seccomp)")

    def let_go(self) -> None:
        self._ptrace(PTRACE_DETACH, 0)

    def _ptrace(self, request: int, data: int) -> int:
        libc = ctypes.CDLL(None)
        libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        libc.ptrace.restype = ctypes.c_long
        return int(libc.ptrace(request, self._pid, None, data))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a guest's death gives up soon."""
    for act in (GuestProcess.kill, GuestProcess.await_death):
        monkeypatch.setattr(act, "__defaults__", (0.3,))


@pytest.mark.usefixtures("impatient")
async def test_a_guest_that_does_not_die_ends_its_sandbox_and_no_run(machine: Any) -> None:
    node = await fleet(machine)
    undying = Undying(machine.view().sandboxes["web-0"].pid)
    try:
        await node.kill(["web-0", "web-1"])
        assert states(machine) == {"web-0": "killed", "web-1": "killed"}
        reason = machine.view().sandboxes["web-0"].reason
        assert reason == "killed on request, but web-0.1: the guest did not die within 0.3 s"
        assert [each.incarnation for each in told(machine, events.GuestEnded)] == ["web-1.1"]
        assert machine.view().memory.guests == 4 << 20, "it still holds its memory"
    finally:
        undying.let_go()
    await node.shut_down()
    assert [each.incarnation for each in told(machine, events.GuestEnded)] == ["web-1.1", "web-0.1"]


def test_a_late_guest_that_does_not_die_is_no_fault_of_the_one_that_is_asked_for(
    zygotes: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    zygote = zygotes()
    link = zygote.connect()
    zygote.answer_too_late(link, "web-0.1")

    def outlive(guest: Guest) -> None:
        raise FreezeError(f"{guest.name}: the guest did not die within 10 s")

    with monkeypatch.context() as patch:
        patch.setattr(Guest, "kill", outlive)
        (guest,) = zygote.spawn(link, "web-1.1")
    assert guest.name == "web-1.1"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EIO], ids=["EPERM", "EIO"])
@pytest.mark.parametrize("may_be_killed", [True, False], ids=["killed", "out-of-reach"])
async def test_a_guest_that_cannot_be_woken_ends_its_sandbox_and_never_runs_again(
    machine: Any, monkeypatch: pytest.MonkeyPatch, number: int, may_be_killed: bool
) -> None:
    node = await fleet(machine)
    pid = node.sandboxes["web-0"].guest.pid
    real = signal.pidfd_send_signal

    def refuse(pidfd: int, sent: int, *rest: Any) -> None:
        of = int(re.findall(r"Pid:\t(\d+)", pathlib.Path(f"/proc/self/fdinfo/{pidfd}").read_text())[0])
        if of == pid and (sent == signal.SIGCONT or (sent == signal.SIGKILL and not may_be_killed)):
            raise OSError(number, os.strerror(number))
        real(pidfd, sent, *rest)

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    node.armed.arm(Fault(1, "copy.write", failing("EIO"), AtChunk(0), "web-0", 1))
    await node.pause(["web-0", "web-1"], 2, settled=True)
    view = machine.view()
    assert {name: each.state for name, each in view.sandboxes.items()} == {"web-0": "killed", "web-1": "paused"}
    assert "it was not woken" in view.sandboxes["web-0"].reason
    assert state_of(pid) in ({None, "Z"} if may_be_killed else {"T"})
    await node.shut_down()


async def test_a_guest_takes_no_more_files_of_its_node_than_is_asked_for_before_the_start(machine: Any) -> None:
    machine.set_flags()
    node = machine.node(count=6)
    before, most = open_before(), 0
    await node.create()
    await node.tick(1)
    node.set_pace(list(node.sandboxes), Pace(1.0, held=True))
    pausing = asyncio.ensure_future(node.pause(list(node.sandboxes), 6, settled=True))
    async with asyncio.timeout(20):
        while any(each.pause is None or each.pause.cache is None for each in node.sandboxes.values()):
            most = max(most, len(os.listdir("/proc/self/fd")))
            await asyncio.sleep(0.001)
        most = max(most, len(os.listdir("/proc/self/fd")))
        node.set_pace(list(node.sandboxes), Pace())
        await pausing
    assert (FDS_PER_GUEST - 2) * 6 < most - before <= FDS_PER_GUEST * 6
    await node.shut_down()
