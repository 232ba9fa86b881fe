"""Textual's driver, for a terminal that may go away while a run is still to be torn down."""

from __future__ import annotations

from textual.drivers.linux_driver import LinuxDriver


class MortalTerminal(LinuxDriver):
    """Drops what there is no terminal for: textual's queue would fill up, and block the teardown for ever."""

    def write(self, data: str) -> None:
        if self._writer_thread is not None and self._writer_thread.is_alive():
            super().write(data)
