"""The little HTTP that a flag relay speaks: one request a connection, answered whole or with a stream of events."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from http.client import HTTPException, parse_headers, responses
from socket import SHUT_RDWR, SO_REUSEADDR, SOL_SOCKET, socket
from threading import Event, Lock, Thread, current_thread
from typing import NamedTuple

from engine.errors import UserError

HOST = "127.0.0.1"
"""The only address served: a relay asks no client for a key."""

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    # The SDK reads 10,000 bytes at a time: without chunks it would see nothing until so much has come.
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
STREAM_END = b"0\r\n\r\n"
KEEP_ALIVE = b":\n"
"""A comment; LaunchDarkly's sign of life on a stream that has nothing to say."""

HTML = b"<!doctype html><title>Sign in</title>"

_LONGEST_LINE = 8192
_LARGEST_BODY = 16 << 20
_PIECE = 64 << 10
_READ_SECONDS = 10.0
"""For a whole request: one that is sent in part, or a byte at a time, keeps its thread no longer."""
_WRITE_SECONDS = 60.0
_MOST_CONNECTIONS = 512
_REST = 0.05
"""Before the next try where the process has no file descriptor or thread left."""


class HttpRequest(NamedTuple):
    """`path` is without its query; `headers` ignore case."""

    method: str
    path: str
    headers: Message


def read_request(connection: socket) -> HttpRequest | None:
    """The request, its body read and dropped; None where the peer sends none.

    OSError where it goes away or takes its time. What is no HTTP, or too large, is answered with 400 or 413.
    """
    connection.settimeout(_READ_SECONDS)
    ends = time.monotonic() + _READ_SECONDS
    with connection.makefile("rb") as reader:
        words = reader.readline(_LONGEST_LINE).decode("latin-1").split()
        if not words:
            return None
        try:
            headers: Message = parse_headers(reader)
            length = _length(headers.get("Content-Length", "0"))
        except (HTTPException, ValueError):
            length = -1
        if len(words) != 3 or not 0 <= length <= _LARGEST_BODY:
            answer(connection, 413 if length > _LARGEST_BODY else 400)
            return None
        while length > 0 and time.monotonic() < ends:
            piece = len(reader.read1(min(length, _PIECE)))
            if piece == 0:
                return None
            length -= piece
    return HttpRequest(words[0], words[1].partition("?")[0], headers) if length == 0 else None


def _length(text: str) -> int:
    """Bytes, -1 for what is no number."""
    digits = text.strip()
    return int(digits[:20]) if digits.isascii() and digits.isdecimal() else -1


def answer(connection: socket, status: int, body: bytes = b"", **headers: str) -> None:
    """Send a whole answer, its body being JSON."""
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close", **headers}
    lines = [f"HTTP/1.1 {status} {responses.get(status, '')}", *(f"{name}: {value}" for name, value in fields.items())]
    connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def chunk(content: bytes) -> bytes:
    """A chunk of a stream (RFC 9112, 7.1)."""
    return b"%x\r\n%s\r\n" % (len(content), content)


class Server:
    """Listens on one port of HOST from up() to down(), a thread for accepting and one for each connection."""

    def __init__(self, port: int, serve: Callable[[socket, HttpRequest], None], gate: Event) -> None:
        """Call `serve` for each request; no client is accepted or answered while the gate is not set.

        The port (0: any free one) stays ours while down; UserError where it is taken.
        """
        self._serve = serve
        self._gate = gate
        self._lock = Lock()
        self._connections: dict[Thread, socket] = {}
        self._listener: socket | None = None
        self._reserved = _bound(port)  # it never listens: connections are refused
        self.port: int = self._reserved.getsockname()[1]

    def up(self) -> None:
        if self._listener is None:
            listener = _bound(self.port)
            listener.listen(128)
            self._listener = listener
            self._accepting = Thread(target=self._accept, args=(listener,), name="relay.accept", daemon=True)
            self._accepting.start()

    def down(self) -> None:
        """Refuse connections, and cut those there are; opens the gate once nothing can get out any more."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        self._cut()
        self._gate.set()
        listener.shutdown(SHUT_RDWR)  # closing alone would not wake accept()
        self._accepting.join()
        listener.close()
        self._cut()  # who was accepted last

    def close(self) -> None:
        """Down, and the port given up; the threads must have nothing left to wait for."""
        self.down()
        with self._lock:
            handlers = list(self._connections)
        for handler in handlers:
            handler.join()
        self._reserved.close()

    def _cut(self) -> None:
        with self._lock:
            for connection in self._connections.values():
                with suppress(OSError):
                    connection.shutdown(SHUT_RDWR)

    def _accept(self, listener: socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                if listener is not self._listener:  # down
                    return
                time.sleep(_REST)  # no file descriptor is left: clients that wait are served once there is one
                continue
            self._gate.wait()
            self._take(connection)

    def _take(self, connection: socket) -> None:
        """Serve it on a thread of its own; it is closed where too many are served, or no thread can start."""
        handler = Thread(target=self._handle, args=(connection,), name="relay.connection", daemon=True)
        with self._lock:
            if len(self._connections) >= _MOST_CONNECTIONS:
                connection.close()
                return
            self._connections[handler] = connection
        try:
            handler.start()
        except RuntimeError:
            with self._lock:
                del self._connections[handler]
            connection.close()

    def _handle(self, connection: socket) -> None:
        with connection, suppress(OSError):  # the peer may go away at any time
            request = read_request(connection)
            connection.settimeout(_WRITE_SECONDS)
            self._gate.wait()
            if request is not None:
                self._serve(connection, request)
        with self._lock:
            del self._connections[current_thread()]


def _bound(port: int) -> socket:
    bound = socket()
    bound.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise UserError(f"cannot serve on {HOST}:{port}: {error}; choose another port") from None
    return bound
