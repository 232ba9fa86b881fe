"""What a ledger tells a restarted node of each sandbox."""

from __future__ import annotations

from collections.abc import Sequence

from sim.node.config import Known, OpenPause
from sim.record import events
from sim.record.ledger import Entry
from sim.record.names import number_of
from sim.record.view import PauseView, SandboxView


def known(sandbox: SandboxView, entries: Sequence[Entry]) -> Known:
    """Its state and newest build, the numbers its guests and pauses were given, and the pause that was cut off."""
    mine = [each for each in entries if each.sandbox == sandbox.name]
    guests = [each.event.incarnation for each in mine if isinstance(each.event, events.GuestSpawned)]
    pauses = {each.pause for each in mine if each.pause is not None}
    return Known(
        state=sandbox.state,
        reason=sandbox.reason,
        build=sandbox.build,
        incarnations=max((number_of(name) for name in guests), default=0),  # not their count: a resume may have failed
        pauses=len(pauses),
        open_pause=_open(sandbox.pause),
    )


def _open(pause: PauseView | None) -> OpenPause | None:
    if pause is None or pause.settled_at is not None:
        return None
    return OpenPause(
        pause.id,
        pause.path,
        pause.punch,
        pause.punch_reason,
        pause.punch_code,
        pause.dirty_bytes,
        pause.blocked_ms,
    )
