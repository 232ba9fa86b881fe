"""One pause, decision to outcome."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from engine.dirty import Forgotten
from engine.errors import EngineError, FreezeError
from engine.events import ChunkPublished, CopyFailed, Event, Planned, Stranded
from engine.evidence import as_json
from engine.memfd import ProcessMemory
from engine.pause import Outcome, Pause, PauseResult
from engine.plan import PauseOptions
from engine.prepare import PauseRequest
from engine.snapshot import template
from flags.decision import Decision, is_in_place, options, otel_fields
from sim.files.lifecycle import RefusalCode, State, refusal
from sim.node.admitted import Admitted, never_started, settled
from sim.node.armed_faults import FaultyEffects, Passage
from sim.node.dirty_log import witness
from sim.node.guest_link import GuestError
from sim.node.memory import PUNCHED_PEAK, OverBudgetError, held_bytes, most_copier_bytes
from sim.node.own_thread import in_own_thread
from sim.node.pace import PacedEffects
from sim.node.salvaging import at_rest, refused, settled_at_last, try_again
from sim.node.sandbox import Machine, Sandbox, Successor
from sim.node.vcpu import attachments, digest_of
from sim.node.wave import Wave
from sim.record import events
from sim.record.names import pause_name
from sim.record.oracle import PAGE


class Pausing:
    """The pauses of one node. `make_effects` takes the engine's acts and what is armed for them."""

    def __init__(self, node: Machine, make_effects: Callable[..., FaultyEffects] = FaultyEffects) -> None:
        self._node = node
        self._make_effects = make_effects
        self._left: set[str] = set()  # pauses whose teardown failed

    async def pause(self, sandbox: Sandbox) -> None:
        """Export the memory and end the guest; returns when the pause has its answer."""
        if await self._may_go_on(sandbox, "pause"):
            await self._export(sandbox, State.PAUSING, checkpoint=False)

    async def checkpoint(self, sandbox: Sandbox) -> None:
        """Export the memory; the sandbox goes on, with its guest (in place) or with a new one from the build."""
        if await self._may_go_on(sandbox, "checkpoint"):
            await self._export(sandbox, State.CHECKPOINTING, checkpoint=True)

    async def _may_go_on(self, sandbox: Sandbox, request: str) -> bool:
        """A build may be a parent only when it is finished: wait for the one it stands on, then judge again."""
        if sandbox.settling is None:
            return True
        await try_again(sandbox)
        why = refused(sandbox) or refusal(request, sandbox.state, sandbox.reason)
        if why is not None:
            told = events.RequestRefused(request, why.reason, why.code)
            self._node.ledger.append(told, sandbox=sandbox.config.name)
        return why is None

    async def _export(self, sandbox: Sandbox, state: State, *, checkpoint: bool) -> None:
        admitted = await self._admit(sandbox, state, checkpoint=checkpoint)
        if admitted is None:
            return
        name, guest = sandbox.config.name, admitted.guest
        begun = time.perf_counter()
        try:
            if admitted.successor is not None:  # before anything is frozen: without it nothing is given up
                await self._node.spawn_successor(sandbox, admitted.successor, admitted.id)
            process, _, _ = guest.parts()
            effects = self._effects(sandbox, admitted)
            async with self._node.ticking:  # a freeze waits for the tick's boundary
                sandbox.processor = await asyncio.to_thread(guest.save_processor)
                await in_own_thread(partial(effects.freeze, process), f"freeze-{admitted.id}")
            stopped = events.GuestFrozen(guest.name, _ms_since(begun), as_json(process.frozen), guest.beat())
            frozen = replace(stopped, processor=digest_of(sandbox.processor) if sandbox.processor else None)
            self._node.ledger.append(frozen, sandbox=name, pause=admitted.id)
            request = self._pause_request(sandbox, admitted)
            await admitted.wave.all_frozen(name)
            pause = sandbox.pause = Pause(request, effects, self._emit(sandbox, admitted, effects))
            if self._node.ending or effects.cancelled:
                pause.cancel()
            begun_pause = in_own_thread(pause.begin, f"pause-{admitted.id}")
        except (EngineError, GuestError, OSError) as error:
            await self._never_began(sandbox, admitted, f"it could not begin: {error}")
            return
        answered = await begun_pause
        blocked_ms = _ms_since(begun)
        returned = events.PauseReturned(blocked_ms, answered)
        self._node.ledger.try_append(returned, sandbox=name, pause=admitted.id)
        if answered:  # the guest is the copier's now: a resume may start a new one
            sandbox.guest = None
            if admitted.successor is None:
                sandbox.to(State.PAUSED, "the copy goes on in the background")
        sandbox.settling = asyncio.ensure_future(self._settle(sandbox, pause, admitted, blocked_ms))
        if not answered:
            await sandbox.at_rest()
        if admitted.successor is not None and admitted.successor.granted:
            await self._node.go_on_with(sandbox, admitted.successor)
        if admitted.reader is not None and admitted.reader.granted:
            await self._read_at_once(sandbox, admitted, admitted.reader)

    async def _read_at_once(self, sandbox: Sandbox, admitted: Admitted, reader: Successor) -> None:
        """A reader comes right after the answer, before anything else can happen to the sandbox."""
        if sandbox.state is State.PAUSED and not self._node.ending:
            await self._node.resume_granted(sandbox, reader)
        else:
            await self._dismiss(sandbox, admitted)

    async def _never_began(self, sandbox: Sandbox, admitted: Admitted, why: str) -> None:
        """Nothing was copied or freed: the guest runs on."""
        sandbox.pause = None
        await self._dismiss(sandbox, admitted)
        self._give_back(sandbox, admitted)
        told = never_started("rolled-back", why, admitted)
        self._node.ledger.try_append(told, sandbox=sandbox.config.name, pause=admitted.id)
        await self._node.roll_back(sandbox, admitted.guest, why)

    async def _dismiss(self, sandbox: Sandbox, admitted: Admitted) -> None:
        """The guest that was to go on after a checkpoint, or to come right after a pause, is not needed."""
        for each in (admitted.successor, admitted.reader):
            if each is not None:
                await self._node.dismiss(sandbox, each)

    async def _admit(self, sandbox: Sandbox, state: State, *, checkpoint: bool) -> Admitted | None:
        """Decide once, then wait for the bytes that the pause may need; None where it can never have them."""
        node, name, guest = self._node, sandbox.config.name, sandbox.guest
        if guest is None or sandbox.state is not State.RUNNING:
            raise GuestError(f"{name} is {sandbox.state} without a guest")
        sandbox.pauses += 1
        pause_id = pause_name(name, sandbox.pauses)
        sandbox.to(state, f"a {'checkpoint' if checkpoint else 'pause'} was requested")
        decision = node.flags.decide(sandbox.config.attributes(), "checkpoint" if checkpoint else "pause")
        decided = events.Decided(decision.as_fields(), otel_fields(decision, name))
        try:
            node.ledger.append(decided, sandbox=name, pause=pause_id)
        except OSError:
            sandbox.to(State.RUNNING, "its decision could not be recorded")
            raise
        fresh = checkpoint and not self._is_in_place(sandbox, decision)
        planned = self._planned_bytes(sandbox, decision, consumed=fresh or not checkpoint)
        read = not checkpoint and node.config.is_read(name, sandbox.pauses)
        coming = (Successor() if fresh else None, Successor() if read else None)
        wave, sandbox.wave = sandbox.wave, Wave()
        asked = Admitted(pause_id, decision, planned, guest, checkpoint, *coming, wave)
        needs = planned + (sandbox.config.memory if fresh or read else 0)  # both guests and the pause at once
        if not sandbox.budget.has_room(needs):
            wave.leave(name)  # what it waits for may be given back by the wave alone
        try:
            await sandbox.budget.take(needs, can_wait=sandbox.budget.in_flight > 0)
        except OverBudgetError as error:
            told = never_started("refused", str(error), asked)
            node.ledger.try_append(told, sandbox=name, pause=pause_id)
            sandbox.to(State.RUNNING, f"it was refused: {error}")
            node.ledger.try_append(events.RequestRefused(state.value, str(error), RefusalCode.BUDGET), sandbox=name)
            return None
        sandbox.budget.in_flight += 1
        return asked

    def _is_in_place(self, sandbox: Sandbox, decision: Decision) -> bool:
        return is_in_place(decision, sandbox.latched.use_sync_wp)

    def _planned_bytes(self, sandbox: Sandbox, decision: Decision, *, consumed: bool) -> int:
        """What the pause may need beyond its guest: planned, so that admission is the same in every run."""
        config = sandbox.config
        copiers = most_copier_bytes(config.memory, config.page_size, config.block_size)
        return copiers + self._planned_peak(sandbox, decision, consumed=consumed)

    def _planned_peak(self, sandbox: Sandbox, decision: Decision, *, consumed: bool) -> int:
        """What memory and cache together may take beyond the guest."""
        if options(decision).punch and sandbox.latched.use_memfd and consumed:
            return min(PUNCHED_PEAK, sandbox.config.memory)
        hot = sandbox.config.pattern == "hot" and not sandbox.header.build
        forgotten = sandbox.guest is not None and isinstance(sandbox.guest.tracker, Forgotten)
        return int(sandbox.config.memory * (1.0 if hot or forgotten else min(1.0, sandbox.config.dirty)))

    def _pause_request(self, sandbox: Sandbox, admitted: Admitted) -> PauseRequest:
        name = sandbox.config.name
        process, memfd, tracker = admitted.guest.parts()
        sandbox.generations = admitted.guest.generations()
        address = admitted.guest.known().address
        return PauseRequest(
            guest=process,
            memory=memfd
            if sandbox.latched.use_memfd
            else ProcessMemory(process.incarnation.pid, address, memfd.size, memfd.page_size),
            tracker=tracker,
            block_size=sandbox.config.block_size,
            parent=sandbox.header,
            build=admitted.id,
            builds=self._node.builds,
            condemned=self._node.records,
            options=self._options(sandbox, admitted),
            attachments=attachments(name, admitted.id, sandbox.generations, sandbox.processor),
            borrowed=not admitted.consumed,
            spill=self._node.spill,
            keeper=self._node.keeper,
            witness=witness(tracker, partial(self._node.ledger.append, sandbox=name, pause=admitted.id)),
        )

    def _options(self, sandbox: Sandbox, admitted: Admitted) -> PauseOptions:
        config = self._node.config
        asked = options(
            admitted.decision,
            use_memfd=sandbox.latched.use_memfd,
            salvage=config.on_copy_failure == "salvage",
        )
        return replace(asked, verify=config.verify == "full")

    def _effects(self, sandbox: Sandbox, admitted: Admitted) -> FaultyEffects:
        node, name = self._node, sandbox.config.name
        tell = partial(node.ledger.append, sandbox=name, pause=admitted.id)
        passage = Passage(
            sandbox=name,
            nth=sandbox.pauses,
            tell=tell,
            trace=node.config.trace,
            cancel=lambda: sandbox.pause is not None and sandbox.pause.cancel(),
            kill_guest=admitted.guest.kill,
            wake_guest=admitted.guest.wake,
            ask_guest=admitted.guest.ask,
        )
        paced = PacedEffects(node.paces, name, admitted.id, sandbox.header.mapping, tell, admitted.wave)
        return self._make_effects(paced, node.armed, passage)

    def _emit(self, sandbox: Sandbox, admitted: Admitted, effects: FaultyEffects) -> Callable[[Event], None]:
        node, huge = self._node, sandbox.config.page_size > PAGE

        def emit(event: Event) -> None:
            node.ledger.append(event, sandbox=sandbox.config.name, pause=admitted.id)
            if isinstance(event, Planned):
                effects.planned(event.chunks)
            elif isinstance(event, ChunkPublished):
                admitted.wave.copied_a_chunk()
                guest = None if event.source_resident is None else (admitted.guest.name, event.source_resident)
                node.memory.set(guest=guest, cache=(admitted.id, event.cache_resident), huge=huge)
            elif isinstance(event, Stranded):  # its last chunk was recorded before it was punched
                node.memory.set(guest=(admitted.guest.name, admitted.guest.resident_bytes()), huge=huge)
            elif isinstance(event, CopyFailed) and event.call == "teardown" and event.condemned:
                self._left.add(admitted.id)

        return emit

    async def _settle(self, sandbox: Sandbox, pause: Pause, admitted: Admitted, blocked_ms: float) -> None:
        """Record a failure here, give the bytes back, and refuse waiters that can no longer be served."""
        tell = partial(self._node.ledger.append, sandbox=sandbox.config.name, pause=admitted.id)
        try:
            with contextlib.ExitStack() as granted:
                granted.callback(self._give_back, sandbox, admitted)
                if await at_rest(pause):
                    self._stranded(sandbox, admitted)
                    await settled_at_last(pause)
                    sandbox.budget.in_flight += 1
                result = pause.settle(0)
                await self._retry_teardown(admitted)
                told = settled(pause, result, admitted, blocked_ms)
                self._tell_outcome(sandbox, pause, replace(told, paced=admitted.id in self._node.paces.paced))
            await self._take_result(sandbox, admitted, result)
        except asyncio.CancelledError:  # it is stranded, and the run ends
            self._end_guest(sandbox, admitted, "the run ended")
            raise
        except Exception as error:
            with contextlib.suppress(OSError):  # it may be the ledger that fails
                tell(events.SettlingFailed(f"{type(error).__name__}: {error}"))
            raise
        finally:
            sandbox.settling = None
            sandbox.stranded.clear()
            self._fail_waiters(sandbox)

    def _stranded(self, sandbox: Sandbox, admitted: Admitted) -> None:
        """Nothing is lost: what is published and what the memfd holds, which stays granted, are the whole snapshot."""
        sandbox.budget.in_flight -= 1
        if sandbox.guest is admitted.guest:
            sandbox.guest = None
        why = "its copy failed; its build is stranded, and can be completed"
        if sandbox.state is State.PAUSING:
            sandbox.to(State.PAUSED, why)
        elif sandbox.state is State.PAUSED:
            sandbox.reason = why
        sandbox.stranded.set()
        self._fail_waiters(sandbox)

    def _tell_outcome(self, sandbox: Sandbox, pause: Pause, told: events.PauseSettled) -> None:
        """Only a recorded outcome lets the condemned record go; if it cannot be recorded, the record stays."""
        if self._node.ledger.try_append(told, sandbox=sandbox.config.name, pause=told.build):
            pause.retire()

    async def _take_result(self, sandbox: Sandbox, admitted: Admitted, result: PauseResult) -> None:
        match result.outcome:
            case Outcome.ROLLED_BACK:
                await self._rolled_back(sandbox, admitted, result)
            case Outcome.DISCARDED:
                self._node.memory.set(cache=(admitted.id, 0))
                await self._discarded(sandbox, admitted, result)
            case Outcome.FINISHED:
                await self._finished(sandbox, admitted, result)

    async def _rolled_back(self, sandbox: Sandbox, admitted: Admitted, result: PauseResult) -> None:
        """On a damaged parent nothing more may stand: the next pause keeps all memory, and stands alone."""
        self._node.memory.set(cache=(admitted.id, 0))
        sandbox.pause = None
        await self._dismiss(sandbox, admitted)
        why = f"it was rolled back: {result.error}"
        if result.parent_damaged:
            admitted.guest.forget_parent()
            sandbox.header = template(sandbox.config.memory, sandbox.config.block_size)
            why += "; its next pause keeps all of its memory"
        await self._node.roll_back(sandbox, admitted.guest, why)

    @staticmethod
    def _fail_waiters(sandbox: Sandbox) -> None:
        if sandbox.budget.in_flight == 0:  # nothing is left on its node that could give memory back by itself
            sandbox.budget.refuse_waiting()

    async def _retry_teardown(self, admitted: Admitted) -> None:
        """A condemned guest whose teardown failed holds all of its memory and never runs: try once more to end it."""
        process, _, _ = admitted.guest.parts()
        if admitted.id not in self._left or process.is_dead():
            return
        with contextlib.suppress(EngineError, OSError):  # its record stays, for the process that ends the run
            await asyncio.to_thread(process.kill)

    async def _finished(self, sandbox: Sandbox, admitted: Admitted, result: PauseResult) -> None:
        node = self._node
        if result.header is None:
            raise GuestError(f"{admitted.id} finished without a header")
        sandbox.header, sandbox.pause = result.header, None
        sandbox.budget.hold(held_bytes(result.header, cache=node.cache_on_tmpfs, spill=node.spill_on_tmpfs))
        if not node.cache_on_tmpfs:
            node.memory.finished(admitted.id)
        if not admitted.consumed:
            await node.roll_back(sandbox, admitted.guest, f"checkpoint {admitted.id} is finished")
            return
        self._end_guest(sandbox, admitted, "paused")
        if sandbox.state is State.PAUSING:
            sandbox.to(State.PAUSED, "its memory is in a finished build")
        elif sandbox.state is State.PAUSED:
            sandbox.reason = "its memory is in a finished build"

    async def _discarded(self, sandbox: Sandbox, admitted: Admitted, result: PauseResult) -> None:
        """Whatever stands on the failed build goes with it: also a guest that was resumed from it meanwhile."""
        node, why = self._node, result.error or "the pause failed after the point of no return"
        why = f"lost at its checkpoint: {why}" if admitted.checkpoint else why
        sandbox.pause = None
        filling = sandbox.state is State.CHECKPOINTING and sandbox.guest is not admitted.guest
        being_filled = filling or sandbox.state is State.RESUMING
        self._end_guest(sandbox, admitted, "discarded")
        if sandbox.guest is None:
            await self._dismiss(sandbox, admitted)
        if sandbox.busy is not None and (sandbox.busy[0] == "resume" or being_filled):
            self._fail_waiters(sandbox)  # that resume may be among them, and what is below would never come
            await asyncio.wait([sandbox.busy[1]])
        async with node.ticking:  # which may be waiting for its answer
            if sandbox.guest is not None:
                with contextlib.suppress(FreezeError):  # the kernel takes its time over it
                    await asyncio.to_thread(sandbox.guest.kill)
                node.end_guest(sandbox, "the build that it was resumed from failed")
                sandbox.budget.give_back(sandbox.config.memory)
        if sandbox.state not in {State.DISCARDED, State.KILLED}:
            sandbox.to(State.DISCARDED, why)

    def _end_guest(self, sandbox: Sandbox, admitted: Admitted, why: str) -> None:
        self._node.forget(sandbox, admitted.guest, why)
        if sandbox.guest is admitted.guest:
            sandbox.guest = None
        sandbox.budget.give_back(sandbox.config.memory)

    @staticmethod
    def _give_back(sandbox: Sandbox, admitted: Admitted) -> None:
        sandbox.budget.in_flight -= 1
        sandbox.budget.give_back(admitted.planned)


def _ms_since(begun: float) -> float:
    return round((time.perf_counter() - begun) * 1e3, 3)
