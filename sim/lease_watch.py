"""What is told of a dead-man lease: when it opens, when it expires, and its age while a heartbeat is overdue."""

from __future__ import annotations

from flags.lease import Lease
from sim.events import LeaseMeasured

LOOKS_PER_LEASE = 8
"""How often in its duration a lease should be looked at."""

OVERDUE = 0.5
"""A heartbeat older than this share of the lease; in a sound source it is an eighth at most."""


class LeaseWatch:
    """Looks at a lease; a sound one is told of once, however long it lasts."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._told: tuple[bool, bool] | None = None

    def news(self) -> LeaseMeasured | None:
        """None where nothing has changed: it is as sound, or has been expired, as was told."""
        age, is_open = self._lease.age(), self._lease.open()
        overdue = is_open and age is not None and age > OVERDUE * self._lease.duration
        known, self._told = self._told, (is_open, overdue)
        if known == self._told and not overdue:
            return None
        return LeaseMeasured(is_open, None if age is None else round(age, 3), self._lease.duration)
