"""One sandbox on its node: where it is in its life, its guest and the newest finished build."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.errors import BuildFailedError
from engine.incarnation import CondemnedRecords
from engine.keeper import Keeper
from engine.pause import Pause
from engine.snapshot import Header, template
from flags.client import FlagClient
from sim.files.lifecycle import STOP_REASONS, State, StopReason, check_transition, refusal
from sim.node.armed_faults import ArmedFaults
from sim.node.config import NodeConfig, SandboxConfig
from sim.node.guest_link import Armed, Guest
from sim.node.memory import Budget, NodeMemory
from sim.node.pace import Paces
from sim.node.wave import Wave
from sim.record import events
from sim.record.ledger import Ledger

_BEGINS = frozenset({State.PAUSING, State.CHECKPOINTING, State.RESUMING})
"""States that announce an act: it is not started if they cannot be recorded."""


@dataclass(frozen=True, slots=True)
class Latched:
    """What the flags said when a guest was started: it holds for as long as that guest lives."""

    use_memfd: bool = True
    use_sync_wp: bool = False


@dataclass(slots=True)
class Successor:
    """The guest that goes on after a checkpoint, or comes right after a pause, which was admitted with its memory.

    `guest`: of a checkpoint, once it is spawned.
    """

    guest: Guest | None = None
    latched: Latched = Latched()
    spawn_ms: float = 0.0
    granted: bool = True
    """Its memory is held for it, and not yet given back or taken over by its sandbox."""


class Sandbox:
    """One sandbox on its node: where it is in its life, its guest and the newest finished build."""

    def __init__(self, config: SandboxConfig, ledger: Ledger, budget: Budget) -> None:
        self.config = config
        self.budget = budget  # of the node that it is on
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
        self.stranded = asyncio.Event()  # the copy in flight has failed, and goes on only when it is asked to
        self.generations = b""  # of the pause in flight
        self.processor = b""  # the same, of a virtual machine
        self.latched = Latched()
        self.wave = Wave()  # that the pause which was asked for goes with

    @property
    def newest(self) -> Header:
        """Of the build that is still being copied, else of the newest finished one."""
        copying = self.pause.header if self.pause is not None else None
        return copying or self.header

    @property
    def is_free(self) -> bool:
        """Its guest runs, and no other request for it is under way."""
        return self.state is State.RUNNING and self.busy is None and self.settling is None

    async def at_rest(self) -> None:
        """Return once the copy in flight, if there is one, has ended or is stranded."""
        settling = self.settling
        if settling is None:
            return
        stranded = asyncio.ensure_future(self.stranded.wait())
        await asyncio.wait([settling, stranded], return_when=asyncio.FIRST_COMPLETED)
        stranded.cancel()
        if settling.done():
            settling.result()

    async def take(self, kind: str, act: Callable[[Sandbox], Awaitable[None]], is_ending: Callable[[], bool]) -> None:
        """A request: the same transition is joined, another waits for the end and is judged again."""
        while self.busy is not None:
            current, task = self.busy
            await asyncio.wait([task])
            if current == kind:
                return
        if is_ending():
            return
        if why := refusal(kind, self.state, self.reason):
            self._ledger.append(events.RequestRefused(kind, why.reason, why.code), sandbox=self.config.name)
            return
        task = asyncio.ensure_future(self._carry_out(act))
        self.busy = (kind, task)
        await asyncio.shield(task)  # a caller that goes away changes nothing

    async def _carry_out(self, act: Callable[[Sandbox], Awaitable[None]]) -> None:
        try:
            await act(self)
        finally:
            self.busy = None

    def to(self, new: State, reason: str, stop_reason: StopReason | None = None) -> None:
        """A legal transition, recorded before anything follows from it; raises IllegalTransitionError.

        What only says how something ended is not held up by a ledger that takes no more.
        """
        check_transition(self.state, new)
        old, before = self.state, self.reason
        self.state, self.reason = new, reason
        why = stop_reason or STOP_REASONS.get(new)
        changed = events.StateChanged(old.value, new.value, reason, why.value if why else None)
        if new in _BEGINS:
            try:
                self._ledger.append(changed, sandbox=self.config.name)
            except OSError:  # then it did not begin
                self.state, self.reason = old, before
                raise
        else:
            self._ledger.try_append(changed, sandbox=self.config.name)


class Machine(Protocol):
    """What the pauses of a node need of it (node.Node)."""

    config: NodeConfig
    ledger: Ledger
    records: CondemnedRecords
    armed: ArmedFaults
    paces: Paces
    builds: Path
    memory: NodeMemory
    flags: FlagClient
    ticking: asyncio.Lock
    cache_on_tmpfs: bool
    keeper: Keeper
    spill: Path | None
    spill_on_tmpfs: bool
    ending: bool

    def end_guest(self, sandbox: Sandbox, why: str) -> None: ...

    def forget(self, sandbox: Sandbox, guest: Guest, why: str) -> None: ...

    async def roll_back(self, sandbox: Sandbox, guest: Guest, why: str) -> None: ...

    async def spawn_successor(self, sandbox: Sandbox, successor: Successor, pause: str) -> None: ...

    async def go_on_with(self, sandbox: Sandbox, successor: Successor) -> None: ...

    async def dismiss(self, sandbox: Sandbox, successor: Successor) -> None: ...

    async def resume_granted(self, sandbox: Sandbox, reader: Successor) -> None: ...


def refuse_failed(copying: Pause | None) -> None:
    """A guest that was filled before the last act of the copy failed stands on nothing."""
    if copying is not None and copying.failed:
        raise BuildFailedError("the copy that it was filled from has failed")


def guest_spawned(
    sandbox: Sandbox, guest: Guest, header: Header | None, armed: Armed, spawn_ms: float
) -> events.GuestSpawned:
    """The event of a new guest; `header` is the one that it was filled from."""
    hello = guest.known()
    return events.GuestSpawned(
        incarnation=guest.name,
        pid=guest.pid,
        start_time=guest.start_time,
        memfd_inode=guest.memory().inode,
        memfd_fd=hello.memfd_fd,
        side_fd=hello.side_fd,
        tracker=armed.tracker,
        spawn_ms=round(spawn_ms, 3),
        build=header.build if header is not None else None,
        use_memfd=sandbox.latched.use_memfd,
        heartbeat=sandbox.config.heartbeat,
        use_sync_wp=sandbox.latched.use_sync_wp,
        tracker_refused=armed.refused,
        tracker_why=armed.why,
        guest=sandbox.config.guest,
    )
