"""One machine: its sandboxes, their guests, the memory budget, and what may be asked of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from engine.effects import Effects
from engine.errors import CorruptBuildError, EngineError
from engine.events import ChunkPublished, Event, Planned
from engine.pause import Outcome, Pause, PauseRequest, PauseResult
from engine.permit import CondemnedRecords
from engine.resume import fill
from engine.snapshot import Build, Header, template
from flags.client import FlagClient
from flags.decision import Decision, options
from sim import events
from sim.budget import Budget, OverBudgetError
from sim.faults import ArmedFaults, Fault, FaultyEffects
from sim.guest import GuestSpec
from sim.guest_handle import Guest, GuestError, ZygoteLink
from sim.ledger import Ledger
from sim.mutants import MUTANTS
from sim.node_config import NodeConfig, SandboxConfig
from sim.node_memory import NodeMemory
from sim.sandbox import STOP_REASONS, State, StopReason, check_transition, refusal

GENERATIONS = "generations"
PUNCHED_PEAK = 8 << 20
"""Bytes that a punching pause may need beyond its guest: two chunks in flight, with room."""


class Sandbox:
    """One sandbox on its node: where it is in its life, its guest and the newest finished build."""

    def __init__(self, config: SandboxConfig, ledger: Ledger) -> None:
        self.config = config
        self._ledger = ledger
        self.state = State.CREATED
        self.reason = ""
        self.guest: Guest | None = None
        self.header: Header = template(config.memory, config.block_size)
        self.incarnations = 0
        self.pauses = 0
        self.busy: tuple[str, asyncio.Task[None]] | None = None
        self.settling: asyncio.Task[None] | None = None
        self.pause: Pause | None = None

    def to(self, new: State, reason: str, stop_reason: StopReason | None = None) -> None:
        """A legal transition, told before anything follows from it; raises IllegalTransitionError."""
        check_transition(self.state, new)
        old, self.state, self.reason = self.state, new, reason
        why = stop_reason or STOP_REASONS.get(new)
        changed = events.StateChanged(old.value, new.value, reason, why.value if why else None)
        self._ledger.append(changed, sandbox=self.config.name)


class Node:
    """Everything that can be asked of one machine. Blocking work runs in threads; state changes on the loop."""

    def __init__(
        self, config: NodeConfig, ledger: Ledger, flags: FlagClient, link: ZygoteLink, records: CondemnedRecords
    ) -> None:
        self.config = config
        self.ledger = ledger
        self.records = records
        self.link = link
        self.armed = ArmedFaults()
        self.builds = Path(config.builds)
        self.budget = Budget(config.budget)
        self.memory = NodeMemory(ledger.append, lambda: self.budget.granted)
        self.sandboxes = {each.name: Sandbox(each, ledger) for each in config.sandboxes}
        self.tick_number = config.tick
        self._flags = flags
        self._ticking = asyncio.Lock()
        self._in_flight = 0

    # -- guests

    async def create(self) -> None:
        """Start the first incarnation of every sandbox."""
        for sandbox in self.sandboxes.values():
            each = sandbox.config
            made = events.SandboxCreated(
                each.memory, each.page_size, each.block_size, each.template, each.team, each.cluster
            )
            self.ledger.append(made, sandbox=each.name)
        for sandbox in self.sandboxes.values():
            self.budget.hold(sandbox.config.memory)
            await self._spawn(sandbox, None)
            sandbox.to(State.RUNNING, "created")

    async def _spawn(self, sandbox: Sandbox, header: Header | None) -> int:
        """A new incarnation, filled from `header` before it is tracked; gives the bytes that were filled."""
        sandbox.incarnations += 1
        spec = self.config.guest_spec(sandbox.config, f"{sandbox.config.name}.{sandbox.incarnations}")
        begun = time.perf_counter()
        tracker, written = await asyncio.to_thread(self._bring_up, sandbox, spec, header)
        self._tell_of_guest(sandbox, tracker, (time.perf_counter() - begun) * 1e3)
        return written

    def _bring_up(self, sandbox: Sandbox, spec: GuestSpec, header: Header | None) -> tuple[str, int]:
        guest = sandbox.guest = self.link.spawn(spec)
        guest.receive()
        written = 0 if header is None else self._fill(guest, header)
        tracker, _why = guest.arm()
        return tracker, written

    def _fill(self, guest: Guest, header: Header) -> int:
        build = Build.open(self.builds, header.build)
        try:
            guest.restore_generations(build.attachment(GENERATIONS))
        finally:
            build.close()
        return fill(guest.memory(), self.builds, header)

    def _tell_of_guest(self, sandbox: Sandbox, tracker: str, spawn_ms: float) -> None:
        guest = sandbox.guest
        if guest is None:
            return
        hello = guest.known()
        spawned = events.GuestSpawned(
            incarnation=guest.name,
            pid=guest.pid,
            start_time=guest.start_time,
            memfd_inode=guest.memory().inode,
            memfd_fd=hello.memfd_fd,
            side_fd=hello.side_fd,
            tracker=tracker,
            spawn_ms=round(spawn_ms, 3),
            build=sandbox.header.build or None,
        )
        self.ledger.append(spawned, sandbox=sandbox.config.name)
        self.measure(sandbox)

    def measure(self, sandbox: Sandbox) -> None:
        """Tell what the kernel holds for a sandbox's guest."""
        resident = sandbox.guest.resident_bytes() if sandbox.guest else 0
        self.ledger.append(events.GuestMeasured(resident), sandbox=sandbox.config.name)
        self.memory.set(guest=(sandbox.config.name, resident))

    async def tick(self, count: int) -> None:
        """Every running guest rewrites its working set `count` times."""
        for _ in range(count):
            async with self._ticking:
                self.tick_number += 1
                running = [s for s in self.sandboxes.values() if s.state is State.RUNNING and s.guest]
                dead = await asyncio.to_thread(self._tick_all, running, self.tick_number)
                for sandbox in dead:
                    self._lost(sandbox, "its guest died")
            self.ledger.append(events.Ticked(self.tick_number))
        for sandbox in self.sandboxes.values():
            if sandbox.state is State.RUNNING:
                self.measure(sandbox)
        self.memory.tell_now()

    @staticmethod
    def _tick_all(running: Sequence[Sandbox], number: int) -> list[Sandbox]:
        started: list[tuple[Sandbox, Guest, int]] = []
        dead: list[Sandbox] = []
        for sandbox in running:
            if sandbox.guest is None:
                continue
            try:
                started.append((sandbox, sandbox.guest, sandbox.guest.start_tick(number)))
            except GuestError:
                dead.append(sandbox)
        for sandbox, guest, request in started:
            try:
                guest.answer(request)
            except GuestError:
                dead.append(sandbox)
        return dead

    def _lost(self, sandbox: Sandbox, why: str) -> None:
        """A guest that nobody asked to die is gone, with everything since its last build."""
        self.end_guest(sandbox, why)
        sandbox.to(State.KILLED, why, StopReason.CRASHED)
        self.budget.give_back(sandbox.config.memory)

    def end_guest(self, sandbox: Sandbox, why: str) -> None:
        """Forget a guest; that it ended is said only where its pidfd says so."""
        if sandbox.guest is not None:
            if sandbox.guest.is_dead():
                self.ledger.append(events.GuestEnded(sandbox.guest.name, why), sandbox=sandbox.config.name)
            sandbox.guest.close()
            sandbox.guest = None
        self.memory.set(guest=(sandbox.config.name, 0))

    # -- requests: the same transition is joined, another waits for the end and is judged again

    async def _request(self, name: str, kind: str, act: Callable[[Sandbox], Awaitable[None]]) -> None:
        sandbox = self.sandboxes[name]
        while sandbox.busy is not None:
            current, task = sandbox.busy
            await asyncio.wait([task])
            if current == kind:
                return
        if why := refusal(kind, sandbox.state, sandbox.reason):
            self.ledger.append(events.RequestRefused(kind, why), sandbox=name)
            return
        task = asyncio.ensure_future(self._run(sandbox, act))
        sandbox.busy = (kind, task)
        await asyncio.shield(task)  # a caller that goes away changes nothing

    @staticmethod
    async def _run(sandbox: Sandbox, act: Callable[[Sandbox], Awaitable[None]]) -> None:
        try:
            await act(sandbox)
        finally:
            sandbox.busy = None

    async def pause(self, names: Sequence[str], concurrency: int, *, settled: bool) -> None:
        """Pause these sandboxes, at most `concurrency` at a time; return when all answered, or all settled."""
        slots = asyncio.Semaphore(concurrency)

        async def one(name: str) -> None:
            async with slots:
                await self._request(name, "pause", self._pause)
                settling = self.sandboxes[name].settling
                if settled and settling is not None:
                    await asyncio.shield(settling)

        await asyncio.gather(*(one(name) for name in names))
        self.memory.tell_now()

    async def _pause(self, sandbox: Sandbox) -> None:
        name, guest = sandbox.config.name, sandbox.guest
        if guest is None:
            raise GuestError(f"{name} is running without a guest")
        sandbox.pauses += 1
        pause_id = f"{name}.p{sandbox.pauses}"
        sandbox.to(State.PAUSING, "a pause was requested")
        decision = self._flags.decide(sandbox.config.attributes())
        self.ledger.append(events.Decided(decision.as_fields()), sandbox=name, pause=pause_id)
        planned = self._planned_bytes(sandbox, decision)
        try:
            await self.budget.take(planned, can_wait=self._in_flight > 0)
        except OverBudgetError as error:
            self.ledger.append(refused(pause_id, str(error)), sandbox=name, pause=pause_id)
            sandbox.to(State.RUNNING, f"the pause was refused: {error}")
            self.ledger.append(events.RequestRefused("pause", str(error)), sandbox=name)
            return
        self._in_flight += 1
        await self._begin_pause(sandbox, guest, pause_id, decision, planned)

    def _planned_bytes(self, sandbox: Sandbox, decision: Decision) -> int:
        """What the pause may need beyond its guest: planned, so that admission is the same in every run."""
        if options(decision).punch:
            return min(PUNCHED_PEAK, sandbox.config.memory)
        hot = sandbox.config.pattern == "hot" and not sandbox.header.build
        return int(sandbox.config.memory * (1.0 if hot else min(1.0, sandbox.config.dirty)))

    async def _begin_pause(
        self, sandbox: Sandbox, guest: Guest, pause_id: str, decision: Decision, planned: int
    ) -> None:
        name = sandbox.config.name
        begun = time.perf_counter()
        try:
            process, memfd, tracker = guest.parts()
            async with self._ticking:  # a freeze waits for the tick's boundary
                await asyncio.to_thread(process.freeze)
            frozen_ms = (time.perf_counter() - begun) * 1e3
            self.ledger.append(events.GuestFrozen(guest.name, round(frozen_ms, 3)), sandbox=name, pause=pause_id)
        except EngineError as error:
            self._give_back(planned)
            await self._roll_back(sandbox, guest, str(error))
            return
        request = PauseRequest(
            guest=process,
            memfd=memfd,
            tracker=tracker,
            block_size=sandbox.config.block_size,
            parent=sandbox.header,
            build=pause_id,
            builds=self.builds,
            condemned=self.records,
            options=options(decision),
            attachments={GENERATIONS: guest.generations()},
        )
        effects = self._effects(sandbox, pause_id)
        pause = sandbox.pause = Pause(request, effects, self._emit(sandbox, pause_id, effects))
        await asyncio.to_thread(pause.begin)
        blocked_ms = round((time.perf_counter() - begun) * 1e3, 3)
        answered = not pause.is_settled()
        self.ledger.append(events.PauseReturned(blocked_ms, answered), sandbox=name, pause=pause_id)
        if answered:
            sandbox.to(State.PAUSED, "the copy goes on in the background")
        sandbox.settling = asyncio.ensure_future(self._settle(sandbox, guest, pause, pause_id, blocked_ms, planned))
        if not answered:
            await asyncio.shield(sandbox.settling)

    def _effects(self, sandbox: Sandbox, pause_id: str) -> FaultyEffects:
        inner = MUTANTS[self.config.mutant]() if self.config.mutant else Effects()

        def told(fault: Fault, chunk: int | None) -> None:
            fired = events.FaultFired(fault.fault_id, fault.point, fault.error, chunk)
            self.ledger.append(fired, sandbox=sandbox.config.name, pause=pause_id)

        return FaultyEffects(inner, self.armed, sandbox.config.name, told)

    def _emit(self, sandbox: Sandbox, pause_id: str, effects: FaultyEffects) -> Callable[[Event], None]:
        name = sandbox.config.name

        def emit(event: Event) -> None:
            self.ledger.append(event, sandbox=name, pause=pause_id)
            if isinstance(event, Planned):
                effects.planned(event.chunks)
            elif isinstance(event, ChunkPublished):
                self.memory.set(guest=(name, event.source_resident), cache=(pause_id, event.cache_resident))

        return emit

    async def _settle(
        self, sandbox: Sandbox, guest: Guest, pause: Pause, pause_id: str, blocked_ms: float, planned: int
    ) -> None:
        result = await asyncio.to_thread(pause.settle)
        self.ledger.append(settled(pause, result, pause_id, blocked_ms), sandbox=sandbox.config.name, pause=pause_id)
        self._give_back(planned)
        sandbox.pause = None
        match result.outcome:
            case Outcome.ROLLED_BACK:
                self.memory.set(cache=(pause_id, 0))
                await self._roll_back(sandbox, guest, result.error or "the pause failed")
            case Outcome.DISCARDED:
                self.memory.set(cache=(pause_id, 0))
                self.end_guest(sandbox, "discarded")
                sandbox.to(State.DISCARDED, result.error or "the pause failed after the point of no return")
                self.budget.give_back(sandbox.config.memory)
            case Outcome.FINISHED:
                self._finished(sandbox, result, pause_id)

    def _finished(self, sandbox: Sandbox, result: PauseResult, pause_id: str) -> None:
        if result.header is None:
            raise GuestError(f"{pause_id} finished without a header")
        sandbox.header = result.header
        sandbox.reason = "its memory is in a finished build"
        on_tmpfs = self.builds.is_relative_to("/dev/shm")  # noqa: S108 - where tmpfs caches go
        self.budget.give_back(sandbox.config.memory)
        if on_tmpfs:
            self.budget.hold(result.header.length)
        else:
            self.memory.set(cache=(pause_id, 0))
        self.end_guest(sandbox, "paused")
        if sandbox.state is State.PAUSING:
            sandbox.to(State.PAUSED, "its memory is in a finished build")

    def _give_back(self, planned: int) -> None:
        self._in_flight -= 1
        self.budget.give_back(planned)

    async def _roll_back(self, sandbox: Sandbox, guest: Guest, why: str) -> None:
        """Nothing was lost: the guest runs on, unless it is dead."""
        process, _, _ = guest.parts()
        if process.is_dead():
            self._lost(sandbox, f"its guest died during the pause: {why}")
            return
        process.thaw(self.records)
        self.ledger.append(events.GuestThawed(guest.name), sandbox=sandbox.config.name)
        sandbox.to(State.RUNNING, f"the pause was rolled back: {why}")
        self.measure(sandbox)

    async def resume(self, names: Sequence[str]) -> None:
        """Resume these sandboxes from their newest finished build, one after the other."""
        for name in names:
            settling = self.sandboxes[name].settling
            if settling is not None:
                await asyncio.shield(settling)
            await self._request(name, "resume", self._resume)
        self.memory.tell_now()

    async def _resume(self, sandbox: Sandbox) -> None:
        name, begun = sandbox.config.name, time.perf_counter()
        sandbox.to(State.RESUMING, "a resume was requested")
        try:
            await self.budget.take(sandbox.config.memory, can_wait=self._in_flight > 0)
        except OverBudgetError as error:
            sandbox.to(State.PAUSED, f"the resume was refused: {error}")
            return
        try:
            written = await self._spawn(sandbox, sandbox.header)
        except (GuestError, CorruptBuildError, OSError) as error:
            self.budget.give_back(sandbox.config.memory)
            if sandbox.guest is not None:
                await asyncio.to_thread(sandbox.guest.kill)
            self.end_guest(sandbox, "its resume failed")
            sandbox.to(State.PAUSED, f"the resume failed: {error}")
            return
        incarnation = sandbox.guest.name if sandbox.guest else ""
        took = round((time.perf_counter() - begun) * 1e3, 3)
        self.ledger.append(events.Resumed(incarnation, sandbox.header.build, written, took), sandbox=name)
        sandbox.to(State.RUNNING, f"resumed from build {sandbox.header.build}")

    async def kill(self, names: Sequence[str]) -> None:
        """End these sandboxes, whatever they do."""
        for name in names:
            await self._request(name, "kill", self._kill)
        self.memory.tell_now()

    async def _kill(self, sandbox: Sandbox) -> None:
        if sandbox.settling is not None:
            await asyncio.shield(sandbox.settling)
        if why := refusal("kill", sandbox.state, sandbox.reason):
            self.ledger.append(events.RequestRefused("kill", why), sandbox=sandbox.config.name)
            return
        if sandbox.guest is not None:
            await asyncio.to_thread(sandbox.guest.kill)
            self.budget.give_back(sandbox.config.memory)
        self.end_guest(sandbox, "killed")
        sandbox.to(State.KILLED, "killed on request")

    async def shut_down(self) -> None:
        """Cancel what can be cancelled, let the rest end, then end every guest and the zygote."""
        for sandbox in self.sandboxes.values():
            if sandbox.pause is not None:
                sandbox.pause.cancel()
        tasks = [s.busy[1] for s in self.sandboxes.values() if s.busy]
        tasks += [s.settling for s in self.sandboxes.values() if s.settling]
        if tasks:
            await asyncio.wait(tasks, timeout=30)
        await asyncio.to_thread(self.link.end)
        for sandbox in self.sandboxes.values():
            if sandbox.guest is not None:
                self.end_guest(sandbox, "the run ended")


def refused(pause_id: str, why: str) -> events.PauseSettled:
    """A pause that was not begun: nothing was frozen, copied or freed."""
    return events.PauseSettled(
        outcome="refused",
        path=None,
        punch=False,
        punch_reason=None,
        dirty_bytes=None,
        punched_bytes=0,
        peak_over=None,
        peak_ratio=None,
        copy_ms=None,
        blocked_ms=0.0,
        condemned=False,
        error=why,
        failed_chunk=None,
        condemn_error=None,
        punch_error=None,
        build=pause_id,
        content_hash=None,
    )


def settled(pause: Pause, result: PauseResult, pause_id: str, blocked_ms: float) -> events.PauseSettled:
    """The engine's result in the ledger's words."""
    plan = pause.plan
    return events.PauseSettled(
        outcome=result.outcome.value,
        path=plan.path.value if plan else None,
        punch=plan.punch if plan else False,
        punch_reason=plan.punch_reason if plan else None,
        dirty_bytes=plan.dirty_bytes if plan else None,
        punched_bytes=result.punched_bytes,
        peak_over=result.peak_over,
        peak_ratio=round(result.peak_ratio, 4) if result.peak_ratio is not None else None,
        copy_ms=round(result.copy_ms, 3) if result.copy_ms is not None else None,
        blocked_ms=blocked_ms,
        condemned=result.condemned,
        error=result.error,
        failed_chunk=result.failed_chunk,
        condemn_error=result.condemn_error,
        punch_error=result.punch_error,
        build=pause_id,
        content_hash=result.header.content_hash if result.header else None,
    )
