"""Flags in a JSON file that people and tools may rewrite in any way while it is being followed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, RLock, Thread, current_thread

from flags.catalog import CATALOG, Flag
from flags.client import FlagClientMisusedError, SourceStatus
from flags.context import ORIGINAL, Contexts, Moment, SandboxAttributes
from flags.decision import Decision
from flags.decode import look, uncollected
from flags.document import DocumentError, Mistake, Position, lines_of, places
from flags.launchdarkly import CLOSE_SECONDS, Evaluator, InProcessSource, Items, refusal
from flags.lease import Lease
from flags.torn import TornError, decode, text_of

POLL_SECONDS = 0.05


class FileFlags(Evaluator):
    """A FlagClient over a file: {"flags": {KEY: FLAG}, "segments": {...}}, each in LaunchDarkly's JSON form.

    What LaunchDarkly's decoder takes from the newest whole file is in force, never an older value; status().error
    names what it refuses. Where the file is torn, unreadable or gone, the last good content stays in force and the
    status is INTERRUPTED, with the reason; at the start, where there is none to stay, each flag has its safe value,
    and the status is INITIALIZING. With a lease, each whole file renews it, and nothing is punched once it has ended.
    """

    def __init__(
        self,
        path: Path,
        poll: float = POLL_SECONDS,
        *,
        lease: Lease | None = None,
        contexts: Contexts = ORIGINAL,
        obey_unsafe: bool = False,
    ) -> None:
        """Follow the file by its name, looking every `poll` seconds."""
        self._path = path
        self._process = os.getpid()
        self._lock = RLock()  # a subscriber may refresh
        self._lease = lease
        self._seen: bytes | str | None = None
        self._is_whole = False
        self._mistakes: tuple[Mistake, ...] = ()
        self._source = InProcessSource()
        super().__init__(self._source, contexts=contexts, obey_unsafe=obey_unsafe)
        self.refresh()
        self._closed = Event()
        self._poller = Thread(target=self._follow, args=(poll,), name="flags.file", daemon=True)
        self._poller.start()

    def decide(
        self, attributes: SandboxAttributes, moment: Moment = "pause", flags: Sequence[Flag] = CATALOG
    ) -> Decision:
        """As any FlagClient; FlagClientMisusedError in a process that a fork has made: nothing follows the file there.

        Where half of the lease is over, the file is read again first: that its thread was starved changes no decision.
        """
        if os.getpid() != self._process:
            raise FlagClientMisusedError("this flag file is followed by another process; make a client in each process")
        if self._lease is None:
            return super().decide(attributes, moment, flags)
        if (left := self._lease.left()) <= self._lease.duration / 2:
            self._refresh(left)
        return self._lease.guarded(super().decide(attributes, moment, flags))

    def refresh(self) -> SourceStatus:
        """Look at the file now: what was written before is in force, or refused, when this returns."""
        self._refresh(-1)
        return self.status()

    def status(self) -> SourceStatus:
        if os.getpid() != self._process:
            return SourceStatus("OFF", None, "made before a fork: no change reaches this process")
        status = super().status()
        said = "\n".join(lines_of(self._mistakes)) or None
        return SourceStatus("VALID", status.since, said) if status.state == "VALID" else status

    def close(self) -> None:
        self._closed.set()
        if self._poller is not current_thread():
            self._poller.join(CLOSE_SECONDS)  # a subscriber may be at work on it, or the file system in no hurry
        super().close()

    def _refresh(self, patience: float) -> None:
        """Wait for another that is reading so many seconds, -1 for ever: a read may hang in its file system."""
        if self._lock.acquire(timeout=patience):
            try:
                self._look()
            finally:
                self._lock.release()

    def _look(self) -> None:
        """Never raises: whatever is the matter with this file, the next one must be obeyed."""
        began = self._lease.clock() if self._lease is not None else 0.0
        try:
            found = look(self._path)
            if found != self._seen:
                self._take(found)
                self._seen = found
        except Exception as error:  # noqa: BLE001 - as above
            self._seen = None
            self._interrupt(str(error) or type(error).__name__)
        if self._is_whole and self._lease is not None:
            self._lease.renew(began)

    def _take(self, found: bytes | str) -> None:
        with uncollected():
            try:
                decoded = decode(self._path, found)
            except TornError as torn:
                self._interrupt(str(torn))
                return
            self._source.put(decoded.flags, decoded.segments)
        refused: dict[tuple[str, ...], str] = decoded.refused | dict(self._source.refused.items())
        self._mistakes = mistakes(self._path, found, refused)
        self._is_whole = True

    def _interrupt(self, why: str) -> None:
        self._is_whole = False
        self._source.interrupt(why)

    def _follow(self, poll: float) -> None:
        while not self._closed.wait(poll):
            self._refresh(-1)


@dataclass(frozen=True, slots=True)
class Taken:
    """What LaunchDarkly's decoder takes from a file, and a mistake for each part that it refuses."""

    flags: Items
    segments: Items
    refused: dict[tuple[str, ...], str]
    mistakes: tuple[Mistake, ...]


def read_as_served(path: Path) -> tuple[Items, Items]:
    """Flags and segments as LaunchDarkly serves them, whatever lint finds.

    DocumentError where the file is not whole, or LaunchDarkly's decoder refuses any of it: it would serve nothing then.
    """
    taken = taken_from(path, look(path))
    if taken.mistakes:
        raise DocumentError(path, taken.mistakes)
    return taken.flags, taken.segments


def taken_from(path: Path, content: bytes | str) -> Taken:
    """What LaunchDarkly's decoder takes from what was read by look(); TornError where that is not whole."""
    found = decode(path, content)
    for section, items in (("flags", found.flags), ("segments", found.segments)):
        wrong = {key: reason for key, item in items.items() if (reason := refusal(section, item, key)) is not None}
        found.refused.update({(section, key): reason for key, reason in wrong.items()})
        for key in wrong:
            del items[key]
    return Taken(found.flags, found.segments, found.refused, mistakes(path, content, found.refused))


def mistakes(path: Path, content: bytes | str, refused: Mapping[tuple[str, ...], str]) -> tuple[Mistake, ...]:
    """A mistake for each part that is not served, in the order of their places."""
    if not refused:
        return ()
    positions = places(text_of(path, content), refused)
    return tuple(
        sorted(_refused(path, part, reason, positions.get(part, Position())) for part, reason in refused.items())
    )


def _refused(path: Path, part: tuple[str, ...], reason: str, place: Position) -> Mistake:
    message = f'LaunchDarkly refuses "{part[-1]}": {reason}' if part else f"LaunchDarkly refuses it: {reason}"
    return Mistake(place, "", message, "correct its type; it is not served", str(path))
