"""The condemned records and the permit to punch: whoever holds a permit has written the record first.

A record outlives a SIGKILL of the writer (it is in the kernel's hands once renamed); it is retired only after the
guest's death was seen on its pidfd.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.errors import CondemnedError, PunchRefusedError
from engine.incarnation import GuestProcess, Incarnation, start_time_of

_MINT = object()


class PunchPermit:
    """The only key to `Memfd.punch`; made by `CondemnedRecords.condemn` alone."""

    __slots__ = ("incarnation",)

    def __init__(self, incarnation: Incarnation, mint: object) -> None:
        if mint is not _MINT:
            raise PunchRefusedError("a punch permit comes from a condemned record only")
        self.incarnation = incarnation


@dataclass(frozen=True, slots=True)
class CondemnedRecord:
    """Who was condemned, for which build, as read back from disk."""

    incarnation: Incarnation
    build: str


class CondemnedRecords:
    """The folder of condemned records of one node, one JSON file an incarnation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def condemn(self, incarnation: Incarnation, build: str) -> PunchPermit:
        """Commit the incarnation to teardown for ever, then give the permit; raises OSError with nothing changed."""
        path = self._path(incarnation)
        temporary = path.with_suffix(".tmp")
        content = json.dumps({**asdict(incarnation), "build": build}).encode()
        try:
            with open(temporary, "wb") as file:  # one left by a crash was never a record
                file.write(content)
            os.rename(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        return PunchPermit(incarnation, _MINT)

    def holds(self, incarnation: Incarnation) -> bool:
        """True where this incarnation is condemned."""
        try:
            os.stat(self._path(incarnation))
        except FileNotFoundError:
            return False  # any other error is raised: what cannot be read may not be taken for "not condemned"
        return True

    def records(self) -> Iterator[CondemnedRecord]:
        """Every record that was not retired; a `.tmp` is a condemnation that never happened."""
        for path in sorted(self._folder.glob("*.json")):
            content = json.loads(path.read_bytes())
            build = content.pop("build")
            yield CondemnedRecord(Incarnation(**content), build)

    def retire(self, guest: GuestProcess) -> None:
        """Forget a record once the guest is dead; raises CondemnedError while it lives."""
        if not guest.is_dead():
            raise CondemnedError(f"{guest.incarnation.name} is still alive: its condemned record stays")
        self._path(guest.incarnation).unlink(missing_ok=True)

    def retire_gone(self, record: CondemnedRecord) -> None:
        """Forget a record whose process is gone from /proc (pid and start time); CondemnedError while it lives."""
        incarnation = record.incarnation
        if start_time_of(incarnation.pid) == incarnation.start_time:
            raise CondemnedError(f"{incarnation.name} is still alive: its condemned record stays")
        self._path(incarnation).unlink(missing_ok=True)

    def _path(self, incarnation: Incarnation) -> Path:
        return self._folder / f"{incarnation.name}-{incarnation.pid}-{incarnation.start_time}.json"
