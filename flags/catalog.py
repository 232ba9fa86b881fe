"""Every feature flag, once: its key, its safe value, when it is read and what it does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from engine.errors import UserError


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `safe` is served where LaunchDarkly has no usable answer: not connected, missing, wrong type."""

    key: str
    type: Literal["boolean"]
    safe: bool
    read: Literal["each pause", "at resume"]
    summary: str


CATALOG: tuple[Flag, ...] = (
    Flag(
        key="memfd-punch-on-snapshot",
        type="boolean",
        safe=False,
        read="each pause",
        summary="Free each copied piece of guest memory from the memfd at once; cannot be undone.",
    ),
    Flag(
        key="memfd-background-copy",
        type="boolean",
        safe=True,
        read="each pause",
        summary="Answer the pause once the header is known and copy the memory afterwards.",
    ),
)
FLAGS: dict[str, Flag] = {known.key: known for known in CATALOG}


def flag(key: str) -> Flag:
    """The catalogue's flag of that key; UserError, with the nearest known key, where there is none."""
    if key in FLAGS:
        return FLAGS[key]
    raise UserError(f'unknown flag "{key}"; {did_you_mean(key, FLAGS)}')


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """What to do about an unknown word: the nearest known one, or the list of all."""
    choices = sorted(known)
    near = get_close_matches(word, choices, n=1)
    return f'did you mean "{near[0]}"?' if near else f"use one of: {', '.join(choices)}"
