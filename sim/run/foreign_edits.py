"""Changes from outside of the flag file that a run's node follows, as the run itself sees them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from engine.events import Event
from flags.catalog import PUNCH
from flags.decode import look
from flags.document import DocumentError
from flags.torn import decode
from sim.record.source_events import FlagFileEdited

Note = Callable[[Event], object]


class ForeignEdits:
    """Looks at the file as often as the node does, and notes each change that is not the run's own.

    Off is noted once it has stood for two looks, everything else at once.
    """

    def __init__(self, path: Path, note: Note) -> None:
        """The file is as the run has made it. Looks while an event loop runs, until close()."""
        self._path, self._note = path, note
        self._known: bytes | str = look(path)
        self._begun = self._ended = 0  # changes of the run's own
        self._stood: bytes | str | None = None
        self._task = asyncio.get_running_loop().create_task(self._follow())

    def close(self) -> None:
        self._task.cancel()

    @contextlib.contextmanager
    def own_change(self) -> Iterator[None]:
        """What changes meanwhile is the run's own."""
        self._begun += 1
        try:
            yield
        finally:
            self._known = look(self._path)
            self._ended += 1

    async def _follow(self) -> None:
        from flags.file import POLL_SECONDS  # it loads the SDK, which few runs need here

        last = time.monotonic()
        while True:
            await asyncio.sleep(POLL_SECONDS)
            ended, began = self._ended, time.monotonic()
            found = await asyncio.to_thread(look, self._path)
            if self._begun != ended or found == self._known:
                self._stood, last = None, began
                continue
            what = _said(self._path, found)
            if what == "off" and found != self._stood:
                self._stood = found
                continue
            self._note(FlagFileEdited(what, round(time.monotonic() - last, 3)))
            self._known, self._stood, last = found, None, began


def _said(path: Path, found: bytes | str) -> str:
    """What of it FlagFileEdited.found says."""
    try:
        flag = decode(path, found).flags.get(PUNCH)
    except DocumentError:
        return "torn"
    if flag is None or flag.get("deleted") is True:
        return "off"
    off, variations = flag.get("offVariation"), flag.get("variations")
    if flag.get("on") is not False or not isinstance(variations, list):
        return "not off"
    serves = variations[off] if isinstance(off, int) and 0 <= off < len(variations) else False
    return "off" if serves is False else "not off"
