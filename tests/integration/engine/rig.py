"""Real guests for the engine's tests: forked processes that own a memfd, write it on command and are always reaped.

And who pauses them, what is done to a pause meanwhile, and how it is looked at.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from engine import resume
from engine.cache import Cache
from engine.dirty import SharedBitmap, Tracker, WriteProtectScan
from engine.effects import Effects
from engine.errors import EngineError
from engine.events import BuildFinished, Event, Planned
from engine.incarnation import CondemnedRecords, GuestProcess, Incarnation, start_time_of
from engine.keeper import Keeper
from engine.memfd import Memfd, ProcessMemory
from engine.pause import Outcome, Pause, PauseResult
from engine.plan import DedupOptions, PauseOptions
from engine.prepare import PauseRequest
from engine.snapshot import Build, Header, template
from tests.integration.engine import guest_process

MIB = 1 << 20
PAGE = guest_process.PAGE
CHUNKS = 4
"""Of the memory of a guest that is not told otherwise: 2 MiB each."""
SHM = "/dev/shm"  # noqa: S108 - asked for because it is tmpfs
DEADLINE = 20.0

BOTH = pytest.mark.parametrize("background", [False, True], ids=["sync", "background"])
PUNCH = pytest.mark.parametrize("punch", [False, True], ids=["kept", "punched"])
WaitForReaders = Callable[[Cache, int], None]


@dataclass
class Guest:
    """The test's side of one guest. `watch` is a second fd of its memory, kept after the engine closed its own."""

    pid: int
    sock: socket.socket
    watch: int
    notes: int
    memfd: Memfd
    process: GuestProcess
    address: int
    tracker: Tracker | None = None

    def ask(self, do: str, *arguments: object) -> Any:
        """Have the guest do something; its answer."""
        self.sock.send(json.dumps([do, arguments]).encode())
        answer = self.sock.recv(1 << 20)
        assert answer, f"the guest died of {do!r}"
        return json.loads(answer)

    def write(self, pages: Iterable[int], seed: int) -> None:
        """Seed 0 writes zeros."""
        assert self.ask("write", list(pages), seed) is None

    def by_process(self) -> ProcessMemory:
        """Its memory as one sees it who was given no memfd."""
        return ProcessMemory(self.pid, self.address, self.memfd.size, self.memfd.page_size)

    def track(self, *, block_size: int = PAGE, bitmap: bool = False) -> Guest:
        """From now on the guest's writes are noted: by the kernel where it can, else by the guest itself."""
        if not bitmap and self.ask("track") is None:
            self.tracker = WriteProtectScan(self.pid, self.address, self.memfd, block_size)
        else:
            os.pwrite(self.notes, bytes(self.memfd.size // PAGE), 0)
            self.tracker = SharedBitmap(self.notes, 0, self.memfd.size // PAGE, PAGE, block_size)
        return self

    def memory(self) -> bytes:
        """Every byte, by system call: holes stay holes."""
        return os.pread(self.watch, self.memfd.size, 0)

    def resident(self) -> int:
        return os.fstat(self.watch).st_blocks * 512

    def is_alive_and_runs(self) -> bool:
        """It answers over its socket."""
        return bool(self.ask("read", 0))

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        if self.tracker is not None:
            self.tracker.close()
        self.memfd.close()
        self.process.close()
        self.sock.close()
        os.close(self.watch)
        os.close(self.notes)


class Guests:
    """Starts guests and ends every one of them."""

    def __init__(self) -> None:
        self._all: list[Guest] = []

    def start(self, size: int = 8 * MIB, *, huge: bool = False) -> Guest:
        """A guest with an all-zero memory that nothing tracks yet."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(DEADLINE)
        flags = os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC | (os.MFD_HUGETLB | os.MFD_HUGE_2MB if huge else 0)
        with theirs:
            pid = guest_process.start(theirs, size, flags)
        message, fds, _, _ = socket.recv_fds(ours, 64, 2)
        assert len(fds) == 2, "the guest did not come up"
        watch = os.dup(fds[0])
        memfd = Memfd.adopt(fds[0], size)
        incarnation = Incarnation(f"web-{len(self._all)}", pid, start_time_of(pid) or 0, memfd.inode)
        process = GuestProcess(incarnation, os.pidfd_open(pid))
        guest = Guest(pid, ours, watch, fds[1], memfd, process, struct.unpack("<Q", message)[0])
        self._all.append(guest)
        return guest

    def fresh(self, size: int = 8 * MIB, *, pages: Iterable[int] | None = None, bitmap: bool = False) -> Guest:
        """A tracked first generation that has written `pages` (all of them unless given)."""
        guest = self.start(size).track(bitmap=bitmap)
        guest.write(range(size // PAGE) if pages is None else pages, seed=1)
        return guest

    def from_header(self, builds: Path, header: Header, *, huge: bool = False) -> Guest:
        """A new incarnation: filled first, tracked then."""
        guest = self.start(header.mapping.size, huge=huge)
        resume.fill(guest.memfd, builds, header)
        return guest.track(block_size=header.mapping.block_size)

    def end(self) -> None:
        for guest in self._all:
            guest.end()


ILL_TYPED: list[str] = []
"""What events and results of this test say that they may not: a failed assertion in the engine's own thread is lost."""
TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float,),
    "bool": (bool,),
    "list[str]": (list,),
    "dict[str, list[int]]": (dict,),
    "None": (type(None),),
}


def ill_typed(event: Event | PauseResult) -> list[str]:
    """Fields that do not hold what they are declared to: a reader of a ledger relies on it."""
    found = []
    for each in dataclasses.fields(event):
        parts = str(each.type).split(" | ")
        kinds = tuple(kind for part in parts for kind in TYPES.get(part, (object,)))
        value = getattr(event, each.name)
        wrong = not isinstance(value, kinds) or (isinstance(value, bool) and not {bool, object} & set(kinds))
        if wrong or (isinstance(value, str) and value in {"", "None"}):
            found.append(f"{type(event).__name__}.{each.name} is {value!r}, not {each.type}")
    return found


@dataclass
class Pauser:
    """Pauses guests into one folder of builds, and looks at what is left there."""

    folder: Path
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.builds = self.folder / "builds"
        self.builds.mkdir(parents=True)
        self.condemned = CondemnedRecords(self.folder / "condemned")
        self._pauses: list[Pause] = []

    def prepare(
        self,
        guest: Guest,
        *,
        build: str = "b1",
        parent: Header | None = None,
        block_size: int = PAGE,
        background: bool = False,
        punch: bool = True,
        dedup: bool = False,
        options: PauseOptions | None = None,
        by_process: bool = False,
        checkpoint: bool = False,
        effects: Effects | None = None,
        attachments: dict[str, bytes] | None = None,
        spill: Path | None = None,
        keeper: Keeper | None = None,
    ) -> Pause:
        """A pause (or checkpoint) of a guest that is frozen here, not yet begun."""
        assert guest.tracker is not None
        guest.process.freeze()
        request = PauseRequest(
            guest=guest.process,
            memory=guest.by_process() if by_process else guest.memfd,
            tracker=guest.tracker,
            block_size=block_size,
            parent=parent or template(guest.memfd.size, block_size),
            build=build,
            builds=self.builds,
            condemned=self.condemned,
            options=options
            or PauseOptions(not by_process, background_copy=background, punch=punch, dedup=DedupOptions(dedup)),
            attachments=attachments or {},
            borrowed=checkpoint,
            spill=spill,
            keeper=keeper,
        )
        pause = Pause(request, effects, self._note)
        self._pauses.append(pause)
        return pause

    def _note(self, event: Event) -> None:
        self.events.append(event)
        ILL_TYPED.extend(ill_typed(event))

    def retire(self) -> bool:
        """As a node does that has told the outcomes of all pauses so far; False where no record could go."""
        retired = [pause.retire() for pause in self._pauses]
        return any(retired)

    def pause(self, guest: Guest, **options: Any) -> PauseResult:
        """Freeze and pause to the very end."""
        pause, rests = self.prepare(guest, **options), threading.Event()
        pause.when_at_rest(rests.set)
        pause.begin()
        result = pause.settle(DEADLINE)
        assert rests.wait(DEADLINE)
        ILL_TYPED.extend(ill_typed(result))
        return result

    def restored(self, build: str = "b1") -> bytes:
        """The memory that a finished build describes, resumed into a fresh memfd."""
        header = self.header(build)
        memfd = fresh_memfd(header.mapping.size)
        try:
            resume.fill(memfd, self.builds, header)
            return os.pread(memfd.fd, memfd.size, 0)
        finally:
            memfd.close()

    def header(self, build: str = "b1") -> Header:
        with contextlib.closing(Build.open(self.builds, build)) as opened:
            opened.verify()
            return opened.header

    def names(self) -> list[str]:
        """Every build in the folder, finished or not."""
        return sorted(path.name for path in self.builds.iterdir())

    def of(self, kind: type[Event]) -> list[Any]:
        """The events of one kind so far, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    def assert_finished(
        self, guest: Guest, result: PauseResult, before: bytes, build: str = "b1", *, condemned: bool = True
    ) -> Header:
        """Every byte is in the build; guest dead, record retired, memory given back, nothing half done left."""
        self.retire()
        assert (result.outcome, result.error) == (Outcome.FINISHED, None)
        assert result.condemned is condemned
        assert guest.process.is_dead()
        assert guest.memfd.fd == -1 or self.of(Planned)[-1].path == "process"
        assert list(self.condemned.records()) == []
        assert not any(name.endswith(".partial") for name in self.names())
        assert self.restored(build) == before
        header = result.header
        assert header is not None
        said = self.of(BuildFinished)[-1]
        assert (said.build, said.length, said.content_hash) == (build, header.length, header.content_hash)
        return header

    def assert_nothing_was_forgotten(self, guest: Guest, **how: Any) -> None:
        """What was written before a failure and what is written after it are both in the next build."""
        guest.write([77, 1500], seed=5)
        before = guest.memory()
        assert self.pause(guest, build="next", **how).outcome is Outcome.FINISHED
        assert self.restored("next") == before

    def assert_discarded(self, guest: Guest, result: PauseResult, left: Sequence[str] = ()) -> None:
        """Rule 5: guest dead, cache gone, record retired, memory given back. `left` are the builds of before."""
        self.retire()
        assert result.outcome is Outcome.DISCARDED
        assert result.condemned
        assert result.header is None
        assert guest.process.is_dead()
        assert self.names() == list(left)
        assert list(self.condemned.records()) == []
        assert guest.memfd.fd == -1

    def assert_rolled_back(self, guest: Guest, result: PauseResult, before: bytes, left: Sequence[str] = ()) -> None:
        """Rule 5: nothing was lost; the guest is still stopped and may run on. `left` are the builds of before."""
        self.retire()
        assert result.outcome is Outcome.ROLLED_BACK
        assert not result.condemned
        assert result.punched_bytes == 0
        assert guest.process.is_stopped()
        assert guest.memory() == before
        assert self.names() == list(left)
        assert list(self.condemned.records()) == []
        guest.process.thaw(self.condemned)
        assert guest.is_alive_and_runs()


class Faults:
    """Effects that do something else first: raise, wait, or hurt the guest."""

    def before(self, call: str, act: Callable[..., None], effects: Effects | None = None) -> Effects:
        """`act` gets the arguments of the call."""
        effects = effects or Effects()
        real = getattr(effects, call)

        def acted(*arguments: object) -> object:
            act(*arguments)
            return real(*arguments)

        setattr(effects, call, acted)
        return effects

    def failing(self, call: str, number: int, *, chunk: int | None = None, times: int = 1 << 30) -> Effects:
        """The call raises errno `number`, of one chunk or of all, so many times."""
        left = [times]
        lock = threading.Lock()

        def act(*arguments: Any) -> None:
            if chunk is not None and (arguments[-1] is None or arguments[-1].index != chunk):
                return
            with lock:
                left[0] -= 1
                if left[0] < 0:
                    return
            raise OSError(number, os.strerror(number))

        return self.before(call, act)

    def at_chunk(self, call: str, chunk: int, act: Callable[[], None]) -> Effects:
        """Do `act` before the call for that chunk."""
        return self.before(call, lambda *arguments: act() if arguments[-1].index == chunk else None)


def wait_until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(1e-4)


def hold(until: threading.Event) -> None:
    assert until.wait(DEADLINE)


def raise_engine_error(*_: object) -> None:
    raise EngineError("not today")


def is_settled(pause: Pause) -> bool:
    """Nothing more will happen."""
    try:
        pause.settle(0)
    except TimeoutError:
        return False
    return True


def is_published(cache: Cache, index: int) -> bool:
    """The chunk can be read at once; to ask makes it wanted where it cannot."""
    offset, length = list(cache.chunks())[index]
    try:
        cache.read(offset, length, 0)
    except TimeoutError:
        return False
    return True


def fresh_memfd(size: int) -> Memfd:
    """All zero, to be resumed into."""
    fd = os.memfd_create("fresh", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    return Memfd.adopt(fd, size)


def fill_up(path: Path) -> None:
    """Write until the file system is full."""
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while file.write(bytes(MIB)):
            pass


def turn_over(path: Path, at: int) -> None:
    """Make another byte of one."""
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0xFF]))
