from __future__ import annotations

import array
import dataclasses
import os
import secrets
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import xxhash

from engine import linux
from engine import mapping as maps
from engine.incarnation import start_time_of
from engine.ranges import Blocks
from engine.snapshot import Header, write_attachments, write_header
from sim.record import events
from sim.record.names import sandbox_of
from sim.record.oracle import PAGE, ZEROED, content, key_of
from sim.record.run_id import RUN_VARIABLE
from sim.rules.reality import Reality, SpawnedGuest
from tests.story import Story, created

SEED = 7
PAGES = 16
WRITTEN = {0: 1, 1: 1, 4: 3, 5: 2, 9: 3, 15: ZEROED | 3}
"""Pages of a guest that were written, with their generations; the others never were, and page 15 with zeros."""
MEMORY = PAGES * PAGE


def reality_in(folder: Path) -> Reality:
    """Of a run whose files are here; nothing runs."""
    run = secrets.token_hex(4)
    made = Reality(run, SEED, folder, folder / f"snapdrill-{run}-cache", folder / "sockets")
    for each in (made.builds, made.socket_dir, made.condemned):
        each.mkdir()
    return made


@pytest.fixture
def ledger() -> Story:
    """A ledger alone: one guest runs."""
    return Story().begin()


@pytest.fixture(params=["ledger", "fleet"])
def story(request: pytest.FixtureRequest, tmp_path: Path) -> Story:
    """The same, by its ledger alone and with its fleet, of which nothing is left."""
    return Story(reality=reality_in(tmp_path) if request.param == "fleet" else None).begin()


@pytest.fixture
def sound(ledger: Story) -> Story:
    """The ledger of a whole run: paused with punching, resumed, rolled back, paused again."""
    ledger.pause().resume()
    ledger.begin_pause("web-0.p2", "web-0.2").roll_back("web-0.p2", "web-0.2")
    return ledger.pause("web-0.p3", "web-0.2").end()


# -- a fleet to look at


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
        return SpawnedGuest(sandbox_of(self.born.incarnation), self.born)


class Scene(Story):
    """The ledger of a run, and its files."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.reality: Reality = reality_in(folder)

    def build(self, name: str, written: Mapping[int, int] = WRITTEN, wrong: Mapping[int, bytes] | None = None) -> Path:
        """A finished build whose pages are those of `written`, but for the `wrong` ones."""
        key = key_of(SEED, sandbox_of(name))
        memory = b"".join((wrong or {}).get(page, content(key, page, tick)) for page, tick in sorted(written.items()))
        mapping = maps.create(Blocks(written), name, MEMORY, PAGE)
        header = Header(name, name, 1, mapping, (len(memory),), (xxhash.xxh3_128_digest(memory),))
        folder = self.reality.builds / name
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
    made.tell(created(MEMORY))
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
        sandbox = sandbox_of(incarnation)
        name = f"snapdrill-{self._scene.reality.run}-{incarnation}"
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
        environment = {**os.environ, RUN_VARIABLE: self._scene.reality.run}
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
