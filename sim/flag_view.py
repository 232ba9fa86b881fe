"""What is known of a run's flags and of what serves them: parts of the view."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sim import events
from sim.ledger import Entry

PUNCH = "memfd-punch-on-snapshot"
BACKGROUND = "memfd-background-copy"
"""As flags.catalog has them: a recording is folded without loading flags."""


@dataclass(frozen=True, slots=True)
class FlagChange:
    """When a flag was last set, by whom, and whether the node has heard of it."""

    t: float
    by: str
    effective: bool


@dataclass(frozen=True, slots=True)
class SourceView:
    """The node's flag client, and what has been done to its source; `t` when it was last told of.

    `outage` is what makes the source fail, None while it is sound. The lease is None where there is none.
    """

    state: str | None = None
    error: str | None = None
    t: float = 0.0
    outage: str | None = None
    lease: events.LeaseMeasured | None = None
    lease_t: float = 0.0


@dataclass(frozen=True, slots=True)
class Switch:
    """The punch flag was turned on for some or all, or off for everybody (the kill switch), at its source at `t`.

    `took_ms` until the node had it; None where that was not awaited, as in an outage.
    """

    t: float
    on: bool
    took_ms: float | None = None


def is_for_some(value: Any) -> bool:
    """True for a flag value, as a scenario writes it, that is on for anybody."""
    return bool(value) if not isinstance(value, dict) else value.get("rollout") != "0%"


def next_source(source: SourceView, entry: Entry) -> SourceView:
    """What the entry makes of it."""
    match entry.event:
        case events.FlagSourceChanged(state, error):
            return replace(source, state=state, error=error, t=entry.t)
        case events.OutageBegan(fault, detail):
            return replace(source, outage=f"{fault} ({detail})" if detail else fault)
        case events.OutageEnded():
            return replace(source, outage=None)
        case events.LeaseMeasured() as lease:
            return replace(source, lease=lease, lease_t=entry.t)
    return source
