"""A run without processes: the drill's shape, told events by the test, asked things by the screen."""

from __future__ import annotations

import asyncio
import fnmatch
import pathlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import pytest

from engine import events as engine_events
from engine.events import Event
from flags.inline import InlineValue, as_written
from sim.files.faults import Harm
from sim.files.steps import Outage
from sim.record import events, source_events
from sim.record.fold import Fold
from sim.record.ledger import Entry
from sim.record.view import View

MIB = 1 << 20
PUNCH = "memfd-punch-on-snapshot"
BACKGROUND = "memfd-background-copy"


class RecordedDrill:
    """Keeps every call; `error` is what the next ones raise; `now` is the time of the entries, in
    seconds; while there is `waits` nothing that is asked is over."""

    def __init__(self) -> None:
        self.fold = Fold()
        self.calls: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        self.violated: list[dict[str, Any]] = []
        self.now = 0.0
        self.waits: asyncio.Event | None = None
        self.run_dir = pathlib.Path()

    async def __aenter__(self) -> Self:
        self.calls.append(("started",))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.calls.append(("torn down",))

    def tell(self, event: Event, sandbox: str | None = None, pause: str | None = None) -> None:
        self.fold.apply([Entry(self.now, event, sandbox, pause)])

    def view(self) -> View:
        return self.fold.view()

    def violations(self) -> list[dict[str, Any]]:
        return self.violated

    async def _called(self, *call: Any) -> None:
        self.calls.append(call)
        if self.waits is not None:
            await self.waits.wait()
        if self.error is not None:
            raise self.error

    async def tick(self, count: int = 1) -> None:
        await self._called("tick", count)

    async def pause(
        self, names: Sequence[str], *, concurrency: int = 4, deadline: float = 60.0, wave: bool = False
    ) -> None:
        await self._called("pause", list(names))

    async def resume(self, names: Sequence[str]) -> None:
        await self._called("resume", list(names))

    async def kill(self, names: Sequence[str]) -> None:
        await self._called("kill", list(names))

    async def act(self, op: str, names: Sequence[str]) -> None:
        await self._called(op, list(names))

    async def set_flag(self, key: str, value: InlineValue, *, by: str = "scenario") -> None:
        await self._called("set_flag", key, value)
        self.tell(events.FlagSet(key, as_written(value), by=by))

    async def outage(self, outage: Outage) -> None:
        await self._called("outage", outage.fault)
        ended = outage.fault == "recover"
        self.tell(source_events.OutageEnded() if ended else source_events.OutageBegan(outage.fault, outage.detail))

    async def restart(self) -> None:
        await self._called("restart")

    async def inject(self, fault: str, harm: Harm, at: Any, sandboxes: str, *, by_kernel: bool = False) -> int:
        await self._called("inject", fault, harm.error, at, sandboxes, *(["by kernel"] if by_kernel else []))
        return 1

    async def pace(self, sandboxes: str, *, factor: float, held: bool, steps: int = 0) -> None:
        await self._called("pace", sandboxes, factor, held, steps)
        for name in fnmatch.filter(self.view().sandboxes, sandboxes):
            self.tell(events.PaceSet(factor, held), name)

    async def clear(self) -> None:
        await self._called("clear")

    async def finish(self) -> View:
        self.calls.append(("finish",))
        self.tell(events.RunEnded("held", 0, {}, "digest", 0))
        return self.view()

    # -- what happens to a fleet, told as the node tells it

    def tell_of_fleet(self, names: Sequence[str], memory: int = 32 * MIB) -> None:
        self.tell(events.RunStarted(1, "0", "run", "demo", 42, [], "", 1024 * MIB, "disk", None))
        self.tell(events.FlagSet(PUNCH, False))
        self.tell(events.FlagSet(BACKGROUND, True))
        self.tell(events.NodeStarted(100, 1, 101, 1, False))
        for name in names:
            self.tell(events.SandboxCreated(memory, 4096, 4096, "python", "acme", "local"), name)
        for number, name in enumerate(names):
            self.tell_of_guest(name, 200 + number, memory)
        self.sample(guests=len(names) * memory)

    def tell_of_guest(self, name: str, pid: int, resident: int) -> None:
        spawned = events.GuestSpawned(f"{name}.1", pid, 1, 1, 3, 4, "uffd", 1.0, None)
        self.tell(spawned, name)
        self.tell(events.GuestMeasured(resident), name)
        self.tell(events.StateChanged("created", "running", "created"), name)

    def sample(self, *, guests: int, caches: int = 0) -> None:
        self.tell(events.MemorySampled(guests, caches, guests))

    def begin_pause(self, name: str, *, punch: bool, chunks: int = 16) -> None:
        pause = f"{name}.p1"
        self.tell(events.StateChanged("running", "pausing", "a pause was requested"), name)
        decided = {
            PUNCH: {"value": punch, "reason": "FALLTHROUGH", "variation": 0, "version": 1, "source_state": "VALID"},
            BACKGROUND: {"value": True, "reason": "FALLTHROUGH", "variation": 0, "version": 1, "source_state": "VALID"},
        }
        self.tell(events.Decided(decided), name, pause)
        why = "the memfd is consumed and the guest will be condemned first" if punch else f"{PUNCH} is off"
        self.tell(engine_events.Planned("memfd-background", punch, why, chunks, 32 * MIB), name, pause)

    def publish(self, name: str, count: int, *, punch: bool) -> None:
        pause = f"{name}.p1"
        for chunk in range(count):
            done = (chunk + 1) * 2 * MIB
            resident = 32 * MIB - done if punch else 32 * MIB
            published = engine_events.ChunkPublished(
                chunk=chunk, length=2 * MIB, span=2 * MIB, source_resident=resident, cache_resident=done
            )
            self.tell(published, name, pause)
            if punch:
                self.tell(engine_events.ChunkPunched(chunk, done), name, pause)
            if chunk == 0:
                self.tell(engine_events.Condemned(pause), name, pause)

    def settle(self, name: str, *, punch: bool, error: str | None = None) -> None:
        pause = f"{name}.p1"
        self.tell(events.PauseReturned(4.2, error is None), name, pause)
        settled = events.PauseSettled(
            outcome="discarded" if error else "finished",
            path="memfd-background",
            punch=punch,
            dirty_bytes=32 * MIB,
            punched_bytes=32 * MIB if punch else 0,
            peak_over=MIB if punch else 32 * MIB,
            peak_ratio=1.03 if punch else 2.0,
            copy_ms=61.0,
            blocked_ms=4.2,
            condemned=True,
            error=error,
            failed_chunk=3 if error else None,
            build=pause,
        )
        self.tell(settled, name, pause)
        self.tell(events.GuestEnded(f"{name}.1", "paused"), name)

    def finish_pause(self, name: str, *, punch: bool) -> None:
        self.begin_pause(name, punch=punch)
        self.publish(name, 16, punch=punch)
        self.settle(name, punch=punch)
        self.tell(events.StateChanged("pausing", "paused", "its memory is in a finished build", "paused"), name)

    def discard(self, name: str) -> None:
        self.begin_pause(name, punch=True)
        self.publish(name, 3, punch=True)
        why = "copy.write of chunk 3 failed: No space left on device (injected)"
        self.tell(events.FaultFired(1, "copy.write", "ENOSPC", 3), name, f"{name}.p1")
        failed = engine_events.CopyFailed(3, "copy.write", "No space left on device (injected)", True)
        self.tell(failed, name, f"{name}.p1")
        self.tell(engine_events.CacheDeleted(f"{name}.p1"), name, f"{name}.p1")
        self.settle(name, punch=True, error=why)
        self.tell(events.StateChanged("pausing", "discarded", why, "discarded"), name)


@pytest.fixture
def drill() -> RecordedDrill:
    """Six sandboxes of 32 MiB, all running, which have worked once."""
    recorded = RecordedDrill()
    recorded.tell_of_fleet([f"web-{number}" for number in range(6)])
    recorded.tell(events.Ticked(1))
    return recorded
