"""Runs with real nodes, zygotes and guests; and one node in this very process, whose guests can be anything."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import pytest

from engine.holders import Holders
from engine.incarnation import CondemnedRecords, start_time_of, state_of
from flags.inline import flag_from
from flags.memory import MemoryFlags
from sim.files.scenario import load_text
from sim.node import zygote_link
from sim.node.config import NodeConfig, SandboxConfig
from sim.node.guest import GuestSpec
from sim.node.guest_link import Guest, GuestError
from sim.node.node import Node
from sim.node.process import connect_zygote
from sim.node.recovery import recover
from sim.node.zygote_link import ZygoteLink, open_zygote
from sim.record import events
from sim.record.fold import Fold
from sim.record.folder import RUN_FILE, read_record
from sim.record.ledger import EVENTS_FILE, Entry, Follower, Ledger
from sim.record.leftovers import end_leftovers, processes_of
from sim.record.run_id import RUN_VARIABLE
from sim.record.view import View
from sim.run.drill import Drill
from sim.run.node_link import NodeStarter
from sim.run.node_start import known as told_of
from tests.command_server import Command
from tests.forked import forked_node

ROOT = pathlib.Path(__file__).parents[3]
DEADLINE = 30.0
MIB = 1 << 20

SCENARIO = """\
name: crash
seed: 5
node: {{cache: {cache}}}
fleet:
  - {{name: web, count: {count}, memory: {memory}, workload: {{dirty: 100%, pattern: full}}}}
flags:
  memfd-punch-on-snapshot: {punch}
  memfd-background-copy: {background}
  use-sync-wp: true
  in-place-checkpoint: {in_place}
steps:
{steps}
"""


def scenario_text(
    *,
    count: int = 2,
    memory: str = "8MiB",
    punch: bool = True,
    background: bool = False,
    in_place: bool = False,
    cache: str = "disk",
    steps: str = "  - tick: 1",
) -> str:
    """A fleet of `web-0` and on, four chunks each unless told otherwise, every page written by each tick."""
    flags = {"punch": str(punch).lower(), "background": str(background).lower(), "in_place": str(in_place).lower()}
    return SCENARIO.format(count=count, memory=memory, cache=cache, steps=steps, **flags)


def wait_until(what: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    """Poll until it is true, and give it; fail after the deadline. What it looks at may vanish as it looks."""
    end = time.monotonic() + deadline
    while True:
        with contextlib.suppress(FileNotFoundError):
            if found := what():
                return found
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(2e-3)


@dataclasses.dataclass(frozen=True)
class Process:
    """A process by pid and start time: one that has its pid later is another."""

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> Process:
        return cls(pid, start_time_of(pid) or 0)

    def state(self) -> str | None:
        """Its letter; None where it is gone, a zombie included."""
        if start_time_of(self.pid) != self.start_time:
            return None
        state = state_of(self.pid)
        return None if state in {"Z", "X", None} else state


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[..., Any]:
    return wait_until


@pytest.fixture(name="process")
def _process() -> type[Process]:
    return Process


class Runs:
    """Makes drills and commands whose runs all lie in one folder, and can tell what is left of them."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self.start_node: NodeStarter = forked_node

    scenario_text = staticmethod(scenario_text)

    def drill(self, cache_dir: pathlib.Path | None = None, **options: Any) -> Drill:
        """A drill of `scenario_text(**options)`, not yet started."""
        scenario = load_text(scenario_text(**options), self.folder / "crash.yaml")
        return Drill(scenario, runs_dir=self.runs, cache_dir=cache_dir, start_node=self.start_node)

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """`snapdrill` as a process, in a group of its own, that takes signals as a person's shell would have it."""
        return Command(arguments, **self._options())

    def python(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        """A Python process of this project's code, with text pipes."""
        return subprocess.Popen([sys.executable, "-c", code, *arguments], process_group=0, **self._options())

    def _options(self) -> dict[str, Any]:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return {**pipes, "cwd": self.folder, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}

    def run_dirs(self) -> list[pathlib.Path]:
        """Every run's folder, also one that has only just begun."""
        return sorted(path for path in self.runs.glob("*/*") if path.is_dir() and not path.is_symlink())

    def entries(self) -> list[Entry]:
        """What the ledger of the only run says up to now."""
        return [entry for run_dir in self.run_dirs() for entry in Follower(run_dir / EVENTS_FILE).new_entries()]

    def told(self, kind: type[Any]) -> list[Any]:
        """The events of one kind of the only run."""
        return [entry.event for entry in self.entries() if isinstance(entry.event, kind)]

    def run_id(self) -> str:
        """The id of the only run."""
        (record,) = [read_record(path) for path in self.run_dirs()]
        return record.run

    def assert_nothing_is_left(self) -> None:
        """No process, cache, socket folder, cgroup or condemned record of any run; and its record says so."""
        for run_dir in self.run_dirs():
            record = read_record(run_dir)
            assert [(pid, state_of(pid)) for pid in processes_of(record.run)] == []
            left = [record.cache_dir, record.socket_dir, *([record.cgroup] if record.cgroup else [])]
            assert [path for path in left if os.path.exists(path)] == []
            assert list((run_dir / "condemned").glob("*.json")) == []
            assert record.ended


@pytest.fixture
def runs(tmp_path: pathlib.Path) -> Iterator[Runs]:
    made = Runs(tmp_path)
    yield made
    for run_dir in [path for path in made.run_dirs() if (path / RUN_FILE).exists()]:
        end_leftovers(read_record(run_dir), run_dir)


class Machine:
    """A node in this process. `crash` leaves it as SIGKILL would: what is frozen stays so, what is untold is lost."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.run = secrets.token_hex(4)
        self.folder = folder
        self.builds = folder / "builds"
        self.builds.mkdir()
        self.sockets = pathlib.Path(tempfile.mkdtemp(prefix="snapdrill-test-"))
        self.ledger = Ledger(folder / EVENTS_FILE, time.monotonic())
        self.flags = MemoryFlags({})
        self.grace = 20.0
        self.readers = 0.0
        self._links: list[ZygoteLink] = []
        self._sandboxes: list[SandboxConfig] = []

    def set_flags(self, *, punch: bool = True, background: bool = False, in_place: bool = False) -> None:
        values = {"memfd-punch-on-snapshot": punch, "memfd-background-copy": background}
        values |= {"use-sync-wp": True, "in-place-checkpoint": in_place}
        for key, value in values.items():
            self.flags.set(flag_from(key, value))

    def config(self, **known: Any) -> NodeConfig:
        return NodeConfig(
            run=self.run,
            run_dir=str(self.folder),
            builds=str(self.builds),
            socket_dir=str(self.sockets),
            seed=1,
            began=0.0,
            budget=1 << 30,
            grace=self.grace,
            cgroup=None,
            mutant=None,
            sandboxes=self._sandboxes,
            inline_flags=None,
            flag_file=None,
            tick=self.view().tick,
            readers=self.readers,
            known=known,
        )

    def node(self, *, count: int = 2, memory: int = 4 * MIB) -> Node:
        """A node that has its zygote, and no guest yet."""
        names = [f"web-{index}" for index in range(count)]
        self._sandboxes = [SandboxConfig(n, memory, 4096, 4096, "t", "acme", "c", 1.0, "full") for n in names]
        return self._node(self.config())

    async def crash(self, node: Node) -> Node:
        """Abandon this node where it stands, and have another recover."""
        node.link._connection.close()
        known = {name: told_of(each, self.entries()) for name, each in self.view().sandboxes.items()}
        again = self._node(self.config(**known))
        with mock.patch("sim.record.ledger.MOST_LEDGER_BYTES", 0):  # of a stranger's: a run's own may be of any size
            await recover(again)
        return again

    def _node(self, config: NodeConfig) -> Node:
        link, _ = connect_zygote(config)
        self._links.append(link)
        return Node(config, self.ledger, self.flags, link, CondemnedRecords(self.folder / "condemned"))

    def entries(self) -> list[Entry]:
        return list(Follower(self.folder / EVENTS_FILE).new_entries())

    def view(self) -> View:
        fold = Fold()
        fold.apply(self.entries())
        return fold.view()

    def processes(self) -> list[int]:
        return processes_of(self.run)

    def end(self) -> None:
        for link in reversed(self._links):
            link.end()
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.ledger.close()
        self.flags.close()
        shutil.rmtree(self.sockets)


class NobodyElse(Holders):
    """A look at all processes in the background would open descriptors that a test counts."""

    def of(self, inode: int, but: set[int]) -> set[int]:
        return set()


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the nodes that live in the test's own process."""
    monkeypatch.setattr("engine.dirty._HOLDERS", NobodyElse())


@pytest.fixture
def machine(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(tmp_path)
    monkeypatch.setenv(RUN_VARIABLE, made.run)
    made.set_flags()
    yield made
    made.end()


def spec_of(incarnation: str, memory: int = MIB) -> GuestSpec:
    """What a guest is told by those who need no node."""
    return GuestSpec(
        run="zygote-test",
        sandbox=incarnation.partition(".")[0],
        incarnation=incarnation,
        seed=1,
        memory=memory,
        page_size=4096,
        block_size=4096,
        dirty=1.0,
        heartbeat=0.0,
        guest="process",
        pattern="full",
    )


class Zygote:
    """A zygote without a node, and the connections to it."""

    def __init__(self, grace: float, **options: Any) -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="snapdrill-test-"))
        self.address = str(self.folder / "zygote")
        self.guests: list[Guest] = []
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(self.address)
            listener.listen(32)
            command = [sys.executable, "-m", "sim.node.zygote", str(listener.fileno()), str(grace)]
            self.process = subprocess.Popen(
                command, pass_fds=[listener.fileno()], cwd=ROOT, stderr=subprocess.PIPE, **options
            )

    def connect(self) -> ZygoteLink:
        """As a node does."""
        return ZygoteLink(open_zygote(self.address))

    def spawn(self, link: ZygoteLink, *names: str) -> list[Guest]:
        """Guests whose memory was received."""
        made = [self.newborn(link, name) for name in names]
        for guest in made:
            guest.receive()
            guest.arm()
        return made

    def newborn(self, link: ZygoteLink, name: str, **changes: Any) -> Guest:
        """One whose memory was not received yet."""
        spec: Any = {**spec_of(name), **changes}
        guest = link.spawn(spec)
        self.guests.append(guest)
        return guest

    def answer_too_late(self, link: ZygoteLink, name: str) -> None:
        """A guest is asked for, and its answer comes when nobody waits for it any more."""
        self.process.send_signal(signal.SIGSTOP)
        with mock.patch.object(zygote_link, "DEADLINE", 0.1), pytest.raises(GuestError, match="does not answer"):
            self.newborn(link, name)
        self.process.send_signal(signal.SIGCONT)

    def descriptors(self) -> list[str]:
        """What its open fds are."""
        found = []
        for fd in pathlib.Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found.append(str(fd.readlink()))
        return sorted(found)

    def end(self) -> None:
        for guest in self.guests:
            guest.close()
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()
        shutil.rmtree(self.folder)


@pytest.fixture
def zygotes() -> Iterator[Callable[..., Zygote]]:
    """Starts zygotes and ends every one."""
    made: list[Zygote] = []

    def start(grace: float = DEADLINE, **options: Any) -> Zygote:
        made.append(Zygote(grace, **options))
        return made[-1]

    yield start
    for each in made:
        each.end()


@pytest.fixture
def settled() -> Callable[[Sequence[Entry]], list[tuple[str, str]]]:
    """Each settled pause and how it ended."""

    def told(entries: Sequence[Entry]) -> list[tuple[str, str]]:
        ended = [each for each in entries if isinstance(each.event, events.PauseSettled)]
        return [(each.pause or "", each.event.outcome) for each in ended if isinstance(each.event, events.PauseSettled)]

    return told
