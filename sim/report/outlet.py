"""Standard output and standard error of a command: the last boundary out.

Whatever a command prints, no control character reaches a terminal except the colours and the moves that a command makes
itself, and no line is a command of GitHub Actions except one of `say_commands`. A stream that is closed, full or no
longer read loses what is written to it; the verdict and the exit code stand.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO, cast

from engine.printable import escaped, not_a_command

_OWN_MOVES = re.compile("(\x1b\\[[0-9;]*m|\r\x1b\\[K)")
"""Colours, and the start of a progress line."""


_LONGEST_LINE = 4_000  # characters


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    lines = text.split("\n")
    return "\n".join(
        each if len(each) <= longest else f"{each[:longest]}... ({len(each):,} characters)" for each in lines
    )


class Outlet:
    """Stands in for a text stream, which is None where the process was started without one."""

    def __init__(self, stream: TextIO | None, name: str, longest: int | None = None) -> None:
        """A line of more than `longest` characters is cut; None: none is, as standard output may be a document."""
        self._longest = longest
        self._stream = stream
        self._name = name
        self.unread = False
        """Whether its reader went away, as `head` does: nothing to report."""
        self.lost: str | None = None
        """Why something could not be written; None if all was."""

    @property
    def encoding(self) -> str:
        return "utf-8"

    @property
    def errors(self) -> str:
        return "backslashreplace"

    @property
    def buffer(self) -> Any:
        """For data that is not text: a ledger that is streamed. Raises what the stream raises."""
        if self._stream is None:
            raise OSError(errno.EBADF, f"{self._name} is closed")
        return self._stream.buffer

    def isatty(self) -> bool:
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        if self._stream is None:
            raise OSError(errno.EBADF, f"{self._name} is closed")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """The number of characters, whether or not they could be written."""
        if not isinstance(text, str):
            raise TypeError(f"{self._name} takes text")
        self._put(not_a_command(self._shown(text if self._longest is None else _shortened(text, self._longest))))
        return len(text)

    def _shown(self, text: str) -> str:
        if text.isascii() and text.replace("\n", "").isprintable():
            return text
        forced = bool(os.environ.get("FORCE_COLOR")) and not os.environ.get("NO_COLOR")
        if not self.isatty() and not forced:
            return escaped(text)
        return "".join(part if index % 2 else escaped(part) for index, part in enumerate(_OWN_MOVES.split(text)))

    def commands(self, lines: Iterable[str]) -> None:
        """Commands of GitHub Actions, which are ours; each is one line already."""
        for line in lines:
            self._put(f"{escaped(line)}\n")
        self.flush()

    def _put(self, text: str) -> None:
        if self._stream is None or self.lost:
            self.lost = self.lost or "it is closed"
            return
        with self._losing():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding or "ascii"
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def lose(self, error: OSError) -> None:
        """Its bytes could not be written by a writer that does not go through here."""
        with self._losing():
            raise error

    def flush(self) -> None:
        if self._stream is not None and not self.lost:
            with self._losing():
                self._stream.flush()

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: it was closed in this process
            self.unread = isinstance(error, BrokenPipeError)
            self.lost = getattr(error, "strerror", None) or str(error)
            _give_up(self._stream)


def _give_up(stream: TextIO | None) -> None:
    """What the stream still holds goes nowhere: its flush at the process's end must not fail once more."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            if stream is not None:
                os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)


def _fill_standard_fds() -> None:
    """Where one is closed, the next file that is opened would get its number, and what children print."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: this one


class Outlets:
    """Both streams of this process as Outlets while this is entered."""

    def __enter__(self) -> Self:
        _fill_standard_fds()
        self._before = sys.stdout, sys.stderr
        self.out, self.err = Outlet(sys.stdout, "standard output"), Outlet(sys.stderr, "standard error", _LONGEST_LINE)
        sys.stdout, sys.stderr = cast("TextIO", self.out), cast("TextIO", self.err)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.out.flush()
        if self.out.lost and not self.out.unread:
            self.err.write(f"snapdrill: standard output could not be written: {self.out.lost}\n")
        self.err.flush()
        sys.stdout, sys.stderr = self._before


def lose_events(path: Path | None, error: OSError) -> None:
    """The ledger's lines go nowhere any more; the run goes on, and its folder has them all."""
    from sim.record.ledger import STDOUT

    if path == STDOUT and isinstance(sys.stdout, Outlet):
        sys.stdout.lose(error)
    else:
        why = error.strerror or str(error)
        sys.stderr.write(f"--events {path}: cannot be written: {why}; the run folder has the whole ledger\n")


def say_commands(lines: Iterable[str], *, on_stderr: bool = True) -> None:
    """Print workflow commands; any other line that looks like one is defused."""
    stream = sys.stderr if on_stderr else sys.stdout
    if isinstance(stream, Outlet):
        stream.commands(lines)
        return
    for line in lines:
        stream.write(f"{line}\n")
