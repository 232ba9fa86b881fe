"""An asciinema recording, version 2: one JSON line of what it is, then one for each thing that was drawn."""

from __future__ import annotations

import json
import os
import pathlib
import time
from typing import IO

from engine.errors import UserError


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
