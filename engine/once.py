"""Something that happens once, and who waits for it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable


class Once:
    """Thread-safe: any thread may set it, wait for it, or leave a function to be called."""

    def __init__(self) -> None:
        self._happened = threading.Event()
        self._waiting: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def is_set(self) -> bool:
        """True once it has happened."""
        return self._happened.is_set()

    def wait(self, deadline: float | None = None) -> bool:
        """True once it has happened; False after `deadline` seconds."""
        return self._happened.wait(deadline)

    def then(self, tell: Callable[[], None]) -> None:
        """Call the given function once it happens, in the thread that sets it, or at once."""
        with self._lock:
            if not self._happened.is_set():
                self._waiting.append(tell)
                return
        tell()

    def set(self) -> None:
        """It has happened; harmless a second time."""
        with self._lock:
            self._happened.set()
            waiting, self._waiting = self._waiting, []
        for tell in waiting:
            with contextlib.suppress(Exception):  # each of the others waits too
                tell()
