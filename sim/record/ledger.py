"""The append-only file, followed, parsed, streamed on."""

from __future__ import annotations

import contextlib
import errno
import inspect
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import engine.events
from engine.errors import UserError
from engine.events import Event
from engine.printable import printable
from engine.reading import ANY_SIZE, MOST_LEDGER_BYTES, open_regular
from sim.record import events as sim_events
from sim.record import rollout_events, source_events

EVENTS_FILE = "events.jsonl"


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _event_types() -> dict[str, type[Event]]:
    found: dict[str, type[Event]] = {}
    for module in (engine.events, sim_events, source_events, rollout_events):
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Event) and kind is not Event:
                found[_snake(name)] = kind
    return found


EVENT_TYPES = _event_types()
_NAMES = {kind: name for name, kind in EVENT_TYPES.items()}
_FIELDS = {kind: tuple(each.name for each in fields(kind)) for kind in _NAMES}
_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: `t` seconds since the run began, the event, and the sandbox and pause that it belongs to."""

    t: float
    event: Event
    sandbox: str | None
    pause: str | None

    @property
    def name(self) -> str:
        """The event's name in the file: `chunk_published`."""
        return _NAMES[type(self.event)]


_ROOM, _ROOM_OF_SANDBOX, _MOST_ROOM = 256 << 10, 32 << 10, 64 << 20  # bytes
_LONGEST_LINE = 16 << 20  # bytes of one line; a big fleet is in the first


class LedgerError(Exception):
    """A ledger line that is not one of ours; says which line and why."""


class Ledger:
    """Appends events. `began` is CLOCK_MONOTONIC at the run's start, one clock for every process."""

    def __init__(self, path: Path, began: float) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        self._began = began
        self._lock = threading.Lock()
        self.lost = 0
        """Lines that could not be written; the next line that can be written is preceded by one that reports this."""
        self._told_lost = 0
        self._reserved = False

    def reserve(self, sandboxes: int) -> None:
        """Reserve disk space for a run of so many sandboxes; raises OSError(ENOSPC).

        `close` gives back the unused space. A file system that cannot reserve is left alone.
        """
        from engine import linux  # imported here: a stored ledger is also read on machines without it

        try:
            linux.reserve_beyond_end(self._fd, min(_MOST_ROOM, _ROOM + sandboxes * _ROOM_OF_SANDBOX))
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
        else:
            self._reserved = True

    def append(self, event: Event, *, sandbox: str | None = None, pause: str | None = None) -> None:
        """Write one line; when this returns the kernel has it, so it survives a SIGKILL of this process.

        Raises OSError if it cannot be written; it is counted as lost then.
        """
        try:
            if (lost := self.lost) > self._told_lost:
                self._write(self._line(sim_events.LinesLost(lost), None, None))
                self._told_lost = lost
            self._write(self._line(event, sandbox, pause))
        except OSError:
            with self._lock:
                self.lost += 1
            raise

    def try_append(self, event: Event, *, sandbox: str | None = None, pause: str | None = None) -> bool:
        """For lines that nothing depends on: False if the line could not be written; it is counted as lost."""
        try:
            self.append(event, sandbox=sandbox, pause=pause)
        except OSError:
            return False
        return True

    def _line(self, event: Event, sandbox: str | None, pause: str | None) -> bytes:
        line: dict[str, Any] = {"t": round(time.monotonic() - self._began, 6), "event": _NAMES[type(event)]}
        if sandbox is not None:
            line["sandbox"] = sandbox
        if pause is not None:
            line["pause"] = pause
        for name in _FIELDS[type(event)]:
            line[name] = getattr(event, name)
        return _encode(line).encode() + b"\n"

    def _write(self, data: bytes) -> None:
        """A nearly full disk takes a part; writing the rest then raises, and the part is removed again."""
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError:
            end = os.lseek(self._fd, 0, os.SEEK_CUR)
            if written and end == os.fstat(self._fd).st_size:  # else another process has appended since
                os.ftruncate(self._fd, end - written)
            raise

    def close(self) -> None:
        """Close the file; harmless when already closed."""
        if self._fd >= 0:
            if self._reserved:
                os.ftruncate(self._fd, os.fstat(self._fd).st_size)
            os.close(self._fd)
            self._fd = -1


_MOST_SHARED = 4096
_SHARED: dict[str, Any] = {}


def _shared(value: Any) -> Any:
    """The same value as the one before that was equal: a decision is 14 KiB, and most of a run's are alike."""
    if value is None:
        return None
    if len(_SHARED) >= _MOST_SHARED:
        _SHARED.clear()
    return _SHARED.setdefault(repr(value), value)


def parse(line: bytes, number: int) -> Entry:
    """One line of a ledger; raises LedgerError naming the line where it is not an event of ours."""
    try:
        content = json.loads(line.decode())  # of bytes it would guess the encoding first
        kind = EVENT_TYPES[content.pop("event")]
        t, sandbox, pause = content.pop("t"), content.pop("sandbox", None), content.pop("pause", None)
        if kind is sim_events.Decided:
            content["flags"] = _shared(content["flags"])
        return Entry(t, kind(**content), sandbox and sys.intern(sandbox), pause and sys.intern(pause))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"not JSON: {error.msg}" if isinstance(error, json.JSONDecodeError) else error
        raise LedgerError(f"line {number} is not an event of this version: {printable(str(why))}") from error


class Follower:
    """Reads a ledger from the start and then whatever was appended since the last call.

    One that is a run's own, `is_own`, may be of any size.
    """

    def __init__(self, path: Path, *, is_own: bool = False) -> None:
        self._path = path
        self._is_own = is_own
        self._offset = 0
        self._line = 0

    def new_entries(self) -> Iterator[Entry]:
        """Whole lines that were appended since the last call; an unfinished line waits for the next."""
        try:
            if self._path.stat().st_size == self._offset:  # cheaper than to open it
                return
        except (FileNotFoundError, NotADirectoryError):
            return
        most = ANY_SIZE if self._is_own else MOST_LEDGER_BYTES
        with os.fdopen(open_regular(self._path, most), "rb") as file:
            file.seek(self._offset)
            while line := file.readline(_LONGEST_LINE):
                if len(line) == _LONGEST_LINE:
                    raise LedgerError(f"line {self._line + 1} is longer than {_LONGEST_LINE >> 20} MiB")
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                self._line += 1
                yield parse(line, self._line)


def drop_torn_line(path: Path) -> None:
    """SIGKILL may cut a write short; the announced act was never done, and the next entry must start a line."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW), "r+b") as file:
        file.truncate(file.read().rfind(b"\n") + 1)


def read(path: Path, *, is_own: bool = False) -> list[Entry]:
    """Every entry of a finished ledger; raises LedgerError, OSError. `is_own` as Follower has it."""
    return list(Follower(path, is_own=is_own).new_entries())


POLL_SECONDS = 0.05
STDOUT = Path("-")


@contextlib.contextmanager
def open_sink(path: Path | None) -> Iterator[BinaryIO | None]:
    """The file that events go to, emptied, or standard output; None for None. UserError where it cannot be opened."""
    if path is None or path == STDOUT:
        sink = None
        if path == STDOUT:
            with contextlib.suppress(OSError, AttributeError):  # it is closed: its lines go nowhere
                sink = sys.stdout.buffer
        yield sink
        return
    try:
        file = path.open("wb")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # each line was flushed: what a full disk refused was reported then
            file.close()


@contextlib.contextmanager
def following(sink: BinaryIO | None, lost: Callable[[OSError], None]) -> Iterator[Callable[[Path], None]]:
    """Gives a function that starts to follow a ledger; on exit every whole line has been passed on. None: no sink.

    A slow reader holds up the end of the `with`, never the run. A sink that failed gets nothing more, and `lost` is
    called with the reason on exit: what was judged stands.
    """
    stream = _Stream(sink) if sink is not None else None
    try:
        yield stream.follow if stream is not None else lambda _: None
    finally:
        if stream is not None and (error := stream.close()) is not None:
            lost(error)


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

    def close(self) -> OSError | None:
        """Wait for the last line; why the sink failed, if it did."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        return self._error

    def _hand_on(self, ledger: Path) -> None:
        try:
            with ledger.open("rb") as file:
                over = False
                while not over:
                    over = self._over.wait(
                        POLL_SECONDS
                    )  # checked before reading, so everything written until then is read
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
