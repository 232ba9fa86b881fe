"""Its one flag client, and its lease."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flags.client import FlagClient, SourceStatus
from flags.context import contexts_of
from flags.decode import look
from flags.file import FileFlags
from flags.launchdarkly import Evaluator
from flags.lease import Lease, LeasedFlags
from flags.memory import MemoryFlags
from flags.streaming import LaunchDarklyFlags
from flags.torn import loads
from sim.node.config import NodeConfig
from sim.record.source_events import LeaseMeasured

RELAY_KEY = "snapdrill-relay"  # a relay takes any
RECONNECT_SECONDS = 0.05
READY_SECONDS = 5.0
FILE_SECONDS = 5.0  # a flag file is looked at many times a second


class NodeFlags:
    """A client and what is behind it. `client` decides; the rest is for a runner that changes and breaks the source."""

    def __init__(self, config: NodeConfig) -> None:
        """Blocks until the flags have come, or it is known why they have not: then the safe values are in force."""
        self._file = None if config.flag_file is None else Path(config.flag_file)
        self._lease = Lease(config.lease) if config.lease is not None else None
        self._evaluator = _open(config, self._lease)
        self._lease_watch = LeaseWatch(self._lease) if self._lease is not None else None
        self.client: FlagClient = self._evaluator
        if isinstance(self._evaluator, LaunchDarklyFlags):
            if self._lease is not None:
                self.client = LeasedFlags(self._evaluator, self._lease)
            self._evaluator.wait_until(self._has_come_or_failed, READY_SECONDS)

    def _has_come_or_failed(self) -> bool:
        return self._is_leased() or self._evaluator.status().error is not None

    def _is_leased(self) -> bool:
        return self._evaluator.status().state == "VALID" and (self._lease is None or self._lease.open())

    def set(self, flag: Mapping[str, Any]) -> None:
        """Effective before it returns; a flag file is rewritten whole, and seen when it is next looked at."""
        if isinstance(self._evaluator, MemoryFlags):
            self._evaluator.set(flag)
        elif self._file is not None:
            self._rewrite(self._file, flag)

    def _rewrite(self, file: Path, flag: Mapping[str, Any]) -> None:
        key = flag["key"]
        document = loads(file, look(file))
        if document.setdefault("flags", {}).get(key) == flag:
            return
        document["flags"][key] = flag
        before = self._evaluator.version(key)
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps(document, indent=2))
        temporary.replace(file)
        if not self._evaluator.wait_until(lambda: self._evaluator.version(key) != before, FILE_SECONDS):
            raise TimeoutError(f"{file}: the change was not seen: {self._evaluator.status().error}")

    def refresh(self) -> None:
        """Look at the flag file, where there is one, now."""
        if isinstance(self._evaluator, FileFlags):
            self._evaluator.refresh()

    def wait_for(self, versions: Mapping[str, int | None], seconds: float) -> bool:
        """Wait until these versions are in force (None: no such flag), and the lease is open where there is one."""

        def has_come() -> bool:
            known = {key: self._evaluator.version(key) for key in versions}
            return known == versions and self._is_leased()

        return self._evaluator.wait_until(has_come, seconds)

    def lease_news(self) -> LeaseMeasured | None:
        """What is new of the lease: that it opened, expired or is overdue; None where nothing is, or there is none."""
        return self._lease_watch.news() if self._lease_watch is not None else None

    def watch(self, told: Callable[[SourceStatus], None]) -> None:
        """Report the status now and whenever its state changes, from whatever thread sees it."""
        self._evaluator.watch(told)

    def close(self) -> None:
        """In bounded time."""
        self.client.close()


def _open(config: NodeConfig, lease: Lease | None) -> Evaluator:
    contexts = contexts_of(config.contexts)
    if config.relay is not None:
        return LaunchDarklyFlags(
            RELAY_KEY,
            stream_uri=config.relay,
            initial_reconnect_delay=RECONNECT_SECONDS,
            contexts=contexts,
            obey_unsafe=config.obey_unsafe,
        )
    if config.launchdarkly:
        return LaunchDarklyFlags(contexts=contexts, obey_unsafe=config.obey_unsafe)
    if config.flag_file is not None:
        return FileFlags(Path(config.flag_file), lease=lease, contexts=contexts, obey_unsafe=config.obey_unsafe)
    return MemoryFlags(config.inline_flags or {}, contexts)


LOOKS_PER_LEASE = 8
"""How often in its duration a lease should be looked at."""
OVERDUE = 0.5
"""A heartbeat older than this share of the lease; in a sound source it is an eighth at most."""


class LeaseWatch:
    """Looks at a lease; a sound one is reported once, however long it lasts."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._told: tuple[bool, bool] | None = None

    def news(self) -> LeaseMeasured | None:
        """None if nothing has changed since the last report."""
        age, is_open = self._lease.age(), self._lease.open()
        overdue = is_open and age is not None and age > OVERDUE * self._lease.duration
        known, self._told = self._told, (is_open, overdue)
        if known == self._told and not overdue:
            return None
        return LeaseMeasured(is_open, None if age is None else round(age, 3), self._lease.duration)
