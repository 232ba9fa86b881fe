from __future__ import annotations

import array
import dataclasses
import itertools
import os
import secrets
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import xxhash

from engine import events as copying
from engine import linux
from engine import mapping as maps
from engine.events import Event
from engine.incarnation import start_time_of
from engine.ranges import Blocks
from engine.snapshot import Header, write_attachments, write_header
from sim.record import events
from sim.record.fold import Fold
from sim.record.ledger import Entry, Ledger
from sim.record.oracle import PAGE, ZEROED, content, key_of
from sim.record.run_id import RUN_VARIABLE
from sim.rules import JUDGES
from sim.rules.evidence import Finding, Trace
from sim.rules.reality import Evidence, SpawnedGuest

SEED = 7
PAGES = 16
WRITTEN = {0: 1, 1: 1, 4: 3, 5: 2, 9: 3, 15: ZEROED | 3}
"""Pages of a guest that were written, with their generations; the others never were, and page 15 with zeros."""
MEMORY = PAGES * PAGE
SETTLED: dict[str, Any] = {
    "outcome": "finished",
    "path": "memfd",
    "punch": True,
    "punch_reason": "",
    "dirty_bytes": 4 * PAGE,
    "punched_bytes": MEMORY,
    "peak_over": PAGE,
    "peak_ratio": 1.1,
    "copy_ms": 1.0,
    "blocked_ms": 1.0,
    "condemned": True,
    "error": None,
    "failed_chunk": None,
    "condemn_error": None,
    "punch_error": None,
    "content_hash": None,
}


@dataclass
class LivingGuest:
    """A process that holds a memfd and a side memfd of a guest's names and contents; ended by the fixture."""

    process: subprocess.Popen[bytes]
    born: events.GuestSpawned
    memfd: int
    side: int

    def write(self, page: int, data: bytes) -> None:
        os.pwrite(self.memfd, data, page * PAGE)

    def punch(self, page: int) -> None:
        linux.punch_hole(self.memfd, page * PAGE, PAGE)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def spawned(self) -> SpawnedGuest:
        return SpawnedGuest(self.born.incarnation.partition(".")[0], self.born)


@dataclass
class Scene:
    """One run: what was told so far, and where its files are."""

    folder: Path
    run: str = field(default_factory=lambda: secrets.token_hex(4))
    entries: list[Entry] = field(default_factory=list)
    cache_kept: bool = False

    def __post_init__(self) -> None:
        self.builds = self.folder / f"snapdrill-{self.run}-cache"
        self.sockets = self.folder / "sockets"
        self.condemned = self.folder / "condemned"
        for each in (self.builds, self.sockets, self.condemned):
            each.mkdir()

    def tell(self, event: Event, sandbox: str | None = "web-0", pause: str | None = None) -> None:
        self.entries.append(Entry(float(len(self.entries)), event, sandbox, pause))

    def create(self, sandbox: str = "web-0") -> None:
        self.tell(events.SandboxCreated(MEMORY, PAGE, PAGE, "base", "default", "local"), sandbox)

    def go_to(self, *states: str, sandbox: str = "web-0") -> None:
        """Transitions, the first state being where it is now."""
        for old, new in itertools.pairwise(states):
            self.tell(events.StateChanged(old, new, "as the test wants it"), sandbox)

    def freeze(self, pause: str = "web-0.p1", incarnation: str = "web-0.1") -> None:
        self.tell(events.GuestFrozen(incarnation, 0.1), incarnation.partition(".")[0], pause)

    def settle(self, pause: str = "web-0.p1", **changes: Any) -> None:
        settled = events.PauseSettled(**{"build": pause} | SETTLED | changes)
        self.tell(settled, pause.partition(".")[0], pause)

    def evidence(self) -> Evidence:
        fold = Fold()
        fold.apply(self.entries)
        return Evidence(
            self.run, SEED, self.folder, self.builds, self.sockets, list(self.entries), fold.view(), self.cache_kept
        )

    def build(self, name: str, written: Mapping[int, int] = WRITTEN, wrong: Mapping[int, bytes] | None = None) -> Path:
        """A finished build of web-0 whose pages are those of `written`, but for the `wrong` ones."""
        key = key_of(SEED, "web-0")
        memory = b"".join((wrong or {}).get(page, content(key, page, tick)) for page, tick in sorted(written.items()))
        mapping = maps.create(Blocks(written), name, MEMORY, PAGE)
        header = Header(name, name, 1, mapping, (len(memory),), (xxhash.xxh3_128_digest(memory),))
        folder = self.builds / name
        folder.mkdir()
        (folder / "memfile").write_bytes(memory)
        write_header(header, folder)
        write_attachments({"generations": generations_of(written).tobytes()}, folder)
        return folder


def generations_of(written: Mapping[int, int]) -> array.array[int]:
    return array.array("I", [written.get(page, 0) for page in range(PAGES)])


def memory_of(sandbox: str, written: Mapping[int, int]) -> Iterable[tuple[int, bytes]]:
    key = key_of(SEED, sandbox)
    return ((page, content(key, page, tick)) for page, tick in written.items())


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A run with one sandbox, web-0."""
    made = Scene(tmp_path)
    made.create()
    return made


class Guests:
    """Starts guests of a scene, told to its ledger unless `told` is false."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.all: list[LivingGuest] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(
        self, incarnation: str = "web-0.1", written: Mapping[int, int] = WRITTEN, *, told: bool = True
    ) -> LivingGuest:
        """A process with memory as it must be: hold `punch`, `write`, `stop` and `kill` against it."""
        sandbox = incarnation.partition(".")[0]
        name = f"snapdrill-{self._scene.run}-{incarnation}"
        memfd, side = os.memfd_create(name), os.memfd_create(f"{name}-side")
        os.ftruncate(memfd, MEMORY)
        os.pwrite(side, generations_of(written).tobytes() + bytes(PAGES), 0)
        process = self.start_process(memfd, side)
        born = events.GuestSpawned(
            incarnation, process.pid, start_time_of(process.pid) or 0, os.fstat(memfd).st_ino, memfd, side, "none", 1.0,
            None,
        )  # fmt: skip
        guest = LivingGuest(process, born, memfd, side)
        self.all.append(guest)
        for page, data in memory_of(sandbox, written):
            guest.write(page, data)
        if told:
            self._scene.tell(born, sandbox)
        return guest

    def start_process(self, *fds: int) -> subprocess.Popen[bytes]:
        """A process of this run that waits, and is past its exec: until then its environment cannot be read."""
        environment = {**os.environ, RUN_VARIABLE: self._scene.run}
        process = subprocess.Popen(
            ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, pass_fds=fds, env=environment
        )
        self.processes.append(process)
        if process.stdin is None or process.stdout is None:
            raise AssertionError("pipes were asked for")
        process.stdin.write(b"!")
        process.stdout.read(1)
        return process

    def tell(self, guest: LivingGuest, **changes: Any) -> None:
        """Tell of the guest, with something else than the truth."""
        self._scene.tell(dataclasses.replace(guest.born, **changes), "web-0")

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        for guest in self.all:
            os.close(guest.memfd)
            os.close(guest.side)


@pytest.fixture
def guests(scene: Scene) -> Iterator[Guests]:
    made = Guests(scene)
    yield made
    made.end()


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
