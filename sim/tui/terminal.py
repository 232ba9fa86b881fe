"""The terminal: ASCII, recorded, mortal; or a browser."""

from __future__ import annotations

import json
import os
import pathlib
import queue
import selectors
import signal
import threading
import time
from functools import partial
from typing import IO, Any, ClassVar

from textual import events
from textual.app import App
from textual.drivers.linux_driver import LinuxDriver
from textual.drivers.web_driver import WebDriver
from textual.message import Message

from engine.errors import UserError
from sim.tui.keyboard import Keyboard

MOST_UNREAD = 8 << 20
"""Bytes for a browser that are not read yet, at most: some minutes of a busy screen."""
LAST_WORDS = 2.0
"""Seconds that a browser has to take what was drawn last."""
LOOKS_A_SECOND = 10
"""How often the input thread looks whether the app has ended, and whether a lone escape was a key."""


class MortalTerminal(LinuxDriver):
    """Drops what there is no terminal for: textual's queue would fill up, and block the teardown for ever.

    Reads its keys with `Keyboard`: textual's own reader ends the app at the first byte that is not UTF-8.
    """

    ASCII: ClassVar[bool] = False
    CAST: ClassVar[Cast | None] = None

    def write(self, data: str) -> None:
        if self._writer_thread is not None and self._writer_thread.is_alive():
            data = to_ascii(data) if self.ASCII else data.encode(errors="replace").decode()
            super().write(data)
            if self.CAST is not None:
                self.CAST.wrote(data, time.monotonic())

    def run_input_thread(self) -> None:
        """Read until the app ends; a terminal that is gone ends the app as its hang-up signal does."""
        keyboard = Keyboard()
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                if not selector.select(1 / LOOKS_A_SECOND):
                    messages = keyboard.tick(time.monotonic())
                elif data := _read(self.fileno):
                    messages = keyboard.feed(data, time.monotonic())
                else:
                    os.kill(os.getpid(), signal.SIGHUP)
                    return
                for message in messages:
                    self.process_message(message)

    def _get_terminal_size(self) -> tuple[int, int]:
        """Of the terminal that is read: textual asks stdout, which may be a file."""
        try:
            size = tuple(os.get_terminal_size(self.fileno))
        except OSError:
            size = (0, 0)
        columns, rows = size if all(size) else super()._get_terminal_size()
        self._resized(columns, rows)
        return columns, rows

    def process_message(self, message: Message) -> None:
        if isinstance(message, events.Resize):
            self._resized(*message.size)
        super().process_message(message)

    def _resized(self, columns: int, rows: int) -> None:
        """A recording follows the terminal's size."""
        if self.CAST is not None:
            self.CAST.resized(columns, rows, time.monotonic())


def _read(fd: int) -> bytes:
    """What is there; nothing where the other side of the terminal is gone."""
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""


class Browser(WebDriver):
    """A browser, through the pipes of the process that serves it.

    Once those are gone, or no longer read, the app ends as by a hang-up: a run never waits for its screen.
    """

    def __init__(
        self, app: App[Any], *, debug: bool = False, mouse: bool = True, size: tuple[int, int] | None = None
    ) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        self._write = partial(self._queue_up)
        self._queued: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._unread = 0
        self._gone = False
        self._writer = threading.Thread(target=self._write_on, name="browser", daemon=True)
        self._writer.start()

    def _queue_up(self, data: bytes) -> int:
        self._unread += len(data)
        if self._unread > MOST_UNREAD:
            self._hang_up()
        elif not self._gone:
            self._queued.put(data)
        return len(data)

    def _write_on(self) -> None:
        try:
            while (data := self._queued.get()) is not None:
                left = memoryview(data)
                while left:
                    left = left[os.write(self.fileno, left) :]
                self._unread -= len(data)
        except OSError:
            self._hang_up()

    def _hang_up(self) -> None:
        if not self._gone:
            self._gone = True
            os.kill(os.getpid(), signal.SIGHUP)

    def run_input_thread(self) -> None:
        """Textual's reader ends where the pipe does, and says nothing."""
        super().run_input_thread()
        if not self.exit_event.is_set():
            self._hang_up()

    def stop_application_mode(self) -> None:
        """The last words get a moment."""
        super().stop_application_mode()
        self._queued.put(None)
        self._writer.join(LAST_WORDS)


DrawnOn = type[MortalTerminal] | type[Browser]
"""The driver class of an app."""


def terminal(*, ascii_only: bool = False, cast: Cast | None = None) -> type[MortalTerminal]:
    """The driver class for an app: textual makes the driver itself, and takes no more than a class."""
    return type("Terminal", (MortalTerminal,), {"ASCII": ascii_only, "CAST": cast})


class Cast:
    """Everything that goes to the terminal, with the seconds since the first of it (asciicast v2)."""

    def __init__(self, path: pathlib.Path, size: os.terminal_size, title: str) -> None:
        self._began: float | None = None
        self._size = (size.columns, size.lines)
        self._new_size: tuple[float, str] | None = None
        try:
            self._file: IO[str] = path.open("w", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}") from error
        header = {"version": 2, "width": size.columns, "height": size.lines, "title": title}
        self._file.write(json.dumps({**header, "timestamp": int(time.time())}) + "\n")

    def wrote(self, data: str, now: float) -> None:
        """This was drawn now; monotonic seconds."""
        self._add("o", data, now)

    def resized(self, columns: int, rows: int, now: float) -> None:
        """The terminal has another size from now on.

        Called in a signal handler, which may have come in the middle of a write: it is written before what is next.
        """
        if (columns, rows) != self._size:
            self._size = (columns, rows)
            self._new_size = now, f"{columns}x{rows}"

    def _add(self, kind: str, data: str, now: float) -> None:
        if self._new_size is not None:
            (at, size), self._new_size = self._new_size, None
            self._add("r", size, at)
        if not self._file.closed:
            self._began = now if self._began is None else self._began
            self._file.write(json.dumps([round(now - self._began, 6), kind, data], ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Close the file; harmless when already closed."""
        self._file.close()


ASCII: dict[str, str] = {
    "●": "*",  # running, on
    "○": "o",  # off
    "◌": ".",  # created
    "◐": "%",  # pausing, a rollout
    "■": "#",  # paused, stopped
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
    "◦": "o",  # freed
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
    """Signs by the table, frames of boxes by their shape, and any other sign as a question mark."""
    data = data.translate(_TABLE)
    return data if data.isascii() else "".join(each if each.isascii() else _shape(each) for each in data)


def _shape(sign: str) -> str:
    if "\u2500" <= sign <= "\u257f":  # box drawing: a line across, a line down, or a corner
        return "-" if sign in "┄┅┈┉╌╍═╴╶╸╺╼╾" else "|" if sign in "┆┇┊┋╎╏║╷╹╻╽╿" else "+"
    if "\u2580" <= sign <= "\u259f":  # block elements: textual's scroll bars and borders
        return "#"
    return OTHER
