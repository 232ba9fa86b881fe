"""The dead-man lease: without fresh news of the flags nothing is punched, whatever the SDK says.

In a half-open partition the SDK serves its last values, with status VALID, for 300 s (its stream_read_timeout). A
heartbeat flag that the flag service changes all the time distinguishes that from a service without changes. Of a
flag file, each whole content that is read is fresh news.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any, Protocol

from engine.errors import UserError
from flags.catalog import CATALOG, Flag, flag
from flags.client import FlagClient, SourceStatus
from flags.context import Moment, SandboxAttributes
from flags.decision import Decision, Evaluation

HEARTBEAT = "punch-heartbeat"
"""The flag that the flag service changes every so often; what it serves is of no account, its version rises."""

LEASE_EXPIRED = "lease_expired"
LEASE_SECONDS = 5.0
"""The lease of a flag file and of a relay, unless another is given."""
_GUARDED = flag("memfd-punch-on-snapshot")


def heartbeat_flag(beat: int) -> dict[str, Any]:
    """The heartbeat flag in LaunchDarkly's JSON form; each beat has a content, and so a version, of its own."""
    return {
        "key": HEARTBEAT,
        "on": True,
        "variations": [beat],
        "fallthrough": {"variation": 0},
        "offVariation": 0,
        "salt": HEARTBEAT,
    }


class Lease:
    """Open while the last renewal is younger than `duration` seconds of `clock`. Safe from several threads.

    A heartbeat renews it: a version higher than any before. The first one seen says nothing about its age, so it opens
    nothing; the next one does.
    """

    def __init__(self, duration: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not duration > 0:
            raise UserError(f"lease {duration:g} s is out of range; use a few times the heartbeat's interval")
        self.duration = duration
        self.clock = clock
        self._lock = Lock()
        self._version: int | None = None
        self._renewed: float | None = None

    def saw(self, version: int | None) -> None:
        """The heartbeat flag has this version now; None where there is no such flag, which is no heartbeat."""
        with self._lock:
            if version is None or (self._version is not None and version <= self._version):
                return
            if self._version is not None:
                self._renewed = self.clock()
            self._version = version

    def renew(self, seen: float) -> None:
        """What was read at that moment of the clock was whole."""
        with self._lock:
            self._renewed = seen if self._renewed is None else max(seen, self._renewed)

    def open(self, now: float | None = None) -> bool:
        """True where the last renewal is fresh at `now` (default: the clock's now)."""
        age = self.age(now)
        return age is not None and age < self.duration

    def age(self, now: float | None = None) -> float | None:
        """Seconds since the last renewal, None where there was none."""
        renewed = self._renewed
        return None if renewed is None else (self.clock() if now is None else now) - renewed

    def left(self) -> float:
        """Seconds until it ends, 0 where it is not open."""
        age = self.age()
        return 0.0 if age is None else max(0.0, self.duration - age)

    def guarded(self, decision: Decision) -> Decision:
        """The decision where the lease is open, else without punching. Ask it after the evaluation."""
        if self.open():
            return decision
        return Decision(tuple(_closed(each) if each.flag == _GUARDED.key else each for each in decision.evaluations))


class VersionedFlags(FlagClient, Protocol):
    """A FlagClient that gives the version in force of any flag, None where there is no such flag."""

    def version(self, key: str) -> int | None: ...


class LeasedFlags:
    """A FlagClient that decides as another does, except that nothing is punched while the lease is not open.

    It owns the other client and closes it. Its status is the other's: an expired lease shows in the decisions.
    """

    def __init__(self, client: VersionedFlags, lease: Lease) -> None:
        self._client = client
        self._lease = lease
        self._unsubscribe = client.subscribe(self._changed)
        lease.saw(client.version(HEARTBEAT))

    def decide(
        self, attributes: SandboxAttributes, moment: Moment = "pause", flags: Sequence[Flag] = CATALOG
    ) -> Decision:
        return self._lease.guarded(self._client.decide(attributes, moment, flags))

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        return self._client.subscribe(callback)

    def status(self) -> SourceStatus:
        return self._client.status()

    def close(self) -> None:
        self._unsubscribe()
        self._client.close()

    def _changed(self, key: str) -> None:
        if key == HEARTBEAT:
            self._lease.saw(self._client.version(HEARTBEAT))


def _closed(evaluation: Evaluation) -> Evaluation:
    """An answer that was safe for want of a usable one keeps its reason."""
    if evaluation.reason.startswith("ERROR:") and evaluation.value == _GUARDED.safe:
        return evaluation
    return replace(evaluation, value=_GUARDED.safe, reason=LEASE_EXPIRED, variation=None, rule=None)
