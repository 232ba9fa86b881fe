"""How long a kill switch takes: from the flag turned off at its source to the first decision that obeys it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Literal

from engine.errors import EngineError
from flags.catalog import PUNCH
from flags.client import FlagClient
from flags.context import SandboxAttributes
from flags.file import POLL_SECONDS, FileFlags
from flags.inline import flag_from
from flags.lease import Lease, LeasedFlags
from flags.relay import Relay, beat
from flags.streaming import LaunchDarklyFlags

Way = Literal["file", "stream", "half-open", "half-open with lease"]

_ANYBODY = SandboxAttributes(sandbox="probe", template="probe", team="probe")
_RESOLUTION = 0.001
_DEADLINE = 30.0
_GOLDEN = 0.618034
"""Its multiples, less what is whole of them, spread evenly over 0 to 1, however many there are."""


@dataclass(frozen=True, slots=True)
class _Drill:
    """A client, how to turn its flag on, and how to turn it off in the way that is drilled.

    `period` is how often the file is looked at or the heart beats, in seconds; 0 where nothing is periodic.
    """

    client: FlagClient
    on: Callable[[], object]
    off: Callable[[], object]
    period: float = 0.0


def kill_switch_times(way: Way, rounds: int, *, give_up: float, lease: float = 1.5) -> list[float | None]:
    """Seconds until OFF was obeyed, one a round, to about a millisecond; None: not within `give_up` seconds.

    Half-open, the relay freezes just before the switch is thrown; without a lease the SDK takes 300 s to notice.
    The lease is `lease` seconds, its heartbeat a third of that. Not to be called where a LaunchDarkly client is open.
    """
    with _drill(way, lease) as drill:
        return [_one_time(drill, give_up, moment=(number * _GOLDEN) % 1.0) for number in range(rounds)]


def _one_time(drill: _Drill, give_up: float, moment: float) -> float | None:
    """OFF comes at this `moment` of the period (0 to 1): ON was seen at its beginning, and is no moment like any."""
    drill.on()
    if _until(drill.client, True, _DEADLINE) is None:
        raise EngineError(f"the flag was not on after {_DEADLINE:g} s: {drill.client.status()}")
    time.sleep(drill.period * moment)
    drill.off()
    return _until(drill.client, False, give_up)


def _until(client: FlagClient, value: bool, give_up: float) -> float | None:
    began, pause = time.monotonic(), Event()
    while client.decide(_ANYBODY).value(PUNCH) is not value:
        if time.monotonic() - began > give_up:
            return None
        pause.wait(_RESOLUTION)
    return time.monotonic() - began


@contextmanager
def _drill(way: Way, lease: float) -> Iterator[_Drill]:
    if way == "file":
        with TemporaryDirectory(prefix="snapdrill-") as folder:
            path = Path(folder) / "flags.json"
            _write(path, True)
            with _closing(FileFlags(path)) as client:
                yield _Drill(client, lambda: _write(path, True), lambda: _write(path, False), POLL_SECONDS)
        return
    with Relay({PUNCH: flag_from(PUNCH, True)}) as relay:
        stream = LaunchDarklyFlags("sdk-propagation", stream_uri=relay.uri)
        stream.wait_ready(_DEADLINE)
        leased = way == "half-open with lease"
        period = lease / 3 if leased else 0.0
        if leased:
            beat(relay, period)
        with _closing(LeasedFlags(stream, Lease(lease)) if leased else stream) as client:
            on, off = lambda: _turn_on(relay, stream), lambda: _turn_off(relay, freeze=way != "stream")
            yield _Drill(client, on, off, period)


@contextmanager
def _closing(client: FlagClient) -> Iterator[FlagClient]:
    try:
        yield client
    finally:
        client.close()


def _write(path: Path, value: bool) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"flags": {PUNCH: flag_from(PUNCH, value)}}))
    temporary.replace(path)


def _turn_on(relay: Relay, stream: LaunchDarklyFlags) -> None:
    """In force on return: what the last round left on its way may not turn the flag off again."""
    relay.thaw()
    version = relay.set(flag_from(PUNCH, True))
    stream.wait_until(lambda: stream.version(PUNCH) == version, _DEADLINE)


def _turn_off(relay: Relay, *, freeze: bool) -> None:
    if freeze:
        relay.freeze()
    relay.set(flag_from(PUNCH, False))
