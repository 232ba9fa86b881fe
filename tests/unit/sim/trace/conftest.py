"""A ledger told by the test: sound unless the test tells something else."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from engine import events as copying
from engine.events import Event
from sim import events
from sim.ledger import Entry, Ledger
from sim.trace import JUDGES
from sim.trace.evidence import Finding, Trace

MIB = 1 << 20
PUNCH, BACKGROUND = "memfd-punch-on-snapshot", "memfd-background-copy"


@dataclass
class Story:
    """What was told so far; sandboxes are `web-0`, incarnations `web-0.1`, pauses `web-0.p1`."""

    entries: list[Entry] = field(default_factory=list)

    def tell(self, event: Event, sandbox: str | None = "web-0", pause: str | None = None) -> None:
        self.entries.append(Entry(float(len(self.entries)), event, sandbox, pause))

    def begin(self, *, use_memfd: bool = True) -> None:
        """One running guest."""
        run = events.RunStarted(1, "0.1.0", "r1", "told", 7, [], "2026-01-02T03:04:05Z", 64 * MIB, "disk", None)
        self.tell(run, None)
        self.tell(events.NodeStarted(10, 1, 11, 1, recovered=False), None)
        self.tell(events.SandboxCreated(8 * MIB, 4096, 4096, "base", "acme", "local"))
        self.spawn(use_memfd=use_memfd)
        self.go("created", "running")

    def go(self, old: str, new: str) -> None:
        self.tell(events.StateChanged(old, new, "as the test wants it"))

    def spawn(self, incarnation: str = "web-0.1", build: str | None = None, *, use_memfd: bool = True) -> None:
        self.tell(events.GuestSpawned(incarnation, 20, 1, 30, 3, 4, "none", 1.0, build, use_memfd))

    def decide(self, pause: str, *, punch: bool = True, background: bool = False) -> None:
        flags = {PUNCH: {"value": punch}, BACKGROUND: {"value": background}}
        self.tell(events.Decided(flags), pause=pause)

    def begin_pause(self, pause: str = "web-0.p1", incarnation: str = "web-0.1", *, punch: bool = True) -> None:
        """Up to the plan."""
        self.go("running", "pausing")
        self.decide(pause, punch=punch)
        self.tell(events.GuestFrozen(incarnation, 0.1), pause=pause)
        self.tell(copying.Scanned("none", 4 * MIB, 0, 8 * MIB, 0.1), pause=pause)
        self.tell(copying.Planned("memfd", punch, "as asked", 2, 4 * MIB), pause=pause)

    def copy(self, pause: str = "web-0.p1", *, punch: bool = True) -> None:
        """Both chunks, condemned after the first."""
        self.tell(copying.ChunkPublished(0, 2 * MIB, 4 * MIB, 8 * MIB, 2 * MIB), pause=pause)
        self.tell(copying.Condemned(pause), pause=pause)
        if punch:
            self.tell(copying.ChunkPunched(0, 4 * MIB), pause=pause)
        left = 4 * MIB if punch else 8 * MIB
        self.tell(copying.ChunkPublished(1, 2 * MIB, 4 * MIB, left, 4 * MIB), pause=pause)
        if punch:
            self.tell(copying.ChunkPunched(1, 8 * MIB), pause=pause)

    def settle(self, pause: str = "web-0.p1", **changes: Any) -> None:
        told: dict[str, Any] = {
            "outcome": "finished",
            "path": "memfd",
            "punch": True,
            "punch_reason": "as asked",
            "dirty_bytes": 4 * MIB,
            "punched_bytes": 8 * MIB,
            "peak_over": 2 * MIB,
            "peak_ratio": 1.25,
            "copy_ms": 1.0,
            "blocked_ms": 1.0,
            "condemned": True,
            "error": None,
            "failed_chunk": None,
            "condemn_error": None,
            "punch_error": None,
            "build": pause,
            "content_hash": "aa",
        }
        self.tell(events.PauseSettled(**told | changes), pause=pause)

    def finish(self, pause: str = "web-0.p1", incarnation: str = "web-0.1", **changes: Any) -> None:
        """The build has its name, the guest is dead, the sandbox paused."""
        self.tell(copying.BuildFinished(pause, 4 * MIB, "aa", 1.0), pause=pause)
        self.settle(pause, **changes)
        self.tell(events.GuestEnded(incarnation, "paused"))
        self.go("pausing", "paused")

    def pause(self, pause: str = "web-0.p1", incarnation: str = "web-0.1") -> None:
        """A whole pause that punches."""
        self.begin_pause(pause, incarnation)
        self.copy(pause)
        self.finish(pause, incarnation)

    def resume(self, incarnation: str = "web-0.2", build: str = "web-0.p1") -> None:
        self.go("paused", "resuming")
        self.spawn(incarnation, build)
        self.tell(events.Resumed(incarnation, build, 4 * MIB, 1.0))
        self.go("resuming", "running")

    def roll_back(self, pause: str = "web-0.p1", incarnation: str = "web-0.1") -> None:
        """The first chunk fails; nothing was condemned."""
        self.tell(copying.CopyFailed(0, "copy.write", "ENOSPC", condemned=False), pause=pause)
        self.tell(copying.CacheDeleted(pause), pause=pause)
        nothing = {"condemned": False, "punched_bytes": 0, "content_hash": None}
        self.settle(pause, outcome="rolled-back", error="ENOSPC", **nothing)
        self.tell(events.GuestThawed(incarnation))
        self.go("pausing", "running")

    def discard(self, pause: str = "web-0.p1", incarnation: str = "web-0.1") -> None:
        """A later chunk fails."""
        self.tell(copying.CopyFailed(1, "copy.write", "ENOSPC", condemned=True), pause=pause)
        self.tell(copying.CacheDeleted(pause), pause=pause)
        self.settle(pause, outcome="discarded", error="ENOSPC", failed_chunk=1, content_hash=None)
        self.tell(events.GuestEnded(incarnation, "discarded"))
        self.go("pausing", "discarded")

    def end(self, incarnation: str | None = None, judged: tuple[events.Judged, ...] = ()) -> None:
        """The run's last lines."""
        if incarnation is not None:
            self.tell(events.GuestEnded(incarnation, "the run ended"))
        for each in judged:
            self.tell(each, None)
        self.tell(events.RunEnded("held", 0, {}, None, 0), None)

    def without(self, kind: type[Event]) -> Story:
        """The same, with no event of a kind."""
        return Story([entry for entry in self.entries if not isinstance(entry.event, kind)])

    def swapped(self, first: type[Event], second: type[Event]) -> Story:
        """The same, with the first event of two kinds in each other's place."""
        places = [
            next(at for at, entry in enumerate(self.entries) if isinstance(entry.event, kind))
            for kind in (first, second)
        ]
        found = list(self.entries)
        found[places[0]], found[places[1]] = found[places[1]], found[places[0]]
        return Story(found)

    def changed(self, kind: type[Event], **changes: Any) -> Story:
        """The same, with something else in every event of a kind."""
        return Story(
            [
                dataclasses.replace(each, event=dataclasses.replace(each.event, **changes))
                if isinstance(each.event, kind)
                else each
                for each in self.entries
            ]
        )

    def found(self, invariant: str) -> Finding:
        """What the judge of that name says of it."""
        return JUDGES[invariant](Trace(self.entries))

    def reasons(self, invariant: str) -> list[str]:
        """What did not hold, in words."""
        return [each["reason"] for each in self.found(invariant).violations]

    def missing(self, invariant: str) -> list[str]:
        """What the ledger does not tell, in words."""
        return [each["reason"] for each in self.found(invariant).missing]

    def write(self, path: Path) -> Path:
        """As a file of JSON lines."""
        ledger = Ledger(path, began=0.0)
        for entry in self.entries:
            ledger.append(entry.event, sandbox=entry.sandbox, pause=entry.pause)
        ledger.close()
        return path


@pytest.fixture
def story() -> Story:
    """A run with one guest that runs."""
    made = Story()
    made.begin()
    return made


@pytest.fixture
def sound(story: Story) -> Story:
    """A whole run: paused with punching, resumed, rolled back, paused again."""
    story.pause()
    story.resume()
    story.begin_pause("web-0.p2", "web-0.2")
    story.roll_back("web-0.p2", "web-0.2")
    story.pause("web-0.p3", "web-0.2")
    story.end()
    return story
