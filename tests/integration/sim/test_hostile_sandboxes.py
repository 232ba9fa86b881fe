"""A guest that lies, hangs or dies loses its own sandbox and nothing else: its node lives on, and it is killed."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from engine.incarnation import state_of
from sim.node import guest_link as guest_handle
from sim.node.guest import GuestSpec
from sim.node.guest_link import Guest
from sim.node.zygote_link import ZygoteLink
from sim.record import events
from tests.descriptors import open_before

ROOT = pathlib.Path(__file__).parents[3]
DEADLINE = 1.0
WaitUntil = Callable[..., Any]

# A guest in all but what it does when asked: each behaviour is what one of them does instead.
HOSTILE = """
import json, os, signal, socket, sys, time
from engine import linux
from sim.record.oracle import PAGE
behaviour, fd, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
linux.set_parent_death_signal(signal.SIGKILL)
control = socket.socket(fileno=fd)
side = size // PAGE * 5 + 4

def memfd(size):
    fd = os.memfd_create("hostile", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    return fd

def hang():
    while True:
        time.sleep(60)

HELLO = json.dumps({"id": 0, "address": 4096, "memfd_fd": 5, "side_fd": 6, "tracker": "none"})

def hand_over(fds, hello=HELLO):
    socket.send_fds(control, [hello.encode()], fds)

match behaviour:
    case "says nothing":
        hang()
    case "dies":
        os._exit(3)
    case "chatters":
        while True:
            control.send(b'{"id": 7}')
    case "hands over one fd":
        hand_over([memfd(size)])
    case "hands over a file that is no memfd":
        hand_over([os.open("/dev/zero", os.O_RDWR), memfd(side)])
    case "hands over a memfd of another size":
        hand_over([memfd(size // 2), memfd(side)])
    case "hands over generations that are no memfd":
        hand_over([memfd(size), os.pipe()[0]])
    case "hands over generations that are cut short":
        hand_over([memfd(size), memfd(side - 1)])
    case "says nothing in JSON":
        hand_over([memfd(size), memfd(side)], '{"id": 0')
    case "refuses in a list":
        control.send(b'["refused"]')
    case "says nothing of its address":
        hand_over([memfd(size), memfd(side)], '{"id": 0, "memfd_fd": "../../1/fd/3", "side_fd": 6}')
    case _:
        hand_over([memfd(size), memfd(side)])
while request := control.recv(65536):
    number, op = (command := json.loads(request))["id"], command["op"]
    match op, behaviour:
        case "arm", "does not arm":
            hang()
        case "arm", "answers to arm in Latin-1":
            control.send("\\xe9".encode("latin-1"))
        case "arm", _:
            control.send(json.dumps({"id": number, "tracker": 17}).encode())
        case "tick", "does not tick":
            hang()
        case "tick", "answers to a tick with an older number":
            while True:
                control.send(json.dumps({"id": number - 1}).encode())
        case "tick", "answers to a tick with no JSON":
            control.send(b"\\0" * 100)
        case "tick", "answers to a tick with a list":
            control.send(b"[]")
        case "tick", "closes its socket at a tick":
            control.close()
            hang()
        case "tick", "dies at a tick":
            os.kill(os.getpid(), signal.SIGSEGV)
hang()
"""

AT_BIRTH = [
    "says nothing",
    "dies",
    "chatters",
    "hands over one fd",
    "hands over a file that is no memfd",
    "hands over a memfd of another size",
    "hands over generations that are no memfd",
    "hands over generations that are cut short",
    "says nothing in JSON",
    "refuses in a list",
    "says nothing of its address",
    "does not arm",
    "answers to arm in Latin-1",
]
AT_A_TICK = [
    "does not tick",
    "answers to a tick with an older number",
    "answers to a tick with no JSON",
    "answers to a tick with a list",
    "closes its socket at a tick",
    "dies at a tick",
]


class HostileZygote:
    """Gives `web-0` hostile guests, and every other sandbox those of the zygote."""

    def __init__(self, honest: ZygoteLink) -> None:
        self.honest = honest
        self.zygote_pid, self.pidfd = honest.zygote_pid, honest.pidfd
        self.behaviour = "is honest"
        self.processes: list[subprocess.Popen[bytes]] = []

    def spawn(self, spec: GuestSpec) -> Guest:
        if spec["sandbox"] != "web-0" or self.behaviour == "is honest":
            return self.honest.spawn(spec)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-c", HOSTILE, self.behaviour, str(theirs.fileno()), str(spec["memory"])]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT, stderr=subprocess.DEVNULL)
        self.processes.append(process)
        return Guest(spec, process.pid, ours, os.pidfd_open(process.pid))

    def end(self) -> None:
        self.honest.end()

    def reap(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
async def fleet(machine: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two sandboxes of a node in this process; `web-0` does what `fleet.link.behaviour` says from its next birth on."""
    node = machine.node(count=2)
    node.link = HostileZygote(node.link)
    yield node
    monkeypatch.undo()
    await node.shut_down()
    node.link.reap()


def reason_of(machine: Any, name: str) -> tuple[str, str | None]:
    sandbox = machine.view().sandboxes[name]
    return sandbox.state, sandbox.stop_reason


@pytest.mark.parametrize("behaviour", AT_BIRTH)
async def test_a_hostile_newborn_fails_its_resume_and_is_killed(
    machine: Any, fleet: Any, behaviour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.create()
    await fleet.tick(1)
    await fleet.pause(["web-0"], 1, settled=True)
    fds = open_before()
    fleet.link.behaviour = behaviour
    with monkeypatch.context() as impatient:
        if behaviour != "dies":  # it needs time to begin
            impatient.setattr(guest_handle, "DEADLINE", DEADLINE)
        await fleet.resume(["web-0"])
    assert reason_of(machine, "web-0") == ("paused", "paused")
    assert machine.view().sandboxes["web-0"].reason.startswith("the resume failed: ")
    (hostile,) = fleet.link.processes
    assert hostile.wait(5) == 3 if behaviour == "dies" else hostile.wait(5) == -signal.SIGKILL
    assert len(os.listdir("/proc/self/fd")) == fds
    await fleet.tick(1)
    assert reason_of(machine, "web-1") == ("running", None)
    fleet.link.behaviour = "is honest"
    await fleet.resume(["web-0"])
    await fleet.tick(1)
    assert reason_of(machine, "web-0") == ("running", None)


@pytest.mark.parametrize("behaviour", AT_A_TICK)
async def test_a_guest_that_breaks_its_tick_is_killed_and_its_sandbox_crashed(
    machine: Any, fleet: Any, behaviour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.link.behaviour = behaviour
    await fleet.create()
    with monkeypatch.context() as impatient:
        impatient.setattr(guest_handle, "DEADLINE", DEADLINE)
        await fleet.tick(1)
    assert reason_of(machine, "web-0") == ("killed", "crashed")
    (hostile,) = fleet.link.processes
    assert hostile.wait(5) in {-signal.SIGKILL, -signal.SIGSEGV}
    assert [each.event.incarnation for each in machine.entries() if isinstance(each.event, events.GuestEnded)] == [
        "web-0.1"
    ]
    await fleet.tick(1)
    await fleet.pause(["web-1"], 1, settled=True)
    assert reason_of(machine, "web-1") == ("paused", "paused")


@pytest.fixture
def stopped(machine: Any) -> Callable[[str], int]:
    """Stops a real guest from outside; gives its pid."""

    def stop(name: str) -> int:
        pid: int = machine.view().sandboxes[name].pid
        os.kill(pid, signal.SIGSTOP)
        return pid

    return stop


async def test_a_guest_that_somebody_else_stopped_can_still_be_paused(
    machine: Any, fleet: Any, stopped: Callable[[str], int]
) -> None:
    await fleet.create()
    await fleet.tick(1)
    stopped("web-1")
    await fleet.pause(["web-1"], 1, settled=True)
    assert reason_of(machine, "web-1") == ("paused", "paused")


async def test_a_guest_killed_from_outside_is_found_dead_by_its_pause(
    machine: Any, fleet: Any, wait_until: WaitUntil
) -> None:
    await fleet.create()
    pid = machine.view().sandboxes["web-1"].pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: state_of(pid) in {None, "Z"})
    await fleet.pause(["web-0", "web-1"], 2, settled=True)
    assert reason_of(machine, "web-1") == ("killed", "crashed")
    assert reason_of(machine, "web-0") == ("paused", "paused")
    assert fleet.budget.granted == 0
