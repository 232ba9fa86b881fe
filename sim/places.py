"""Where a fault waits: its named point, and the chunk of a pause's plan. Plain values: scenario and node share them."""

from __future__ import annotations

import re
from dataclasses import dataclass
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
    "close",
    "guest.spawn",
    "resume.read",
]
"""In the order of a pause, then of a resume; what each is: `sim.fault_catalogue`."""

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
    """As it travels to the node: a chunk as {"chunk": n}, a word or a share as it is."""
    return {"chunk": place.chunk} if isinstance(place, AtChunk) else place


def from_json(value: Any) -> Place:
    """What `to_json` made."""
    return AtChunk(value["chunk"]) if isinstance(value, dict) else value


def in_words(place: Place) -> str:
    """As a ledger tells it: `chunk 3`, `last`, `50%`."""
    match place:
        case AtChunk():
            return f"chunk {place.chunk}"
        case str():
            return place
        case _:
            return f"{place:g}%"


_DELAY = re.compile(r"delay ([0-9.]+) ms")
_HANG = re.compile(r"hang ([0-9.]+) ms")


def in_words_of_delay(seconds: float) -> str:
    """A fault that only takes time, as its error is told: `delay 300 ms`."""
    return f"delay {_milliseconds(seconds)} ms"


def in_words_of_hang(seconds: float) -> str:
    """A fault that takes time and then fails, as its error is told: `hang 2000 ms`."""
    return f"hang {_milliseconds(seconds)} ms"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.12g}"  # never with an exponent: it is read back


def delay_of(error: str) -> float | None:
    """Seconds of a fault that `in_words_of_delay` described; None for any other."""
    return _seconds(_DELAY, error)


def hang_of(error: str) -> float | None:
    """Seconds of a fault that `in_words_of_hang` described; None for any other."""
    return _seconds(_HANG, error)


def _seconds(pattern: re.Pattern[str], error: str) -> float | None:
    found = pattern.fullmatch(error)
    return float(found[1]) / 1e3 if found else None
