"""The digest of a run: it covers what must be equal in any two runs of the same scenario and seed.

Per sandbox: transitions, decision values, fault firings, outcomes and snapshot contents, in order. Not in it: pids,
times, sampled sizes, retries, flag versions, chunk events. A checkpoint with a new guest may still be copied while that
guest is filled: the outcomes of those are a sequence of their own, and a new guest that ran for a moment on a build
that failed at its very end counts as one that never ran. The same holds for a pause that is read at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from sim.record import events
from sim.record.ledger import Entry
from sim.record.view import SALVAGE, is_unserved


def digest(entries: Iterable[Entry]) -> str:
    """SHA-256 over canonical JSON, hex."""
    sequences, firings = facts(entries)
    text = json.dumps([sequences, firings], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def facts(entries: Iterable[Entry]) -> tuple[dict[str, list[Any]], list[tuple[str, str, str, str]]]:
    """What the digest covers: each sandbox's facts in order, and the firings (sandbox, pause, fault, error), sorted."""
    sequences: dict[str, list[Any]] = {}
    lost: list[tuple[str, str]] = []
    firings: set[tuple[str, str, str, str]] = set()
    for entry in entries:
        if entry.sandbox is None:
            continue
        if isinstance(entry.event, events.FaultFired):
            firings.add((entry.sandbox, entry.pause or "", entry.event.fault, entry.event.error))
        elif (fact := _fact(entry)) is not None:
            told = entry.event
            if isinstance(told, events.PauseSettled) and (told.read or (told.checkpoint and told.consumed)):
                apart = "reads" if told.read else "checkpoints"
                sequences.setdefault(f"{entry.sandbox} {apart}", []).append(fact)
                lost += [(entry.sandbox, told.build)] if told.outcome == "discarded" else []
            else:
                sequences.setdefault(entry.sandbox, []).append(fact)
    for sandbox, build in lost:
        _never_ran(sequences.get(sandbox, []), build)
    return sequences, sorted(firings)


def _never_ran(sequence: list[Any], build: str) -> None:
    """Leave out that the guest of a lost copy ran: whether it was filled before the failure is a race."""
    resumed = ["resumed", build]
    if resumed in sequence:
        at = sequence.index(resumed)
        ran, ended = sequence[at + 1 : at + 2], sequence[at + 2 : at + 3]
        if ran and ended and ended[0][:2] == ["state", "running"]:
            sequence[at : at + 3] = [["state", ran[0][1], *ended[0][2:]]]


def _fact(entry: Entry) -> list[Any] | None:
    match entry.event:
        case events.StateChanged(old, new, _, stop_reason):
            return ["state", old, new, stop_reason]
        case events.Decided(flags):
            return ["decided", {flag: each["value"] for flag, each in sorted(flags.items()) if _decides(flag, each)}]
        case events.PauseSettled() as settled:
            return ["settled", settled.outcome, settled.path, settled.punch, settled.dirty_bytes, settled.content_hash]
        case events.Resumed(build=build):
            return ["resumed", build]
        case events.RequestRefused(request):
            return ["refused", request]
    return None


def _decides(flag: str, evaluation: dict[str, Any]) -> bool:
    """Not salvage where it is not served: then an option of the engine decides, and digests are as they always were."""
    return flag != SALVAGE or not is_unserved(evaluation)
