"""The little HTTP that a flag relay speaks: one request a connection, answered whole or with a stream of events."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from http.client import HTTPException, parse_headers, responses
from socket import SHUT_RDWR, SO_REUSEADDR, SOL_SOCKET, socket
from threading import Event, Lock, Thread, current_thread
from typing import NamedTuple

from engine.errors import UserError

HOST = "127.0.0.1"
"""The only address served: a relay asks nobody for a key."""

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    # The SDK reads 10,000 bytes at a time: without chunks it would see nothing until so much has come.
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
STREAM_END = b"0\r\n\r\n"
KEEP_ALIVE = b":\n"
"""A comment; LaunchDarkly's sign of life on a stream that has nothing to say."""

_LONGEST_LINE = 8192
_LARGEST_BODY = 16 << 20


class Request(NamedTuple):
    """`path` is without its query; `headers` ignore case."""

    method: str
    path: str
    headers: Message


def read_request(connection: socket) -> Request | None:
    """The request, its body read and dropped; None where the peer sends none. OSError where it goes away."""
    with connection.makefile("rb") as reader:
        words = reader.readline(_LONGEST_LINE).decode("latin-1").split()
        if len(words) != 3:
            return None
        try:
            headers: Message = parse_headers(reader)
            reader.read(min(int(headers.get("Content-Length", 0)), _LARGEST_BODY))
        except (HTTPException, ValueError):
            return None
    return Request(words[0], words[1].partition("?")[0], headers)


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

    def __init__(self, port: int, serve: Callable[[socket, Request], None], gate: Event) -> None:
        """Call `serve` for each request; nobody is accepted or answered while the gate is not set.

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
            except OSError:  # down
                return
            self._gate.wait()
            handler = Thread(target=self._handle, args=(connection,), name="relay.connection", daemon=True)
            with self._lock:
                self._connections[handler] = connection
            handler.start()

    def _handle(self, connection: socket) -> None:
        with connection, suppress(OSError):  # the peer may go away at any time
            request = read_request(connection)
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
