"""The digest of a run: it covers what must be equal in any two runs of the same scenario and seed.

Per sandbox: transitions, decision values, fault firings, outcomes and snapshot contents, in order. Not in it: pids,
times, sampled sizes, retries, flag versions, chunk events.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from sim.record import events
from sim.record.ledger import Entry


def digest(entries: Iterable[Entry]) -> str:
    """SHA-256 over canonical JSON, hex."""
    sequences, firings = facts(entries)
    text = json.dumps([sequences, firings], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def facts(entries: Iterable[Entry]) -> tuple[dict[str, list[Any]], list[tuple[str, str, str, str]]]:
    """What the digest covers: each sandbox's facts in order, and the firings (sandbox, pause, fault, error), sorted."""
    sequences: dict[str, list[Any]] = {}
    firings: set[tuple[str, str, str, str]] = set()
    for entry in entries:
        if entry.sandbox is None:
            continue
        if isinstance(entry.event, events.FaultFired):
            firings.add((entry.sandbox, entry.pause or "", entry.event.fault, entry.event.error))
        elif (fact := _fact(entry)) is not None:
            sequences.setdefault(entry.sandbox, []).append(fact)
    return sequences, sorted(firings)


def _fact(entry: Entry) -> list[Any] | None:
    match entry.event:
        case events.StateChanged(old, new, _, stop_reason):
            return ["state", old, new, stop_reason]
        case events.Decided(flags):
            return ["decided", {flag: each["value"] for flag, each in sorted(flags.items())}]
        case events.PauseSettled() as settled:
            return ["settled", settled.outcome, settled.path, settled.punch, settled.dirty_bytes, settled.content_hash]
        case events.Resumed(build=build):
            return ["resumed", build]
        case events.RequestRefused(request):
            return ["refused", request]
    return None
