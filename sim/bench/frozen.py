"""One frozen guest for one measurement: a real process whose memory is dirty by a layout."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroaring import BitMap

from engine import mapping as maps
from engine.cache import MEMFILE
from engine.dirty import Tracker, WriteProtectScan
from engine.errors import EngineError
from engine.incarnation import GuestProcess, Incarnation, start_time_of
from engine.memfd import Memfd
from engine.pause import Pause, PauseRequest
from engine.permit import CondemnedRecords
from engine.plan import PauseOptions
from engine.ranges import Blocks
from engine.snapshot import Header, template, write_header
from sim.bench.layouts import Runs, dirty_runs, has_parent
from sim.bench.watch import cpu_seconds_of

_DEADLINE = 60.0
_PARENT = "parent"


class NoTracker:
    """Stands where the kernel refuses write-protection: it cannot answer, so every resident block counts as dirty."""

    name = "none"

    def written(self, *, rearm: bool) -> Blocks | None:
        return None

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True)
class FrozenGuest:
    """A stopped guest, ready to be paused or copied from."""

    process: GuestProcess
    memfd: Memfd
    tracker: Tracker
    layout: str
    child: subprocess.Popen[bytes]
    cpu_seconds: float  # spent before it was frozen

    @property
    def blocks(self) -> int:
        """How many blocks its memory has; a block is a page of the memfd."""
        return self.memfd.size // self.memfd.page_size

    @property
    def dirty(self) -> Runs:
        """(first block, count) of what it wrote since its parent."""
        return dirty_runs(self.layout, self.blocks)

    @property
    def dirty_bytes(self) -> int:
        """What a copy must store."""
        return sum(count for _, count in self.dirty) * self.memfd.page_size

    def pause(self, folder: Path, *, punch: bool, background: bool = False, **listening: Any) -> Pause:
        """A pause of this guest into `folder`, not yet begun; `emit` may be given."""
        request = PauseRequest(
            guest=self.process,
            memory=self.memfd,
            tracker=self.tracker,
            block_size=self.memfd.page_size,
            parent=self._parent(folder / "builds"),
            build="build",
            builds=folder / "builds",
            condemned=CondemnedRecords(folder / "condemned"),
            options=PauseOptions(background_copy=background, punch=punch),
        )
        return Pause(request, **listening)

    def _parent(self, builds: Path) -> Header:
        """The zero template, or a finished build that holds every block (a hole: no pause reads what is clean)."""
        size, block = self.memfd.size, self.memfd.page_size
        if not has_parent(self.layout):
            return template(size, block)
        (builds / _PARENT).mkdir(parents=True)
        with (builds / _PARENT / MEMFILE).open("wb") as memfile:
            memfile.truncate(size)
        every = maps.create(BitMap(range(self.blocks)), _PARENT, size, block)
        parent = Header(_PARENT, _PARENT, 1, every, (size,), (bytes(16),))
        write_header(parent, builds / _PARENT)
        return parent

    def end(self) -> None:
        """Kill and reap it, and give its memory back."""
        self.process.kill()
        self.child.wait()
        self.memfd.close()


@contextlib.contextmanager
def frozen_guest(layout: str, size: int, page_size: int) -> Iterator[FrozenGuest]:
    """Start a guest, have it filled, freeze it; it is dead and reaped when the block is left."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    told = [theirs.fileno(), os.getpid(), size, page_size, layout]
    command = [sys.executable, "-m", "sim.bench.guest", *map(str, told)]
    with ours, contextlib.ExitStack() as stack:
        with theirs:
            # A session of its own: a terminal's Ctrl-C is for the bench alone, and a stopped guest stays stopped.
            child = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        stack.callback(child.wait)
        stack.callback(child.kill)
        guest = _received(ours, child, layout, size)
        stack.callback(guest.process.close)
        stack.callback(guest.tracker.close)
        stack.callback(guest.memfd.close)
        yield guest


def _received(control: socket.socket, child: subprocess.Popen[bytes], layout: str, size: int) -> FrozenGuest:
    control.settimeout(_DEADLINE)
    message, fds, _, _ = socket.recv_fds(control, 4096, 1)
    if not fds:
        raise EngineError("a bench guest died while it filled its memory")
    hello = json.loads(message)
    memfd = Memfd.adopt(fds[0], size)
    incarnation = Incarnation("bench", child.pid, start_time_of(child.pid) or 0, memfd.inode)
    process = GuestProcess(incarnation, os.pidfd_open(child.pid))
    tracker: Tracker = NoTracker()
    if hello["refusal"] is None:
        tracker = WriteProtectScan(child.pid, hello["address"], memfd, memfd.page_size)
    process.freeze()
    return FrozenGuest(process, memfd, tracker, layout, child, cpu_seconds_of(child.pid))
