"""How a pause ended, and what it did."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from engine.snapshot import Header


class Outcome(StrEnum):
    """How a pause ended."""

    FINISHED = "finished"
    ROLLED_BACK = "rolled-back"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class PauseResult:
    """What a pause did, by the kernel's account; bytes, milliseconds. None where it does not apply.

    With `parent_damaged` a build that it was to stand on cannot be read: so will every pause that asks for that parent.
    With `kill_error` the condemned guest did not die: nothing was punched, and it may never be thawed.
    `cpu_seconds` are of the pause's own threads. `salvage` is None unless a failed copy was to be salvaged: `whole`, or
    the `SalvageCode` that says why it could not be.
    """

    outcome: Outcome
    error: str | None
    failed_chunk: int | None
    condemned: bool
    condemn_error: str | None
    punch_error: str | None
    punched_bytes: int
    peak_over: int | None
    peak_ratio: float | None
    copy_ms: float | None
    header: Header | None
    parent_damaged: bool = False
    kill_error: str | None = None
    copier_bytes: int | None = None
    cpu_seconds: float | None = None
    salvage: str | None = None
