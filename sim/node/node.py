"""One machine: its sandboxes, their guests, the memory budget, and the requests that it takes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from engine.effects import Effects
from engine.errors import BuildFailedError, CondemnedError, EngineError, FreezeError
from engine.evidence import as_json
from engine.incarnation import CondemnedRecords
from engine.keeper import Keeper
from engine.pause import Pause
from engine.snapshot import Header
from flags.catalog import FLAGS, SYNC_WP, USE_MEMFD
from flags.client import FlagClient
from flags.context import Moment, has_memfd
from sim.files.lifecycle import State, StopReason, refusal
from sim.node.armed_faults import ArmedFaults, FaultyEffects, Passage
from sim.node.config import NodeConfig
from sim.node.deaths import Deaths
from sim.node.guest import GuestSpec
from sim.node.guest_link import Armed, Guest, GuestError, tick_all
from sim.node.keeping import ZygoteKeeper
from sim.node.memory import NodeMemory, OverBudgetError, budgets_of, on_tmpfs
from sim.node.pace import Paces
from sim.node.pausing import Pausing
from sim.node.refill import refill
from sim.node.salvaging import abandon, give_up, salvage
from sim.node.sandbox import Latched, Machine, Sandbox, Successor, guest_spawned, refuse_failed
from sim.node.vcpu import digest_of
from sim.node.wave import Wave
from sim.node.zygote_link import ZygoteLink
from sim.record import events
from sim.record.ledger import Ledger
from sim.record.names import incarnation_name
from sim.record.oracle import PAGE
from sim.record.stages import Pace


class Node:
    """Every request that one machine takes. Blocking work runs in threads; state changes on the loop."""

    def __init__(
        self,
        config: NodeConfig,
        ledger: Ledger,
        flags: FlagClient,
        link: ZygoteLink,
        records: CondemnedRecords,
        make_pausing: Callable[[Machine], Pausing] = Pausing,
    ) -> None:
        self.config = config
        self.ledger = ledger
        self.records = records
        self.link = link
        self.armed = ArmedFaults()
        self.paces = Paces(each.name for each in config.sandboxes)
        self.builds = Path(config.builds)
        budgets = budgets_of(config.budget, config.budgets)
        self.budget = budgets[""]
        self.memory = NodeMemory(ledger.try_append, lambda: sum(each.granted for each in budgets.values()))
        self.sandboxes = {each.name: Sandbox(each, ledger, budgets[each.node]) for each in config.sandboxes}
        self.tick_number = config.tick
        self.flags = flags
        self.ticking = asyncio.Lock()
        self.deaths = Deaths(lambda event, sandbox: ledger.try_append(event, sandbox=sandbox))
        self.keeper: Keeper = ZygoteKeeper(link)
        self.cache_on_tmpfs = on_tmpfs(self.builds)
        self.spill = Path(config.spill) if config.spill is not None else None
        self.spill_on_tmpfs = self.spill is not None and on_tmpfs(self.spill)
        self._pausing = make_pausing(self)
        self.ending = False

    # -- guests

    async def create(self) -> None:
        """Start the first incarnation of every sandbox."""
        self.deaths.watch_zygote(self.link.zygote_pid, self.link.pidfd)
        for sandbox in self.sandboxes.values():
            each = sandbox.config
            made = events.SandboxCreated(
                each.memory, each.page_size, each.block_size, each.template, each.team, each.cluster
            )
            self.ledger.append(made, sandbox=each.name)
        for sandbox in self.sandboxes.values():
            sandbox.budget.hold(sandbox.config.memory)
            await self._spawn(sandbox, None)
            sandbox.to(State.RUNNING, "created")

    async def _spawn(self, sandbox: Sandbox, header: Header | None) -> int:
        """A new incarnation, filled from `header` before it is tracked; gives the bytes that were filled."""
        spec, copying, begun = self._next_guest(sandbox), sandbox.pause, time.perf_counter()
        sandbox.latched = self._latch(sandbox, "create" if header is None else "resume")
        armed, written = await asyncio.to_thread(self._bring_up, sandbox, spec, header, copying)
        refuse_failed(copying)
        self._tell_of_guest(sandbox, header, armed, (time.perf_counter() - begun) * 1e3)
        return written

    def _next_guest(self, sandbox: Sandbox) -> GuestSpec:
        sandbox.incarnations += 1
        return self.config.guest_spec(sandbox.config, incarnation_name(sandbox.config.name, sandbox.incarnations))

    def _latch(self, sandbox: Sandbox, moment: Moment) -> Latched:
        """What holds for as long as the guest lives that is started at this moment."""
        decided = self.flags.decide(sandbox.config.attributes(), moment, (FLAGS[USE_MEMFD], FLAGS[SYNC_WP]))
        memfd = decided.is_on(USE_MEMFD) and has_memfd(sandbox.config.firecracker_version)
        return Latched(memfd, decided.is_on(SYNC_WP))

    def _bring_up(
        self, sandbox: Sandbox, spec: GuestSpec, header: Header | None, copying: Pause | None
    ) -> tuple[Armed, int]:
        if header is None:
            guest = sandbox.guest = self.link.spawn(spec)
            guest.receive()
            return guest.arm(), 0
        effects = self._resume_effects(sandbox)
        guest = sandbox.guest = effects.spawn(lambda: self.link.spawn(spec))
        guest.receive()
        return self._fill_and_arm(sandbox, guest, header, copying, effects)

    def _fill_and_arm(
        self, sandbox: Sandbox, guest: Guest, header: Header, copying: Pause | None, effects: FaultyEffects
    ) -> tuple[Armed, int]:
        written = self._fill(sandbox, guest, header, copying, effects)
        return guest.arm(), written

    def _resume_effects(self, sandbox: Sandbox) -> FaultyEffects:
        name = sandbox.config.name

        def kill_guest() -> None:
            if sandbox.guest is not None:
                sandbox.guest.kill()

        passage = Passage(
            sandbox=name,
            nth=sandbox.incarnations,
            tell=partial(self.ledger.append, sandbox=name),
            trace=self.config.trace,
            kill_guest=kill_guest,
        )
        return FaultyEffects(Effects(), self.armed, passage)

    def _fill(self, sandbox: Sandbox, guest: Guest, header: Header, copying: Pause | None, effects: Effects) -> int:
        return refill(sandbox, guest, self.builds, header, copying.cache if copying is not None else None, effects)

    def _tell_of_guest(self, sandbox: Sandbox, header: Header | None, armed: Armed, spawn_ms: float) -> None:
        if (guest := sandbox.guest) is not None:
            self.ledger.append(guest_spawned(sandbox, guest, header, armed, spawn_ms), sandbox=sandbox.config.name)
            self.watch(sandbox, guest)
            self.measure(sandbox)

    def watch(self, sandbox: Sandbox, guest: Guest) -> None:
        """Notice its death at once."""
        self.deaths.watch_guest(guest, sandbox.config.name, lambda: sandbox.state.value)

    def measure(self, sandbox: Sandbox) -> None:
        """Record what the kernel holds for a sandbox's guest."""
        resident = sandbox.guest.resident_bytes() if sandbox.guest else 0
        self.ledger.try_append(events.GuestMeasured(resident), sandbox=sandbox.config.name)
        if sandbox.guest is not None:
            self.memory.set(guest=(sandbox.guest.name, resident), huge=sandbox.config.page_size > PAGE)

    async def tick(self, count: int) -> None:
        """Every running guest rewrites its working set `count` times."""
        for _ in range(count):
            async with self.ticking:
                self.tick_number += 1
                running = {s.guest: s for s in self.sandboxes.values() if s.state is State.RUNNING and s.guest}
                lost = await asyncio.to_thread(tick_all, list(running), self.tick_number)
                if self.ending:
                    return
                for guest, why in lost:
                    if running[guest].state is State.RUNNING:  # else the pause that came meanwhile finds it dead
                        code = "silent" if guest.silent else "died"
                        self.deaths.tell(guest, running[guest].config.name, State.RUNNING.value, code)
                        self._lost(running[guest], why)
            self.ledger.append(events.Ticked(self.tick_number))
        for sandbox in self.sandboxes.values():
            if sandbox.state is State.RUNNING:
                self.measure(sandbox)
        self.memory.tell_now()

    def _lost(self, sandbox: Sandbox, why: str) -> None:
        """A guest died without a request, and everything since its last build is lost."""
        self.end_guest(sandbox, why)
        sandbox.to(State.KILLED, why, StopReason.CRASHED)
        sandbox.budget.give_back(sandbox.config.memory)

    def end_guest(self, sandbox: Sandbox, why: str) -> None:
        """Forget a sandbox's guest."""
        if sandbox.guest is not None:
            self.forget(sandbox, sandbox.guest, why)
            sandbox.guest = None

    def forget(self, sandbox: Sandbox, guest: Guest, why: str) -> None:
        """Give back what is held of a guest; its end is recorded only if its pidfd reports it."""
        self.deaths.look(guest, sandbox.config.name, sandbox.state.value)
        self.deaths.forget(guest.name)
        if guest.is_dead():
            self.ledger.try_append(events.GuestEnded(guest.name, why), sandbox=sandbox.config.name)
        guest.close()
        self.memory.set(guest=(guest.name, 0), huge=sandbox.config.page_size > PAGE)

    async def roll_back(self, sandbox: Sandbox, guest: Guest, why: str) -> None:
        """Nothing was lost: the guest runs on, unless it is dead."""
        process, _, _ = guest.parts()
        if process.is_dead():
            self._lost(sandbox, f"its guest died: {why}")
            return
        try:
            ran = process.thaw(self.records)
        except (CondemnedError, OSError) as error:  # a record stands against it; or it cannot be woken, or looked up
            with contextlib.suppress(FreezeError, OSError):  # it stays frozen then: who looks for leaks finds it
                await asyncio.to_thread(guest.kill)
            self._lost(sandbox, f"{why}; it was not woken: {error}")
            return
        thawed = events.GuestThawed(guest.name, as_json(process.seen), ran.code if ran else None)
        self.ledger.try_append(thawed, sandbox=sandbox.config.name)
        if ran is not None and sandbox.state is State.CHECKPOINTING:
            guest.forget_parent()  # what it wrote before its writes were watched anew is in no build
        sandbox.to(State.RUNNING, why)
        self.measure(sandbox)

    # -- requests

    async def _request(self, name: str, kind: str, act: Callable[[Sandbox], Awaitable[None]]) -> None:
        await self.sandboxes[name].take(kind, act, lambda: self.ending)

    async def pause(self, names: Sequence[str], concurrency: int, *, settled: bool, wave: bool = False) -> None:
        """Pause them, at most `concurrency` at a time, in a `wave` the first ones together; `settled`: until copied."""
        slots = asyncio.Semaphore(concurrency)
        free = [s for s in map(self.sandboxes.__getitem__, names[:concurrency]) if wave and s.is_free]
        together = Wave(sandbox.config.name for sandbox in free)
        for sandbox in free:
            sandbox.wave = together

        async def one(name: str) -> None:
            async with slots:
                with together.part(name):
                    await self._request(name, "pause", self._pausing.pause)
                    if settled:
                        await self.sandboxes[name].at_rest()

        await asyncio.gather(*(one(name) for name in names))
        self.memory.tell_now()

    async def resume(self, names: Sequence[str]) -> None:
        """Resume these sandboxes from their newest build, finished or still being copied, one after the other."""
        for name in names:
            await self._request(name, "resume", self._resume)
        self.memory.tell_now()

    async def _resume(self, sandbox: Sandbox) -> None:
        begun = time.perf_counter()
        sandbox.to(State.RESUMING, "a resume was requested")
        try:
            await sandbox.budget.take(sandbox.config.memory, can_wait=sandbox.budget.in_flight > 0)
        except OverBudgetError as error:
            sandbox.to(State.PAUSED, f"the resume was refused: {error}")
            return
        await self._resume_from_newest(sandbox, begun)

    async def resume_granted(self, sandbox: Sandbox, reader: Successor) -> None:
        """A reader comes right after a pause, which was admitted with the new guest's memory."""
        begun, reader.granted = time.perf_counter(), False
        sandbox.to(State.RESUMING, "a reader came right after its pause")
        await self._resume_from_newest(sandbox, begun)

    async def _resume_from_newest(self, sandbox: Sandbox, begun: float) -> None:
        header = sandbox.newest
        try:
            written = await self._spawn(sandbox, header)
        except (GuestError, EngineError, OSError) as error:
            await self._resume_failed(sandbox, error)
            return
        self._runs_from(sandbox, header, written, begun)

    def _runs_from(self, sandbox: Sandbox, header: Header, written: int, begun: float) -> None:
        if (
            sandbox.header.build != header.build
        ):  # what it stands on, though the end of its copy is not in the ledger yet
            sandbox.header = header
        incarnation = sandbox.guest.name if sandbox.guest else ""
        took = round((time.perf_counter() - begun) * 1e3, 3)
        state = digest_of(sandbox.processor) if sandbox.processor else None
        resumed = events.Resumed(incarnation, header.build, written, took, state)
        self.ledger.append(resumed, sandbox=sandbox.config.name)
        sandbox.to(State.RUNNING, f"resumed from build {header.build}")
        self.measure(sandbox)

    async def _resume_failed(self, sandbox: Sandbox, error: Exception) -> None:
        """It costs nothing, unless what failed is the very build that the sandbox stands on."""
        sandbox.budget.give_back(sandbox.config.memory)
        if sandbox.guest is not None:
            if isinstance(error, GuestError):
                await asyncio.to_thread(sandbox.guest.is_dying)
            self.deaths.look(sandbox.guest, sandbox.config.name, sandbox.state.value)
            with contextlib.suppress(FreezeError):  # it runs nothing any more, and never was reported as running
                await asyncio.to_thread(sandbox.guest.kill)
        self.end_guest(sandbox, "its resume failed")
        if isinstance(error, BuildFailedError):
            lost = (
                "lost at its checkpoint"
                if sandbox.state is State.CHECKPOINTING
                else "the build that it was resuming from failed"
            )
            sandbox.to(State.DISCARDED, f"{lost}: {error}")
        elif sandbox.state is State.CHECKPOINTING:
            sandbox.to(State.PAUSED, f"its checkpoint is kept, but the new guest failed: {error}")
        else:
            sandbox.to(State.PAUSED, f"the resume failed: {error}")

    # -- a checkpoint that is not in place: the guest that goes on is there before the old one is given up

    async def spawn_successor(self, sandbox: Sandbox, successor: Successor, pause: str) -> None:
        """Start it, empty; raises GuestError, EngineError, OSError where it does not start: nothing is lost then."""
        name, begun = sandbox.config.name, time.perf_counter()
        old = sandbox.guest.name if sandbox.guest is not None else ""
        spec = self._next_guest(sandbox)
        successor.latched = self._latch(sandbox, "resume")
        effects = self._resume_effects(sandbox)

        def start() -> Guest:
            guest = successor.guest = effects.spawn(lambda: self.link.spawn(spec))
            guest.receive()
            return guest

        guest = await asyncio.to_thread(start)
        successor.spawn_ms = (time.perf_counter() - begun) * 1e3
        spawned = events.SuccessorSpawned(guest.name, old, guest.pid, guest.start_time, round(successor.spawn_ms, 3))
        self.ledger.append(spawned, sandbox=name, pause=pause)

    async def go_on_with(self, sandbox: Sandbox, successor: Successor) -> None:
        """Fill it from the newest build, finished or still being copied, and let the sandbox run on with it."""
        guest, header, copying, begun = successor.guest, sandbox.newest, sandbox.pause, time.perf_counter()
        if guest is None:
            raise GuestError(f"{sandbox.config.name} has no guest to go on with")
        successor.granted = False
        sandbox.guest, sandbox.latched = guest, successor.latched
        try:
            effects = self._resume_effects(sandbox)
            armed, written = await asyncio.to_thread(self._fill_and_arm, sandbox, guest, header, copying, effects)
            refuse_failed(copying)
        except (GuestError, EngineError, OSError) as error:
            await self._resume_failed(sandbox, error)
            return
        self._tell_of_guest(sandbox, header, armed, successor.spawn_ms)
        self._runs_from(sandbox, header, written, begun)

    async def dismiss(self, sandbox: Sandbox, successor: Successor) -> None:
        """End it, unless its sandbox goes on with it: its checkpoint failed. Harmless when done."""
        if not successor.granted:
            return
        successor.granted = False
        if successor.guest is not None:
            with contextlib.suppress(FreezeError):  # it never ran a tick, and holds nothing
                await asyncio.to_thread(successor.guest.kill)
            self.forget(sandbox, successor.guest, "the checkpoint after which it was to go on failed")
        sandbox.budget.give_back(sandbox.config.memory)

    async def checkpoint(self, names: Sequence[str]) -> None:
        """Export these sandboxes' memory one after the other; each goes on, with its guest or with a new one."""
        for name in names:
            await self._request(name, "checkpoint", self._pausing.checkpoint)
            await self.sandboxes[name].at_rest()  # the new guest may run already, while its build is still copied
        self.memory.tell_now()

    async def salvage(self, names: Sequence[str]) -> None:
        """Copy once more what is left of these sandboxes' stranded builds."""
        for name in names:
            await self._request(name, "salvage", salvage)
        self.memory.tell_now()

    def set_pace(self, names: Sequence[str], pace: Pace, steps: int = 0) -> None:
        """Slow the copies of these sandboxes, hold them at boundaries, or let them go."""
        for name in names:
            if self.paces.of(name) != pace:
                self.ledger.append(events.PaceSet(pace.factor, pace.held), sandbox=name)
        self.paces.set(names, pace, steps)

    async def kill(self, names: Sequence[str]) -> None:
        """End these sandboxes, whatever they do; a copy that is held goes on first."""
        self.set_pace(names, Pace())
        for name in names:
            await self._request(name, "kill", self._kill)
        self.memory.tell_now()

    async def _kill(self, sandbox: Sandbox) -> None:
        await sandbox.at_rest()
        await self._kill_guest(sandbox)
        await give_up(sandbox, "it was killed on request")

    async def _kill_guest(self, sandbox: Sandbox) -> None:
        async with self.ticking:  # which may be waiting for this guest's answer
            if why := refusal("kill", sandbox.state, sandbox.reason):
                self.ledger.append(events.RequestRefused("kill", why.reason, why.code), sandbox=sandbox.config.name)
                return
            try:
                if sandbox.guest is not None:
                    await asyncio.to_thread(sandbox.guest.kill)
                    sandbox.budget.give_back(sandbox.config.memory)
            except FreezeError as error:  # it runs nothing any more and holds its memory: who looks for leaks finds it
                sandbox.to(State.KILLED, f"killed on request, but {error}")
                return
            self.end_guest(sandbox, "killed")
            sandbox.to(State.KILLED, "killed on request")

    async def shut_down(self) -> None:
        """Cancel what can be cancelled, let the rest end, then end every guest and the zygote."""
        self.ending = True
        self.paces.open_for_ever()
        for sandbox in self.sandboxes.values():
            if sandbox.pause is not None:
                sandbox.pause.cancel()
        tasks = [s.busy[1] for s in self.sandboxes.values() if s.busy]
        tasks += [asyncio.ensure_future(s.at_rest()) for s in self.sandboxes.values() if s.settling]
        if tasks:
            await asyncio.wait(tasks, timeout=30)
        await asyncio.gather(*(abandon(sandbox) for sandbox in self.sandboxes.values()))
        for sandbox in self.sandboxes.values():
            if sandbox.guest is not None:
                self.deaths.look(sandbox.guest, sandbox.config.name, sandbox.state.value)
        self.deaths.end()
        await asyncio.to_thread(self.link.end)
        async with self.ticking:
            for sandbox in self.sandboxes.values():
                self.end_guest(sandbox, "the run ended")
