"""How long OFF takes to be obeyed on each way that a flag may come by, and who is reached meanwhile. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flags.file import POLL_SECONDS
from sim.figures import Known
from sim.rehearsal.propagation import percentile, reached
from sim.rehearsal.results import Rehearsal
from sim.units import format_duration

USUAL_LEASE = 1.5
SHARES = (50.0, 95.0, 99.0, 100.0)
"""Percentiles that are told; the last is the most that it takes."""


@dataclass(frozen=True, slots=True)
class Way:
    """`seconds` at each of SHARES; None where it is never obeyed. `reached`: sandboxes, at the median and the 99th.

    `reached` is None for what was measured on this machine: its loopback is no part of a blast radius.
    """

    name: str
    seconds: tuple[float, ...] | None
    known: Known
    note: str
    reached: tuple[float, float] | None = None


def ways(found: Rehearsal) -> list[Way]:
    """Each way with its distribution; the blast radius is that of the highest weight that was reached."""
    return list(_ways(found)) if found.stages else []


def _ways(found: Rehearsal) -> Iterator[Way]:
    plan = found.plan
    lease, given = (USUAL_LEASE, False) if plan.lease is None else (plan.lease, True)

    def way(name: str, seconds: Sequence[float] | None, known: Known, note: str) -> Way:
        told = None if seconds is None else tuple(percentile(sorted(seconds), each) for each in SHARES)
        return Way(name, told, known, note, _reached(found, told))

    origin = plan.propagation.origin
    yield way("stream", found.drawn, origin, f"the plan's propagation, {len(found.drawn)} draws")
    looks = [POLL_SECONDS * (draw + 1) / 1000 for draw in range(1000)]
    yield way("file", looks, "derived", f"looked at every {format_duration(POLL_SECONDS)}, once it is on the node")
    yield way("half-open", None, "given", "no lease: the SDK says VALID, and notices after 300 s at the earliest")
    said = f"its heartbeat is overdue then; lease {format_duration(lease)} {'given' if given else 'assumed'}"
    yield way("half-open, leased", [lease], "derived", said)
    if plan.time == "real" and found.kill_switch_ms:
        took = [each / 1e3 for each in found.kill_switch_ms]
        told = tuple(percentile(sorted(took), each) for each in SHARES)
        yield Way("stream, loopback", told, "measured", f"{len(took)} times here; in no blast radius")


def _reached(found: Rehearsal, seconds: tuple[float, ...] | None) -> tuple[float, float]:
    last = max(found.stages, key=lambda each: each.stage.weight)
    at = [None, None] if seconds is None else [seconds[0], seconds[2]]
    median, most = (reached(last.blast.sandboxes, last.stage.weight, last.blast.pauses_per_minute, s) for s in at)
    return median, most
