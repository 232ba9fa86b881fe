"""Requests that meet: the same one is joined, another waits for the end and is judged again, none gets lost."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from engine.errors import FreezeError
from sim.files.faults import KILL_NODE, AtChunk, Harm, failing
from sim.node.armed_faults import Fault
from sim.node.config import SandboxConfig
from sim.node.guest_link import Guest
from sim.node.memory import most_copier_bytes
from sim.record import events
from sim.run.node_link import NodeDiedError

MIB = 1 << 20
FAULTS = ("copy.read", "copy.write", "publish", "condemn", "punch")


def states(drill: Any) -> dict[str, str]:
    return {name: each.state for name, each in drill.view().sandboxes.items()}


def violations(view: Any) -> list[Any]:
    return [(each.subject, each.violations) for each in view.judged if each.verdict != "held"]


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
async def test_two_pauses_of_one_sandbox_are_one(runs: Any, background: bool) -> None:
    async with runs.drill(background=background) as drill:
        await drill.tick()
        await asyncio.gather(drill.pause(["web-0"]), drill.pause(["web-0"]), drill.pause(["web-0", "web-1"]))
        assert states(drill) == {"web-0": "paused", "web-1": "paused"}
        assert [each.pause for each in drill.entries if isinstance(each.event, events.Decided)] == [
            "web-0.p1",
            "web-1.p1",
        ]
        view = await drill.finish()
    assert violations(view) == []


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
async def test_a_kill_waits_for_the_pause_and_then_kills(runs: Any, background: bool) -> None:
    async with runs.drill(background=background) as drill:
        await drill.tick()
        await drill.inject("copy.write", failing("EIO"), AtChunk(2), "web-1")
        names = ["web-0", "web-1"]
        pausing = asyncio.ensure_future(drill.pause(names))
        async with asyncio.timeout(30):
            while "running" in states(drill).values():  # noqa: ASYNC110 - a ledger is polled
                await asyncio.sleep(0.001)
        await asyncio.gather(pausing, drill.kill(names), drill.tick(3))
        assert states(drill) == {"web-0": "killed", "web-1": "discarded"}
        view = await drill.finish()
    assert violations(view) == []


async def test_a_kill_waits_for_the_resume_and_then_kills(runs: Any) -> None:
    async with runs.drill() as drill:
        await drill.tick()
        await drill.pause(["web-0"])
        resuming = asyncio.ensure_future(drill.resume(["web-0"]))
        async with asyncio.timeout(30):
            while states(drill)["web-0"] == "paused":  # noqa: ASYNC110 - a ledger is polled
                await asyncio.sleep(0.001)
        await asyncio.gather(resuming, drill.kill(["web-0"]))
        assert states(drill) == {"web-0": "killed", "web-1": "running"}
        view = await drill.finish()
    assert violations(view) == []


async def test_a_kill_in_the_middle_of_ticks_takes_no_other_guest_with_it(runs: Any) -> None:
    async with runs.drill(count=4) as drill:
        ticking = asyncio.ensure_future(drill.tick(40))
        await drill.kill(["web-1"])
        await drill.pause(["web-2"])
        await ticking
        assert states(drill) == {"web-0": "running", "web-1": "killed", "web-2": "paused", "web-3": "running"}
        view = await drill.finish()
    assert violations(view) == []


class Walk:
    """One random life of a fleet; a step is any request, fault or crash, some of them at the same time."""

    def __init__(self, drill: Any, seed: int) -> None:
        self.drill = drill
        self.random = random.Random(seed)
        self.names = list(drill.view().sandboxes)

    async def step(self) -> None:
        acts = self.random.sample(
            [self.tick, self.pause, self.checkpoint, self.resume, self.kill, self.flip, self.inject, self.crash], 2
        )
        done = await asyncio.gather(*(act() for act in acts), return_exceptions=True)  # at once; a barrier ends both
        for error in done:
            if isinstance(error, BaseException) and not isinstance(error, NodeDiedError):
                raise error
        if self.drill.is_down() or any(isinstance(error, NodeDiedError) for error in done):
            await self.drill.restart()
        elif self.random.random() < 0.4:
            await self.drill.clear()
        await self.drill.observe()

    def some(self) -> list[str]:
        return self.random.sample(self.names, self.random.randint(1, 3))

    async def tick(self) -> None:
        await self.drill.tick(self.random.randint(1, 3))

    async def pause(self) -> None:
        settled = self.random.random() < 0.5
        await self.drill._ask("pause", names=self.some(), concurrency=self.random.randint(1, 3), settled=settled)

    async def checkpoint(self) -> None:
        await self.drill._ask("checkpoint", names=self.some())

    async def resume(self) -> None:
        await self.drill._ask("resume", names=self.some())

    async def kill(self) -> None:
        if self.random.random() < 0.2:
            await self.drill._ask("kill", names=[self.random.choice(self.names)])

    async def flip(self) -> None:
        flag = self.random.choice(["memfd-punch-on-snapshot", "memfd-background-copy"])
        await self.drill.set_flag(flag, self.random.random() < 0.5)

    async def inject(self) -> None:
        harm = self.random.choice([failing("EIO"), failing("ENOSPC"), failing("EAGAIN"), KILL_NODE])
        place = AtChunk(self.random.randint(0, 3))
        whom = self.random.choice([*self.names[:2], "*"])
        await self.drill.inject(self.random.choice(FAULTS), harm, place, whom, 1)

    async def crash(self) -> None:
        if self.random.random() < 0.3:
            await self.drill.crash()


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_life_of_a_fleet_breaks_an_invariant(runs: Any, seed: int) -> None:
    async with runs.drill(count=6, memory="8MiB", background=bool(seed % 2)) as drill:
        walk = Walk(drill, seed)
        await drill.tick()
        for _ in range(20):
            await walk.step()
        view = await drill.finish()
    assert violations(view) == [], f"seed {seed}"
    runs.assert_nothing_is_left()


async def test_a_resume_that_waits_for_memory_holds_up_nobody_when_its_build_fails(machine: Any) -> None:
    """It stands behind a request that can never fit: that is refused once nothing is left that gives memory back."""
    machine.set_flags(punch=False, background=True)
    sizes = {"web-0": (4 * MIB, 0.25), "web-1": (8 * MIB, 1.0)}
    machine._sandboxes = [
        SandboxConfig(name, memory, 4096, 4096, "t", "acme", "c", dirty, "scattered")
        for name, (memory, dirty) in sizes.items()
    ]
    node = machine._node(machine.config())
    await node.create()
    await node.tick(1)
    node.budget.total = (12 + 1 + most_copier_bytes(4 * MIB, 4096, 4096) // MIB) * MIB
    node.armed.arm(Fault(1, "finish", Harm("hang", seconds=0.5), AtChunk(0), "web-0", 1))
    await node.pause(["web-0"], 1, settled=False)
    large = asyncio.ensure_future(node.pause(["web-1"], 1, settled=True))
    await asyncio.sleep(0)
    resuming = asyncio.ensure_future(node.resume(["web-0"]))
    async with asyncio.timeout(10):
        await asyncio.gather(large, resuming)
        await node.pause(["web-0"], 1, settled=True)
    assert {name: each.state for name, each in machine.view().sandboxes.items()} == {
        "web-0": "discarded",
        "web-1": "running",
    }
    await node.shut_down()


@pytest.fixture
def reluctant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests that were sent SIGKILL and that the kernel takes its time over, as in an uninterruptible sleep."""
    real = Guest.kill

    def kill(guest: Guest) -> None:
        real(guest)
        raise FreezeError(f"{guest.name}: the guest did not die within 10 s")

    monkeypatch.setattr(Guest, "kill", kill)


async def two_of(machine: Any, *, background: bool) -> Any:
    machine.set_flags(background=background)
    node = machine.node(count=2)
    await node.create()
    await node.tick(1)
    return node


@pytest.mark.usefixtures("reluctant")
async def test_a_failed_resume_costs_nothing_though_its_guest_does_not_die(machine: Any) -> None:
    node = await two_of(machine, background=False)
    node.armed.arm(Fault(1, "resume.read", failing("EIO"), AtChunk(0), "web-0", 1))
    await node.pause(["web-0"], 1, settled=True)
    await node.resume(["web-0"])
    assert states(machine) == {"web-0": "paused", "web-1": "running"}
    await node.resume(["web-0"])
    assert states(machine)["web-0"] == "running"
    await node.shut_down()


@pytest.mark.usefixtures("reluctant")
async def test_what_was_resumed_from_a_failed_build_is_discarded_though_it_does_not_die(machine: Any) -> None:
    node = await two_of(machine, background=True)
    node.armed.arm(Fault(1, "finish", Harm("hang", seconds=0.5), AtChunk(0), "web-0", 1))
    await node.pause(["web-0"], 1, settled=False)
    await node.resume(["web-0"])
    assert states(machine)["web-0"] == "running"
    await node.sandboxes["web-0"].settling
    assert states(machine) == {"web-0": "discarded", "web-1": "running"}
    assert node.budget.in_flight == 0
    await node.shut_down()
