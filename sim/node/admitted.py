"""One pause that was let in, and the words in which a ledger has its end."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.pause import Pause, PauseResult
from flags.decision import Decision
from sim.node.guest_link import Guest
from sim.node.sandbox import Successor
from sim.node.wave import Wave
from sim.record import events


@dataclass(frozen=True, slots=True)
class Admitted:
    """One pause that was let in: its name, the pinned decision, the bytes it was granted, and its guest."""

    id: str
    decision: Decision
    planned: int
    guest: Guest
    checkpoint: bool
    successor: Successor | None = None  # who goes on after a checkpoint that is not in place
    reader: Successor | None = None  # who comes right after a pause, as soon as it has its answer
    wave: Wave = field(default_factory=Wave)

    @property
    def read(self) -> bool:
        """Its sandbox is resumed as soon as the pause has its answer."""
        return self.reader is not None

    @property
    def consumed(self) -> bool:
        """The guest is to end; else its memory is borrowed, and it goes on."""
        return not self.checkpoint or self.successor is not None


def never_started(outcome: str, why: str, admitted: Admitted) -> events.PauseSettled:
    """A pause that the engine never had: nothing was copied or freed."""
    how, consumed = admitted.checkpoint, admitted.consumed
    return events.PauseSettled(outcome, admitted.id, error=why, checkpoint=how, consumed=consumed, read=admitted.read)


def settled(pause: Pause, result: PauseResult, admitted: Admitted, blocked_ms: float) -> events.PauseSettled:
    """The engine's result in the ledger's words."""
    plan = pause.plan
    return events.PauseSettled(
        outcome=result.outcome.value,
        path=plan.path.value if plan else None,
        punch=plan.punch if plan else False,
        punch_reason=plan.punch_reason if plan else None,
        punch_code=plan.punch_code.value if plan else None,
        dirty_bytes=plan.dirty_bytes if plan else None,
        punched_bytes=result.punched_bytes,
        peak_over=result.peak_over,
        peak_ratio=round(result.peak_ratio, 4) if result.peak_ratio is not None else None,
        copy_ms=round(result.copy_ms, 3) if result.copy_ms is not None else None,
        blocked_ms=blocked_ms,
        condemned=result.condemned,
        error=result.error,
        failed_chunk=result.failed_chunk,
        condemn_error=result.condemn_error,
        punch_error=result.punch_error,
        build=admitted.id,
        content_hash=result.header.content_hash if result.header else None,
        checkpoint=admitted.checkpoint,
        kill_error=result.kill_error,
        copier_bytes=result.copier_bytes,
        consumed=admitted.consumed,
        cpu_seconds=round(result.cpu_seconds, 6) if result.cpu_seconds is not None else None,
        salvage=result.salvage,
        read=admitted.read,
    )
