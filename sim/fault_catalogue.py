"""Every fault point once: what is done there, whether chunk by chunk, and the kinds of fault that make sense there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from sim.places import FaultPoint, Place, delay_of, hang_of, in_words

Kind = Literal["errno", "short", "delay", "corrupt", "hang", "cancel", "kill-guest", "kill-node"]

CRASH = "SIGKILL of the node"
"""The `error` of a fault that ends the node instead of failing a call."""

KINDS: Mapping[Kind, str] = MappingProxyType(
    {
        "errno": "The act fails with an errno, and is not done.",
        "short": "Half of the bytes are transferred, then it fails with EIO.",
        "delay": "The act is held up, then done.",
        "corrupt": "The act is done, and one byte of what it moved is flipped.",
        "hang": "The act does not come back until a deadline, then fails with ETIMEDOUT, and is not done.",
        "cancel": "The caller cancels the pause just before the act, which is done.",
        "kill-guest": "The guest is killed (SIGKILL) just before the act, which is done.",
        "kill-node": "The node is killed (SIGKILL) just before the act.",
    }
)

_ALWAYS: tuple[Kind, ...] = ("errno", "delay", "hang", "kill-node")
_PAUSE: tuple[Kind, ...] = ("errno", "delay", "hang", "cancel", "kill-guest", "kill-node")


@dataclass(frozen=True, slots=True)
class PointSpec:
    """One fault point. `chunked`: passed once a chunk of a pause's plan, else once a pause, checkpoint or resume."""

    point: FaultPoint
    sentence: str
    chunked: bool
    kinds: tuple[Kind, ...]
    by_kernel: bool = False
    """True where the kernel itself can be made to return the errno."""

    @property
    def of_resume(self) -> bool:
        """True where it is a resume that passes here, not a pause."""
        return self.point in {"guest.spawn", "resume.read"}


def _transfer(*more: Kind) -> tuple[Kind, ...]:
    return ("errno", "short", *more, "delay", "hang", "cancel", "kill-guest", "kill-node")


_SPECS = (
    PointSpec("freeze", "The guest is stopped, and confirmed stopped.", chunked=False, kinds=_PAUSE),
    PointSpec("scan", "The kernel is asked which blocks the guest wrote.", chunked=False, kinds=_PAUSE),
    PointSpec("cache.create", "The build's unfinished folder and file are made.", chunked=False, kinds=_PAUSE),
    PointSpec("reserve", "The space for the copy is made sure of.", chunked=False, kinds=_PAUSE),
    PointSpec("copy.read", "A chunk is read from the guest's memory.", chunked=True, kinds=_transfer(), by_kernel=True),
    PointSpec(
        "copy.write",
        "A chunk's dirty blocks are written to the cache.",
        chunked=True,
        kinds=_transfer("corrupt"),
        by_kernel=True,
    ),
    PointSpec("publish", "A chunk becomes readable in the cache.", chunked=True, kinds=_PAUSE),
    PointSpec("condemn", "The durable record is written: the point of no return.", chunked=False, kinds=_PAUSE),
    PointSpec(
        "punch", "A published chunk's pages are freed from the memfd.", chunked=True, kinds=_PAUSE, by_kernel=True
    ),
    PointSpec("header.write", "The header is written beside the cache.", chunked=False, kinds=_transfer("corrupt")),
    PointSpec("finish", "The build gets its final name.", chunked=False, kinds=_PAUSE),
    PointSpec("teardown", "The condemned guest is killed; then its record is retired.", chunked=False, kinds=_PAUSE),
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


def kind_of(error: str) -> Kind:
    """The kind of a fault by its `error` as ledger and node tell it: `ENOSPC`, `delay 300 ms`, `short`, ..."""
    if error == CRASH:
        return "kill-node"
    if delay_of(error) is not None:
        return "delay"
    if hang_of(error) is not None:
        return "hang"
    return next((kind for kind in get_args(Kind) if kind == error), "errno")


def in_words_of_place(point: FaultPoint, place: Place, nth: int | None) -> str:
    """Where a fault waits, as a ledger tells it: `chunk 3`, `last of pause 2`, `every pause`, `incarnation 2`."""
    spec = CATALOGUE[point]
    time = "incarnation" if spec.of_resume else "pause"
    passed = f"{time} {nth}" if nth is not None else "every resume" if spec.of_resume else "every pause"
    if not spec.chunked:
        return passed
    return in_words(place) if nth is None else f"{in_words(place)} of {passed}"
