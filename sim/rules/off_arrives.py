"""Once off is served and its time is over, no decision punches until the flag is on again.

Its time is over at once where the node is known to have the change; else with the lease of what the node had before,
or with the end of the outage that kept it from the node. Without a lease nothing bounds it, and nothing is judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from flags.catalog import PUNCH
from sim.record import events
from sim.record.ledger import Entry
from sim.rules.evidence import Evidence
from sim.rules.finding import Finding, Reason

NAME = "off_arrives"
SLACK = 0.2
"""Seconds that a decision may take to be written down after it was made."""


def judge(evidence: Evidence) -> Finding:
    """Every decision that was made when off had had its time."""
    finding = Finding()
    for entry, off in _after_off(evidence):
        event = entry.event
        if not isinstance(event, events.Decided):
            continue
        finding.checked += 1
        decided = event.flags.get(PUNCH, {})
        if decided.get("value") is True:
            why = f"it was decided to punch, and off was served {off:.1f} s into the run: {decided.get('reason')}"
            finding.violated(entry.sandbox, Reason("punches", why), pause=entry.pause)
    return finding


def _after_off(evidence: Evidence) -> Iterator[tuple[Entry, float]]:
    """What is in the ledger while off must be obeyed, with the time when it was served."""
    lease = _lease(evidence)
    served: float | None = None  # off, and since when
    due = math.inf
    for entry in evidence.entries:
        match entry.event:
            case events.FlagSet(flag=flag, value=value, effective=effective) if flag == PUNCH:
                if not _is_off(value):
                    served, due = None, math.inf
                    continue
                served = entry.t if served is None else served
                due = -math.inf if effective else min(due, served + lease + SLACK)
            case events.OutageEnded() if served is not None:
                due = -math.inf
            case _ if served is not None and entry.t > due:
                yield entry, served
            case _:
                pass


def _lease(evidence: Evidence) -> float:
    """Seconds, without end where the run has none."""
    run = evidence.view.run
    return run.lease if run is not None and run.lease is not None else math.inf


def _is_off(value: Any) -> bool:
    """False, or a rollout to 0 %."""
    return value is False or (isinstance(value, Mapping) and value.get("rollout") == "0%")
