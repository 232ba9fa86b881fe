"""The terminal: ASCII, recorded, mortal."""

from __future__ import annotations

import json
import os
import pathlib
import time
from typing import IO, ClassVar

from textual.drivers.linux_driver import LinuxDriver

from engine.errors import UserError


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


class Cast:
    """Everything that goes to the terminal, with the seconds since the first of it (asciicast v2)."""

    def __init__(self, path: pathlib.Path, size: os.terminal_size, title: str) -> None:
        self._began: float | None = None
        try:
            self._file: IO[str] = path.open("w", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}") from error
        header = {"version": 2, "width": size.columns, "height": size.lines, "title": title}
        self._file.write(json.dumps({**header, "timestamp": int(time.time())}) + "\n")

    def wrote(self, data: str, now: float) -> None:
        """This was drawn now; monotonic seconds."""
        if not self._file.closed:
            self._began = now if self._began is None else self._began
            self._file.write(json.dumps([round(now - self._began, 6), "o", data], ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Close the file; harmless when already closed."""
        self._file.close()


ASCII: dict[str, str] = {
    "●": "*",  # running, on
    "○": "o",  # off
    "◌": ".",  # created
    "◐": "%",  # pausing, a rollout
    "■": "#",  # paused, held
    "◎": "@",  # checkpointing
    "◑": "&",  # resuming
    "✗": "x",  # discarded
    "†": "+",  # killed
    "◆": "!",  # condemned
    "‼": "!",
    "✓": "v",
    "▶": ">",
    "◂": "<",
    "▸": ">",
    "▾": "v",
    "▴": "^",
    "╵": "'",
    "┃": "|",
    "│": "|",
    "─": "-",
    "━": "=",
    "█": "#",
    "▓": "=",
    "▒": "+",
    "░": ":",
    "·": ".",
    "▪": ",",  # clean pages
    "△": "^",  # pauses over time: without punching, with it
    "▲": "A",
    "┄": ".",
    "…": "~",
    "→": ">",
    "←": "<",
    "↑": "^",
    "↓": "v",
    "⏎": "e",
    "▁": "_",
    "▂": "_",
    "▃": ".",
    "▄": "-",
    "▅": "-",
    "▆": "=",
    "▇": "=",
}
OTHER = "?"
_TABLE = str.maketrans(ASCII)


def to_ascii(data: str) -> str:
    """Signs by the table, frames of boxes by their shape, and what nobody thought of as a question mark."""
    data = data.translate(_TABLE)
    return data if data.isascii() else "".join(each if each.isascii() else _shape(each) for each in data)


def _shape(sign: str) -> str:
    if "\u2500" <= sign <= "\u257f":  # box drawing: a line across, a line down, or a corner
        return "-" if sign in "┄┅┈┉╌╍═╴╶╸╺╼╾" else "|" if sign in "┆┇┊┋╎╏║╷╹╻╽╿" else "+"
    if "\u2580" <= sign <= "\u259f":  # block elements: textual's scroll bars and borders
        return "#"
    return OTHER
