"""`peak_bounded`: memory beyond the guest's own stays within 8 MiB with punching, within the dirty bytes without."""

from __future__ import annotations

from typing import Any

from sim.checkers.evidence import Evidence, violation
from sim.view import PauseView

MARGIN = 8 << 20


class PeakBounded:
    """Judges what the kernel said during each pause (st_blocks and cachestat, sampled by the copier)."""

    name = "peak_bounded"

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[dict[str, Any]] = []
        self._done: set[str] = set()

    def observe(self, evidence: Evidence) -> None:
        for pause in evidence.view.pauses:
            if pause.settled_at is None or pause.id in self._done or pause.peak_over is None:
                continue
            self._done.add(pause.id)
            self.checked += 1
            bound = _bound(pause)
            if pause.peak_over > bound:
                reason = f"the pause took {pause.peak_over} bytes beyond its guest, more than {bound}"
                found = violation(pause.sandbox, reason, incarnation=pause.incarnation, pause=pause.id)
                self.violations.append(found)

    def conclude(self, evidence: Evidence) -> None:
        """Everything was judged when it settled."""


def _bound(pause: PauseView) -> int:
    """Where punching could not go on, the bytes are safe and the peak is that of not punching."""
    punching = pause.punch and pause.punch_error is None and pause.condemn_error is None
    return MARGIN if punching else (pause.dirty_bytes or 0) + MARGIN
