"""Every feature flag of the pause path, once: its key, its safe value, when it is read and what it does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from engine.errors import UserError
from flags.context import Moment

PUNCH = "memfd-punch-on-snapshot"
BACKGROUND = "memfd-background-copy"
USE_MEMFD = "use-memfd"
DEDUP = "memfile-diff-dedup"
IN_PLACE = "in-place-checkpoint"
SYNC_WP = "use-sync-wp"
SALVAGE = "memfd-salvage-on-failure"

Value = bool | Mapping[str, Any]
"""What a flag serves: true or false, or the object of a JSON flag."""


_MOMENTS: dict[str, tuple[Moment, ...]] = {
    "each pause": ("pause", "checkpoint"),
    "each checkpoint": ("in-place",),
    "at resume": ("resume", "create"),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One member of a JSON flag's object: a boolean, or a whole number from 0. `effect` as in Flag."""

    name: str
    default: bool | int
    effect: bool = False

    def takes(self, value: Any) -> bool:
        """True for a value of the default's type."""
        return type(value) is type(self.default) and value >= 0


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `safe` is served where LaunchDarkly has no usable answer: not connected, missing, wrong type.

    `effect` is False where this engine accepts the flag and does nothing about it, which decisions say. A flag
    that is read at resume is latched: a later change reaches a sandbox with its next resume. `overrides` are
    the flags that count for nothing while this one is on, `needs` those without which it does nothing.
    """

    key: str
    type: Literal["boolean", "json"]
    safe: Value
    read: Literal["each pause", "each checkpoint", "at resume"]
    effect: bool
    summary: str
    overrides: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()

    @property
    def moments(self) -> tuple[Moment, ...]:
        """When it is read, as the contexts name it."""
        return _MOMENTS[self.read]

    def moment_at(self, moment: Moment) -> Moment:
        """What it is read for when all flags are read at this moment."""
        return "in-place" if moment == "checkpoint" and "in-place" in self.moments else moment

    def accepted(self, value: Any) -> Value | None:
        """The value (an object as a copy), or None where it is not of this flag's type and shape.

        An object may leave settings out and may hold others, as for a reader that decodes it into its own fields.
        """
        if self.type == "boolean":
            return value if isinstance(value, bool) else None
        if not isinstance(value, Mapping) or any(
            each.name in value and not each.takes(value[each.name]) for each in self.settings
        ):
            return None
        return dict(value)


def is_on(value: Value) -> bool:
    """True for true and for an object that is enabled."""
    return value is True if isinstance(value, bool) else value.get("enabled") is True


CATALOG: tuple[Flag, ...] = (
    Flag(
        key=PUNCH,
        type="boolean",
        safe=False,
        read="each pause",
        effect=True,
        summary="Free each copied piece of guest memory from the memfd at once; cannot be undone.",
    ),
    Flag(
        key=BACKGROUND,
        type="boolean",
        safe=True,
        read="each pause",
        effect=True,
        summary="Answer the pause once the header is known and copy the memory afterwards.",
    ),
    Flag(
        key=USE_MEMFD,
        type="boolean",
        safe=True,
        read="at resume",
        effect=True,
        summary="Give the guest's memory to the node as a memfd; off, it is read from the process.",
    ),
    Flag(
        key=DEDUP,
        type="json",
        safe={"enabled": False},
        read="each pause",
        effect=True,
        summary="Leave pages out of the diff that are equal to the parent's or zero.",
        overrides=("memfd-background-copy",),
        settings=(
            Setting("enabled", default=False, effect=True),
            Setting("bestEffort", default=False),
            Setting("directIO", default=False),
            Setting("maxFetchWindowsPerBlock", default=0),
            Setting("maxPromotedParentPagesPerBlock", default=0),
            Setting("maxPagesPerPromotedFrame", default=0),
            Setting("blockFaultPct", default=0),
            Setting("fetchRunWindowPages", default=0),
        ),
    ),
    Flag(
        key="memfd-dedup-inflight-serve",
        type="boolean",
        safe=False,
        read="each pause",
        effect=True,
        summary="Serve readers from the memfd while memfile-diff-dedup still compares; nothing may be punched then.",
        needs=("memfile-diff-dedup",),
    ),
    Flag(
        key=IN_PLACE,
        type="boolean",
        safe=False,
        read="each checkpoint",
        effect=True,
        summary="Let the same guest go on after a checkpoint; off, its memory is consumed and a new guest goes on.",
        needs=(SYNC_WP,),
    ),
    Flag(
        key=SYNC_WP,
        type="boolean",
        safe=False,
        read="at resume",
        effect=True,
        summary="Deliver write-protect faults to the node; what in-place checkpoints need.",
    ),
    Flag(
        key="defer-memory-export",
        type="boolean",
        safe=False,
        read="each checkpoint",
        effect=False,
        summary="Export an in-place checkpoint's memory behind a copy-on-write window.",
        needs=(IN_PLACE,),
    ),
    Flag(
        key="sync-wp-tracker-dirty",
        type="boolean",
        safe=False,
        read="each pause",
        effect=False,
        summary="Take the dirty blocks from the write-protect tracker.",
        needs=(SYNC_WP,),
    ),
    Flag(
        key="defer-rootfs-export",
        type="boolean",
        safe=False,
        read="each pause",
        effect=False,
        summary="Export the root file system after the pause has answered.",
    ),
    Flag(
        key="peer-to-peer-async-checkpoint",
        type="boolean",
        safe=False,
        read="each checkpoint",
        effect=False,
        summary="Upload a checkpoint after it has answered.",
    ),
    Flag(
        key=SALVAGE,
        type="boolean",
        safe=False,
        read="each pause",
        effect=True,
        summary="Keep the memory of a copy that fails past the point of no return, and complete it later.",
    ),
)
FLAGS: dict[str, Flag] = {known.key: known for known in CATALOG}


def flag(key: str) -> Flag:
    """The catalogue's flag of that key; UserError, with the nearest known key, where there is none."""
    if key in FLAGS:
        return FLAGS[key]
    raise UserError(f'unknown flag "{key}"; {did_you_mean(key, FLAGS)}')


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that an unknown one was probably meant to be; None where none is near."""
    return next(iter(get_close_matches(word, sorted(known), n=1)), None)


def did_you_mean(word: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """What to do about an unknown word: the nearest known one; else `otherwise`, or the list of all."""
    choices = sorted(known)
    if (near := nearest(word, choices)) is not None:
        return f'did you mean "{near}"?'
    return f"use one of: {', '.join(choices)}" if otherwise is None else otherwise
