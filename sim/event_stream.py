"""Hands a run's ledger on, line by line, while the run writes it."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from engine.errors import UserError

POLL_SECONDS = 0.05
STDOUT = Path("-")


@contextlib.contextmanager
def open_sink(path: Path | None) -> Iterator[BinaryIO | None]:
    """The file that events go to, emptied, or standard output; None for None. UserError where it cannot be opened."""
    if path is None or path == STDOUT:
        yield None if path is None else sys.stdout.buffer
        return
    try:
        file = path.open("wb")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    with file:
        yield file


@contextlib.contextmanager
def following(sink: BinaryIO | None) -> Iterator[Callable[[Path], None]]:
    """Gives what starts to follow a ledger; leaving, every whole line has been handed on. None follows nothing.

    A slow reader holds up the end of the `with`, never the run. Raises OSError there where the sink took no more.
    """
    stream = _Stream(sink) if sink is not None else None
    try:
        yield stream.follow if stream is not None else lambda _: None
    finally:
        if stream is not None:
            stream.close()


class _Stream:
    """A thread of its own: the run's loop never waits for a pipe."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def follow(self, ledger: Path) -> None:
        self._thread = threading.Thread(target=self._hand_on, args=(ledger,), name="events", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _hand_on(self, ledger: Path) -> None:
        try:
            with ledger.open("rb") as file:
                over = False
                while not over:
                    over = self._over.wait(POLL_SECONDS)  # asked before the look: what came until then is in it
                    self._hand_on_lines(file)
        except OSError as error:
            self._error = error

    def _hand_on_lines(self, file: BinaryIO) -> None:
        """Whole lines only: a line that a crash tore is cut away by the runner."""
        start = file.tell()
        data = file.read()
        whole = data.rfind(b"\n") + 1
        file.seek(start + whole)
        if whole:
            self._sink.write(data[:whole])
            self._sink.flush()
