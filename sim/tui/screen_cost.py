"""What the fleet screen costs: run by itself, it draws 1,000 changing sandboxes with no terminal and prints one figure.

The fleet comes from events, folded and drawn as a live one is; in each frame a tenth of it copies a chunk.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

from engine import events as engine_events
from engine.events import Event
from sim.record import events
from sim.record.fold import Fold
from sim.record.ledger import Entry
from sim.record.view import View
from sim.tui.app import REFRESHES_A_SECOND, ShowApp

SANDBOXES = 1000
SIZE = (140, 45)
"""Cells."""
WARM, SECONDS = 1.0, 5.0
MIB = 1 << 20


class ChangingFleet:
    """A tenth of it pauses at a time, with punching, a chunk a frame; then the next tenth."""

    def __init__(self) -> None:
        self._fold = Fold()
        self._frame = 0
        self.views = 0
        self._tell(events.RunStarted(1, "0", "bench", "bench", 1, [], "", SANDBOXES * 4 * MIB, "disk", None))
        for number in range(SANDBOXES):
            name = f"web-{number}"
            self._tell(events.SandboxCreated(32 * MIB, 4096, 4096, "python", "acme", "local"), name)
            self._tell(events.GuestSpawned(f"{name}.1", number, 1, 1, 3, 4, "uffd", 1.0, None), name)
            self._tell(events.StateChanged("created", "running", "created"), name)

    def view(self) -> View:
        """One frame later."""
        copying, chunk = divmod(self._frame, 16)
        for number in range(copying % 10, SANDBOXES, 10):
            for event in _copy(f"web-{number}", chunk, copying // 10):
                self._tell(event, f"web-{number}", f"web-{number}.p{copying // 10}")
        self._tell(events.MemorySampled(SANDBOXES * MIB, chunk * MIB, 0))
        self._frame += 1
        self.views += 1
        return self._fold.view()

    def _tell(self, event: Event, sandbox: str | None = None, pause: str | None = None) -> None:
        self._fold.apply([Entry(self._frame / REFRESHES_A_SECOND, event, sandbox, pause)])


def _copy(name: str, chunk: int, nth: int) -> Iterator[Event]:
    if chunk == 0:
        yield events.StateChanged("running", "pausing", "a pause was requested")
        yield engine_events.Planned("memfd", True, "the memfd is consumed", 16, 32 * MIB)
    done = (chunk + 1) * 2 * MIB
    yield engine_events.ChunkPublished(
        chunk=chunk, length=2 * MIB, span=2 * MIB, source_resident=32 * MIB - done, cache_resident=done
    )
    if chunk == 0:
        yield engine_events.Condemned(f"{name}.p{nth}")
    yield engine_events.ChunkPunched(chunk, done)
    if chunk == 15:
        yield events.StateChanged("pausing", "running", "resumed")


async def measure() -> dict[str, float]:
    """`cpu_percent` of one core, and `hz`, the frames a second that were drawn."""
    fleet, app = ChangingFleet(), ShowApp()
    app.live.show(fleet.view, "this fleet takes no requests")
    async with app.run_test(size=SIZE):
        await asyncio.sleep(WARM)
        await app.action_show("fleet")  # the list, not the map that so large a fleet begins with
        views, cpu, wall = fleet.views, time.process_time(), time.perf_counter()
        await asyncio.sleep(SECONDS)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return {"cpu_percent": 100 * cpu / wall, "hz": (fleet.views - views) / wall}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure())))  # noqa: T201 - the one line that the parent reads
