"""How one guest is looked at and ended: the last look, SIGKILL, and its death on the pidfd."""

from __future__ import annotations

import time
from collections.abc import Callable

from engine.effects import Before, Effects
from engine.errors import GuestRanError, words_of
from engine.events import Event, GuestDied, GuestKilled, GuestLooked, KillFailed
from engine.evidence import as_json
from engine.incarnation import GuestProcess, PunchPermit


class Ending:
    """The guest of one pause. Each look and act is reported by `say`, which never raises."""

    def __init__(self, guest: GuestProcess, effects: Effects, say: Callable[[Event], None]) -> None:
        self._guest = guest
        self._effects = effects
        self._say = say
        self._killed_at: float | None = None
        self.permit: PunchPermit | None = None
        self.dead = False
        """Its death was seen, after our own signal: the permit is open."""
        self.error: str | None = None
        """Why it lives, though it was to die."""
        self.torn: GuestRanError | None = None
        """What the look before its SIGKILL showed, where it had run."""

    @property
    def killed(self) -> bool:
        """SIGKILL is sent."""
        return self._killed_at is not None

    def look(self, before: Before) -> None:
        """Raise GuestRanError where the guest ran since its freeze; nothing to look at once we killed it."""
        try:
            self._effects.look(self._guest, before)
        except GuestRanError as ran:
            self._tell_what_was_seen(before, ran)
            raise
        if before == "finish" and not self.killed:
            self._tell_what_was_seen(before, None)

    def kill(self) -> GuestRanError | None:
        """The last look, and SIGKILL; gives what the look showed where the guest had run. Harmless when done."""
        ran = None
        if self.killed:
            return None
        try:
            self._effects.kill(self._guest)
        except GuestRanError as error:
            ran = self.torn = error
        except Exception as error:  # noqa: BLE001 - reported, and nothing is punched
            self._lives(error, "not-sent")
            return None
        self._killed_at, self.error = time.perf_counter(), None
        self._tell_what_was_seen("kill", ran)
        self._say(GuestKilled())
        return ran

    def await_death(self) -> bool:
        """True once the killed guest is dead; its permit is open then. Harmless when done."""
        if self._killed_at is None or self.dead:
            return self.dead
        try:
            self._effects.await_death(self._guest, self.permit)
        except Exception as error:  # noqa: BLE001 - reported, and nothing is punched
            self._lives(error, "lives")
            return False
        self.dead, self.error = True, None
        self._say(GuestDied(round((time.perf_counter() - self._killed_at) * 1e3, 3)))
        return True

    def _lives(self, error: Exception, code: str) -> None:
        self.error = words_of(error)
        self._say(KillFailed(self.error, code))

    def _tell_what_was_seen(self, before: str, ran: GuestRanError | None) -> None:
        self._say(GuestLooked(before, as_json(self._guest.seen), ran.code if ran else None))
