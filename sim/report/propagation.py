"""How long the kill switch took to reach the node: the distribution over one run, as every report says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from sim.flag_view import Switch
from sim.report import words
from sim.view import PauseView, View

SOURCES = {"inline": "request", "file": "file", "relay": "stream", "launchdarkly": "LaunchDarkly"}
"""Ways to the node: told by the runner, looked for in a file, or streamed to the SDK (relay: over loopback)."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of times of one unit; p95 by nearest rank."""

    n: int
    min: float
    median: float
    p95: float
    max: float


@dataclass(frozen=True, slots=True)
class Propagation:
    """Kill switches of one run: `took_ms` of those that were waited for, and what came of those that were not.

    `unawaited` were thrown in an outage, which kept them from the node. `latest_punch_ms` is how long after its kill
    switch a pause was still decided to punch, at the latest; None where none was.
    """

    source: str
    took_ms: Distribution | None
    unawaited: int
    latest_punch_ms: float | None


def distribution(times: Sequence[float]) -> Distribution | None:
    """In the unit of `times`; None of none."""
    known = sorted(times)
    if not known:
        return None
    rank = -(-95 * len(known) // 100)
    return Distribution(len(known), known[0], median(known), known[rank - 1], known[-1])


def propagation(view: View) -> Propagation | None:
    """None where no kill switch was thrown: the punch flag turned off for everybody."""
    thrown = [each for each in view.switches if not each.on]
    if not thrown:
        return None
    late = [age for each in view.pauses if each.punch and (age := _since_kill(each, view.switches)) is not None]
    return Propagation(
        source=view.run.flag_source if view.run else "inline",
        took_ms=distribution([each.took_ms for each in thrown if each.took_ms is not None]),
        unawaited=sum(each.took_ms is None for each in thrown),
        latest_punch_ms=round(max(late) * 1e3, 3) if late else None,
    )


def _since_kill(pause: PauseView, switches: Sequence[Switch]) -> float | None:
    """Seconds from the kill switch that was in force at its source when this pause was decided."""
    before = [each for each in switches if each.t <= pause.began]
    return pause.began - before[-1].t if before and not before[-1].on else None


def sentence(found: Propagation) -> str:
    """On one line: `at the node after 1.1 ms by stream (median of 20, from 0.8 to 2.0, p95 1.9; measured)`."""
    parts = []
    if found.took_ms is not None:
        parts.append(f"at the node after {_figures(found.took_ms, SOURCES.get(found.source, found.source))}")
    if found.unawaited:
        parts.append(f"{words.times(found.unawaited)} not awaited in the outage")
    if found.latest_punch_ms is not None:
        parts.append(f"a pause that was decided {found.latest_punch_ms:.1f} ms after it still punched")
    return "; ".join(parts)


def _figures(took: Distribution, way: str) -> str:
    if took.n == 1:
        return f"{took.median:.1f} ms by {way} (measured)"
    spread = f"median of {took.n}, from {took.min:.1f} to {took.max:.1f}, p95 {took.p95:.1f}"
    return f"{took.median:.1f} ms by {way} ({spread}; measured)"
