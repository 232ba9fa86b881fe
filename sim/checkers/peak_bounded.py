"""`peak_bounded`: memory beyond the guest's own stays within 8 MiB with punching, within the dirty bytes without."""

from __future__ import annotations

from typing import Any

from sim.checkers.evidence import Evidence, violation
from sim.trace.peak_bounded import exceeded


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
            reason = exceeded(pause, pause.peak_over)
            if reason is not None:
                found = violation(pause.sandbox, reason, incarnation=pause.incarnation, pause=pause.id)
                self.violations.append(found)

    def conclude(self, evidence: Evidence) -> None:
        """Everything was judged when it settled."""
