"""The screen's clock: ticks of the fleet by themselves, at a speed, or held. Pure; time is a parameter, seconds."""

from __future__ import annotations

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Ticks a second."""


class Clock:
    """Held at first: nothing moves until somebody wants it to."""

    def __init__(self) -> None:
        self.held = True
        self._speed = SPEEDS.index(1.0)
        self._last = 0.0

    @property
    def speed(self) -> float:
        """Ticks a second, when it is not held."""
        return SPEEDS[self._speed]

    def change(self, steps: int) -> None:
        """Faster, or slower where `steps` is negative, as far as it goes."""
        self._speed = max(0, min(len(SPEEDS) - 1, self._speed + steps))

    def toggle(self, now: float) -> None:
        """Hold it, or let it run; the first tick comes at once."""
        self.held = not self.held
        self._last = now - 1 / self.speed

    def is_due(self, now: float) -> bool:
        """True once for each tick. What came too late is left out: a slow fleet is not chased."""
        if self.held or now - self._last < 1 / self.speed:
            return False
        self._last = now
        return True

    @property
    def words(self) -> str:
        """`held`, `2 ticks/s`."""
        if self.held:
            return "held"
        return "1 tick/s" if self.speed == 1 else f"{self.speed:g} ticks/s"
