"""What happened inside a pause: frozen, past-tense facts. Sizes in bytes, times in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Event:
    """A fact; its ledger name is the class name in snake case."""


@dataclass(frozen=True, slots=True)
class Scanned(Event):
    """The dirty set was read; `tracker` says how, `why` what stood against the guest's own one."""

    tracker: str
    dirty_bytes: int
    empty_bytes: int
    resident_bytes: int | None
    scan_ms: float
    why: str | None = None


@dataclass(frozen=True, slots=True)
class DirtyCompared(Event):
    """The dirty set of a pause beside a second account of what was written: KVM's log of a virtual machine.

    In blocks, the first by its number: `missed` are in the log alone, `unlogged` in the dirty set alone.
    """

    tracker: str
    tracked: int
    logged: int
    missed: int
    unlogged: int
    first_missed: int | None = None
    first_unlogged: int | None = None


@dataclass(frozen=True, slots=True)
class Planned(Event):
    """Path, legality of punching and amount of work were decided; `notes` are flags without effect on this path.

    `punch_code` is a `PunchCode`; None in ledgers from before there were codes.
    """

    path: str
    punch: bool
    punch_reason: str
    chunks: int
    dirty_bytes: int
    notes: list[str] = field(default_factory=list)
    punch_code: str | None = None


@dataclass(frozen=True, slots=True)
class Compared(Event):
    """The dirty pages were compared with the parent; only `stored` bytes are copied."""

    stored: int
    zero: int
    equal: int
    compare_ms: float


@dataclass(frozen=True, slots=True)
class CleanVerified(Event):
    """What no tracker named was compared with the parent, whose digests held; `differing` bytes are stored."""

    compared: int
    differing: int
    verify_ms: float


@dataclass(frozen=True, slots=True)
class ChunkPublished(Event):
    """A chunk became readable in the cache; `span` bytes from `start` are what its punch may free of the memfd."""

    chunk: int
    length: int
    span: int
    source_resident: int | None
    cache_resident: int
    start: int | None = None


@dataclass(frozen=True, slots=True)
class ChunkPunched(Event):
    """`freed` is what st_blocks says of the memfd as a whole since the freeze; `length` bytes from `start` are gone."""

    chunk: int
    freed: int
    start: int | None = None
    length: int = 0


@dataclass(frozen=True, slots=True)
class CleanPagesPunched(Event):
    """Pages that the snapshot does not owe were freed."""

    length: int
    freed: int


@dataclass(frozen=True, slots=True)
class Condemned(Event):
    """The point of no return: the durable record is written."""

    build: str


@dataclass(frozen=True, slots=True)
class CondemnFailed(Event):
    """The record could not be written: nothing will be punched."""

    error: str


@dataclass(frozen=True, slots=True)
class GuestLooked(Event):
    """The frozen guest was looked at `before` a kill, a finish or the condemnation.

    `threads`: of each thread its time slices and run time (ns), None where there was nothing left to read. `code` says
    why the guest may have run (ran, not-stopped, dead, unseen); None: it has not.
    """

    before: str
    threads: dict[str, list[int]] | None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class GuestKilled(Event):
    """SIGKILL was sent, directly after a look."""


@dataclass(frozen=True, slots=True)
class GuestDied(Event):
    """The pidfd of a killed guest says that it is dead; `death_ms` since the signal."""

    death_ms: float


@dataclass(frozen=True, slots=True)
class KillFailed(Event):
    """A condemned guest lives: the signal was not sent, or it does not die. Nothing of it is punched."""

    error: str
    code: str  # not-sent | lives


@dataclass(frozen=True, slots=True)
class PunchFailed(Event):
    """A punch failed; `chunk` is None for clean pages. The bytes are safe, punching ends."""

    chunk: int | None
    error: str


@dataclass(frozen=True, slots=True)
class Retried(Event):
    """A transient error; the call is tried again."""

    call: str
    error: str
    attempt: int


@dataclass(frozen=True, slots=True)
class CopyFailed(Event):
    """The pause failed, before or after the point of no return. `errno`: of the system call that failed, if one did."""

    chunk: int | None
    call: str
    error: str
    condemned: bool
    errno: str | None = None


@dataclass(frozen=True, slots=True)
class Stranded(Event):
    """The copy failed past the point of no return, and nothing is lost: the guest is dead, and what is published and
    what its memfd still holds are the whole snapshot. `chunks` are left to copy, `length` bytes; `peak_over` so far."""

    build: str
    chunks: int
    length: int
    peak_over: int | None = None


@dataclass(frozen=True, slots=True)
class BuildSpilled(Event):
    """The cache of a stranded build has no space: from this chunk on the rest goes into the spill."""

    build: str
    chunk: int


@dataclass(frozen=True, slots=True)
class KeeperAsked(Event):
    """Before it is condemned: another process holds the guest's memory too, and would outlive a crash of the node.

    `error`: why none does, so that a failed copy of this build cannot be salvaged.
    """

    build: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class NotSalvaged(Event):
    """A failed copy was to be salvaged and cannot be; `code` is a `SalvageCode`."""

    build: str
    code: str
    error: str


@dataclass(frozen=True, slots=True)
class BuildFinished(Event):
    """Cache and header have their final name; `length` is what is stored, in bytes: zeros are not."""

    build: str
    length: int
    content_hash: str
    copy_ms: float


@dataclass(frozen=True, slots=True)
class CacheDeleted(Event):
    """A partial cache is gone."""

    build: str


Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """An `Emit` for callers that keep no ledger."""
