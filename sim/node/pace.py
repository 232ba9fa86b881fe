"""The pace of copies: slowed, held and stepped at chunk boundaries, in front of the engine's acts, never inside it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from engine.dirty import DirtySet, Tracker
from engine.effects import Boundary, Effects, Memory
from engine.events import Event
from engine.incarnation import GuestProcess
from engine.mapping import Mapping
from engine.ranges import Chunk
from sim.node.wave import Wave
from sim.record.cells import cells_of
from sim.record.events import BoundaryReached, MemoryMapped
from sim.record.stages import Pace

LONGEST_WAIT = 5.0
"""Seconds that a slow copy waits at most for one chunk."""


@dataclass(slots=True)
class _Gate:
    """One sandbox's: its pace, the chunks that wait (-1: the pause itself), and how many may pass though it is held."""

    pace: Pace = field(default_factory=Pace)
    waiting: list[int] = field(default_factory=list)
    permits: int = 0


class Paces:
    """The pace of every sandbox's copies. Thread-safe: copiers wait here, the node's loop sets and never waits."""

    def __init__(self, names: Iterable[str]) -> None:
        self._gates = {name: _Gate() for name in names}
        self._changed = threading.Condition()
        self._open = False
        self.paced: set[str] = set()
        """The pauses that were slowed or held."""

    def set(self, names: Iterable[str], pace: Pace, steps: int = 0) -> None:
        """From now on; `steps` lets that many boundaries be passed though they are held."""
        with self._changed:
            for name in names:
                gate = self._gates[name]
                gate.pace = pace
                gate.permits = steps if pace.held else 0
            self._changed.notify_all()

    def open_for_ever(self) -> None:
        """The node ends: no copy is held any more."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def of(self, name: str) -> Pace:
        """What was asked last."""
        return self._gates[name].pace

    def waiting(self, name: str) -> list[int]:
        """The chunks that wait at this sandbox's gate, in the order in which they came."""
        with self._changed:
            return list(self._gates[name].waiting)

    def is_set(self, name: str) -> bool:
        """True where this sandbox's copies do not run as they are."""
        return not self._open and self._gates[name].pace.set

    def wait(self, name: str, chunk: int, took: float) -> None:
        """At a boundary: as long as it is held, and `took` (seconds of work since the last one) times the factor."""
        gate, began = self._gates[name], time.monotonic()
        with self._changed:
            gate.waiting.append(chunk)
            try:
                while not self._may_pass(gate, chunk, time.monotonic() - began, took):
                    self._changed.wait(self._at_most(gate, time.monotonic() - began, took))
            finally:
                gate.waiting.remove(chunk)
                self._changed.notify_all()

    def _may_pass(self, gate: _Gate, chunk: int, waited: float, took: float) -> bool:
        """Of those that are held the lowest goes first."""
        if self._open:
            return True
        if not gate.pace.held:
            return waited >= _wait_of(gate, took)
        if not gate.permits or chunk != min(gate.waiting):
            return False
        gate.permits -= 1
        return True

    def _at_most(self, gate: _Gate, waited: float, took: float) -> float | None:
        return None if gate.pace.held else _wait_of(gate, took) - waited


def _wait_of(gate: _Gate, took: float) -> float:
    return min(LONGEST_WAIT, took * (gate.pace.factor - 1))


class PacedEffects(Effects):
    """The engine's acts, one pause's; a copier that takes a chunk passes its sandbox's gate first."""

    def __init__(
        self, paces: Paces, sandbox: str, pause: str, parent: Mapping, tell: Callable[[Event], None], wave: Wave
    ) -> None:
        self._paces = paces
        self._sandbox = sandbox
        self._pause = pause
        self._parent = parent
        self._tell = tell
        self._wave = wave
        self._passed = threading.local()

    def scan(self, tracker: Tracker, guest: GuestProcess, memory: Memory, block_size: int) -> DirtySet:
        """Scan, and record where in memory the dirty and empty blocks are."""
        found = super().scan(tracker, guest, memory, block_size)
        self._tell(MemoryMapped(cells_of(found, block_size, self._parent)))
        self._passed.at = time.monotonic()
        return found

    def boundary(self, before: Boundary) -> None:
        """The pause's own: the point of no return, and the finish."""
        self._wait_at(BoundaryReached(before), -1)
        if before == "finish":
            self._wave.all_copied(self._sandbox)

    def copy_read(self, memory: Memory, buffer: memoryview, offset: int, chunk: Chunk) -> None:
        self._wait_at(BoundaryReached("chunk", chunk.index, chunk.start, chunk.end - chunk.start), chunk.index)
        super().copy_read(memory, buffer, offset, chunk)

    def _wait_at(self, reached: BoundaryReached, chunk: int) -> None:
        """Each thread is slowed by what it did itself since its last boundary."""
        now = time.monotonic()
        if self._paces.is_set(self._sandbox):
            self._paces.paced.add(self._pause)
            with contextlib.suppress(OSError):  # only looked at: what is copied by now is not lost for a full ledger
                self._tell(reached)
            self._paces.wait(self._sandbox, chunk, now - getattr(self._passed, "at", now))
        self._passed.at = time.monotonic()
