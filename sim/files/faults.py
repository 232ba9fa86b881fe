"""Every fault point and every kind of fault, and where in a plan a fault waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

FaultPoint = Literal[
    "freeze",
    "scan",
    "cache.create",
    "reserve",
    "copy.read",
    "copy.write",
    "publish",
    "condemn",
    "punch",
    "header.write",
    "finish",
    "teardown",
    "death",
    "close",
    "guest.spawn",
    "resume.read",
]
"""In the order of a pause, then of a resume; `teardown` and `death` come before the first punch, if there is one.

What each is: `CATALOGUE`.
"""
AtWord = Literal["first", "last", "after_condemn"]


@dataclass(frozen=True, slots=True)
class AtChunk:
    """The 0-based chunk of a pause's plan."""

    chunk: int


Place = AtChunk | AtWord | float
"""A chunk, a word, or a share of the plan in percent."""


def chunk_index(place: Place, chunks: int) -> int:
    """The 0-based chunk meant by `place` in a plan of `chunks` chunks; an index past the end never fires.

    A share is of the plan: 50% of 16 chunks is chunk 8. The first chunk after condemn is chunk 1: rule 2 of the engine
    publishes chunk 0 alone, then condemns.
    """
    match place:
        case AtChunk():
            return place.chunk
        case "first":
            return 0
        case "last":
            return chunks - 1
        case "after_condemn":
            return 1
        case _:
            return min(int(chunks * place / 100), chunks - 1)


def to_json(place: Place) -> Any:
    """For the node's config: a chunk as {"chunk": n}, a word or a share as it is."""
    return {"chunk": place.chunk} if isinstance(place, AtChunk) else place


def from_json(value: Any) -> Place:
    """The place that `to_json` wrote."""
    return AtChunk(value["chunk"]) if isinstance(value, dict) else value


def in_words(place: Place) -> str:
    """As a ledger writes it: `chunk 3`, `last`, `50%`."""
    match place:
        case AtChunk():
            return f"chunk {place.chunk}"
        case str():
            return place
        case _:
            return f"{place:g}%"


Kind = Literal[
    "errno",
    "short",
    "delay",
    "corrupt",
    "hang",
    "cancel",
    "wake-guest",
    "trace-guest",
    "free-pages",
    "second-writer",
    "kill-guest",
    "kill-node",
]


@dataclass(frozen=True, slots=True)
class Harm:
    """What a fault does to an act. `errno` is a name, for the kind errno; `seconds` are of a delay or a hang."""

    kind: Kind
    errno: str | None = None
    seconds: float | None = None

    @property
    def error(self) -> str:
        """The text for a ledger's `error`: `ENOSPC`, `delay 300 ms`, `short`. It is never read back."""
        match self.kind:
            case "errno":
                return self.errno or "EIO"
            case "delay" | "hang":
                return f"{self.kind} {(self.seconds or 0.0) * 1e3:.12g} ms"
            case "kill-node":
                return "SIGKILL of the node"
            case _:
                return self.kind


def failing(errno: str) -> Harm:
    """The act fails with it."""
    return Harm("errno", errno=errno)


KILL_NODE = Harm("kill-node")
KINDS: Mapping[Kind, str] = MappingProxyType(
    {
        "errno": "The act fails with an errno, and is not done.",
        "short": "Half of the bytes are transferred, then it fails with EIO.",
        "delay": "The act is delayed, then done.",
        "corrupt": "The act is done, and one byte of what it moved is flipped.",
        "hang": "The act hangs until a deadline, then fails with ETIMEDOUT, and is not done.",
        "cancel": "The caller cancels the pause just before the act, which is done.",
        "wake-guest": "The frozen guest is woken (SIGCONT), writes, and is stopped again, just before the act.",
        "trace-guest": "The same by a tracer and without a signal (PTRACE_SEIZE, PTRACE_CONT, PTRACE_DETACH).",
        "free-pages": "The guest frees a third of its pages just before the act: they are zero from then on.",
        "second-writer": "A child of the guest, which stays, writes into the guest's memory just before the act.",
        "kill-guest": "The guest is killed (SIGKILL) just before the act, which is done.",
        "kill-node": "The node is killed (SIGKILL) just before the act.",
    }
)
_ALWAYS: tuple[Kind, ...] = ("errno", "delay", "hang", "kill-node")
_PAUSE: tuple[Kind, ...] = ("errno", "delay", "hang", "cancel", "wake-guest", "kill-guest", "kill-node")
_TRACED: tuple[Kind, ...] = (  # where a pause has another answer to it: before a copy, the record, SIGKILL, the name
    "errno", "delay", "hang", "cancel", "wake-guest", "trace-guest", "kill-guest", "kill-node",
)  # fmt: skip
_RUNNING: tuple[Kind, ...] = (  # the guest is still there to do it
    "errno", "delay", "hang", "cancel", "free-pages", "second-writer", "kill-guest", "kill-node",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PointSpec:
    """One fault point. `chunked`: passed once for each chunk, else once for each pause, checkpoint or resume."""

    point: FaultPoint
    sentence: str
    chunked: bool
    kinds: tuple[Kind, ...]
    by_kernel: bool = False
    """True where the kernel itself can be made to return the errno."""

    @property
    def of_resume(self) -> bool:
        """True if a resume passes this point, not a pause."""
        return self.point in {"guest.spawn", "resume.read"}


def _transfer(*more: Kind, after: tuple[Kind, ...] = ()) -> tuple[Kind, ...]:
    return ("errno", "short", *more, "delay", "hang", "cancel", "wake-guest", *after, "kill-guest", "kill-node")


_SPECS = (
    PointSpec("freeze", "The guest is stopped, and confirmed stopped.", chunked=False, kinds=_RUNNING),
    PointSpec("scan", "The kernel is asked which blocks the guest wrote.", chunked=False, kinds=_TRACED),
    PointSpec("cache.create", "The build's unfinished folder and file are made.", chunked=False, kinds=_PAUSE),
    PointSpec("reserve", "Disk space for the copy is reserved.", chunked=False, kinds=_PAUSE),
    PointSpec(
        "copy.read",
        "A chunk is read from the guest's memory.",
        chunked=True,
        kinds=_transfer(after=("trace-guest",)),
        by_kernel=True,
    ),
    PointSpec(
        "copy.write",
        "A chunk's dirty blocks are written to the cache.",
        chunked=True,
        kinds=_transfer("corrupt"),
        by_kernel=True,
    ),
    PointSpec("publish", "A chunk becomes readable in the cache.", chunked=True, kinds=_PAUSE),
    PointSpec("condemn", "The durable record is written: the point of no return.", chunked=False, kinds=_TRACED),
    PointSpec(
        "punch", "A published chunk's pages are freed from the memfd.", chunked=True, kinds=_PAUSE, by_kernel=True
    ),
    PointSpec("header.write", "The header is written beside the cache.", chunked=False, kinds=_transfer("corrupt")),
    PointSpec("finish", "The build gets its final name.", chunked=False, kinds=_TRACED),
    PointSpec("teardown", "SIGKILL is sent to the condemned guest.", chunked=False, kinds=_TRACED),
    PointSpec("death", "The killed guest is seen to be dead.", chunked=False, kinds=_ALWAYS),
    PointSpec("close", "The memfd and the cache's file are closed.", chunked=False, kinds=_PAUSE),
    PointSpec("guest.spawn", "The guest of a resume is forked.", chunked=False, kinds=_ALWAYS),
    PointSpec(
        "resume.read",
        "A snapshot is read to fill the memory of a resume.",
        chunked=False,
        kinds=("errno", "short", "corrupt", "delay", "hang", "kill-guest", "kill-node"),
    ),
)
CATALOGUE: Mapping[FaultPoint, PointSpec] = MappingProxyType({spec.point: spec for spec in _SPECS})


def points_with(kind: Kind) -> tuple[FaultPoint, ...]:
    """Where this kind makes sense, in order."""
    return tuple(spec.point for spec in _SPECS if kind in spec.kinds)


def points_by_kernel() -> tuple[FaultPoint, ...]:
    """Where the kernel itself can return the errno."""
    return tuple(spec.point for spec in _SPECS if spec.by_kernel)


def describe_place(point: FaultPoint, place: Place, nth: int | None) -> str:
    """Where a fault waits, as a ledger writes it: `chunk 3`, `last of pause 2`, `every pause`, `incarnation 2`."""
    spec = CATALOGUE[point]
    time = "incarnation" if spec.of_resume else "pause"
    passed = f"{time} {nth}" if nth is not None else "every resume" if spec.of_resume else "every pause"
    if not spec.chunked:
        return passed
    return in_words(place) if nth is None else f"{in_words(place)} of {passed}"
