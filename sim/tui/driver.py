"""Textual's driver, for a terminal that may go away, may know no more than ASCII, and may be recorded."""

from __future__ import annotations

import time
from typing import ClassVar

from textual.drivers.linux_driver import LinuxDriver

from sim.tui.cast import Cast
from sim.tui.glyphs import to_ascii


class MortalTerminal(LinuxDriver):
    """Drops what there is no terminal for: textual's queue would fill up, and block the teardown for ever."""

    ASCII: ClassVar[bool] = False
    CAST: ClassVar[Cast | None] = None

    def write(self, data: str) -> None:
        if self._writer_thread is not None and self._writer_thread.is_alive():
            data = to_ascii(data) if self.ASCII else data
            super().write(data)
            if self.CAST is not None:
                self.CAST.wrote(data, time.monotonic())


def terminal(*, ascii_only: bool = False, cast: Cast | None = None) -> type[MortalTerminal]:
    """The driver class for an app: textual makes the driver itself, and takes no more than a class."""
    return type("Terminal", (MortalTerminal,), {"ASCII": ascii_only, "CAST": cast})
