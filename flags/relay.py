"""The loopback flag service."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from socket import socket
from threading import Condition, Event, Thread
from typing import Any, Self

from flags.decode import look
from flags.document import lines_of
from flags.file import POLL_SECONDS, Taken, taken_from
from flags.launchdarkly import Items
from flags.lease import Lease, heartbeat_flag
from flags.relay_content import Change, Content, event, fdv1, fdv2
from flags.relay_http import HOST, HTML, KEEP_ALIVE, STREAM_END, STREAM_HEAD, HttpRequest, Server, answer, chunk

_EVENT_PATHS = ("/bulk", "/diagnostic")
_STREAMS = {("GET", "/all"): fdv1, ("GET", "/sdk/stream"): fdv2}
_WHOLES = {("GET", "/sdk/latest-all"), ("GET", "/sdk/poll")}
Wait = Callable[[Event, float], bool]
"""Wait for the event at most so many seconds; True where it was set. Event.wait, except in tests that own the time."""
_Message = Change | bytes | None
"""A change, bytes as they are, or the stream's end: None as is proper, _CUT in the middle of what came before."""
_CUT = b""
_MOST_WAITING = 10_000
_REFUSED_KEYS = ("mob-", "api-")


class _EventStream:
    """What a stream has yet to send, and from which monotonic time on; `encode` is its protocol's."""

    def __init__(self, encode: Callable[[Change], bytes]) -> None:
        self.encode = encode
        self.waiting: SimpleQueue[tuple[float, _Message]] = SimpleQueue()

    def put(self, due: float, message: _Message) -> None:
        """A client that reads too slowly to be kept up to date is cut off; it connects again, and gets everything."""
        self.waiting.put((due, message) if self.waiting.qsize() < _MOST_WAITING else (0.0, _CUT))


class Relay:
    """Serves flags on `uri`, to the real SDK, from its construction to stop(); they may change meanwhile.

    Versions only rise, also over a deletion and over down(). A fault lasts until its opposite, or recover(). What
    is served may be changed from any thread; faults are set from one thread at a time.
    """

    def __init__(
        self,
        flags: Items,
        segments: Items | None = None,
        *,
        port: int = 0,
        first_version: int = 1,
        keep_alive: float = 15.0,
        wait: Wait = Event.wait,
    ) -> None:
        """Serve on that port of 127.0.0.1 (0: any free one); UserError where it is taken.

        `first_version` is for flags that bring none: let it rise from relay to relay on one port, else clients
        that stayed get no changes. A silent stream sends a comment every `keep_alive` seconds.
        """
        self._state = Condition()  # guards content, streams and counts
        self._content = Content(first_version)
        self._streams: set[_EventStream] = set()
        self._streams_opened = self._events_posted = 0
        self._thawed, self._stopping = Event(), Event()
        self._thawed.set()
        self._refusal: int | None = None
        self._html = self._emptied = False
        self._latency = 0.0
        self._keep_alive, self._wait = keep_alive, wait
        self._repeats: dict[str, _Repeat] = {}
        self.replace(flags, segments or {})
        self._server = Server(port, self._respond, self._thawed)
        self.uri = f"http://{HOST}:{self._server.port}"
        self.up()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End every stream, connection and thread. Stopping twice is harmless."""
        for name in list(self._repeats):
            self.every(name, None)
        self._stopping.set()
        self.down()
        self.thaw()
        self._server.close()

    def set(self, flag: Mapping[str, Any]) -> int:
        """Add or replace the flag of that `key`; its version. The same content again is no change."""
        with self._state:
            self._publish(self._content.set("flags", flag["key"], flag))
            return self._content.version(flag["key"]) or 0

    def delete(self, key: str) -> None:
        """Remove a flag: clients serve their default from then on. An unknown key is no error."""
        with self._state:
            self._publish(self._content.delete("flags", key))

    def replace(self, flags: Items, segments: Items) -> None:
        """Replace everything except the heartbeat by these: a patch or a deletion for each difference."""
        with self._state:
            self._publish(self._content.replace(flags, segments))

    def every(self, name: str, seconds: float | None, act: Callable[[], object] | None = None) -> None:
        """Do that every so many seconds, instead of what was done under that name; None: no more."""
        if (running := self._repeats.pop(name, None)) is not None:
            running.stop()
        if seconds is not None and act is not None:
            self._repeats[name] = _Repeat(name, seconds, act, self._wait)

    def drop(self) -> None:
        """End every stream, properly; clients connect again."""
        with self._state:
            self._publish([None])

    def malformed(self) -> None:
        """Send a patch that is not JSON."""
        with self._state:
            self._publish([event("patch", '{"path": "/flags/')])

    def cut(self) -> None:
        """End every stream in the middle of an event, as a connection that is lost; clients connect again."""
        with self._state:
            self._publish([event("patch", '{"path": "/flags/')[:-2], _CUT])

    def empty(self) -> None:
        """Send a put without any flag, which is well formed: every flag is gone until the streams begin anew."""
        with self._state:
            self._emptied = True
            self._publish([event("put", {"path": "/", "data": {"flags": {}, "segments": {}}})])

    def html(self, on: bool = True) -> None:
        """Answer everything with 200 and a page, as a proxy's log-in does, and end the streams; False: no more."""
        self._html = on
        if on:
            self.drop()

    def refuse(self, status: int | None) -> None:
        """Answer every request with that HTTP status and end the streams; None: no more."""
        self._refusal = status
        if status is not None:
            self.drop()

    def slow(self, seconds: float) -> None:
        """Send every answer and every event so much later; 0: no more."""
        self._latency = seconds

    def freeze(self) -> None:
        """Go half-open: connections stay, nothing is sent, no heartbeat either, and no new client is accepted."""
        self._thawed.clear()

    def thaw(self) -> None:
        """End freeze(): what was held back is sent now."""
        self._thawed.set()

    def flap(self, every: float | None) -> None:
        """Drop the streams every so many seconds; None: no more."""
        self.every("relay.flap", every, self.drop)

    def down(self) -> None:
        """Refuse connections, and cut those there are, as when the service has died."""
        self._server.down()
        self.drop()  # wakes streams that have nothing to send

    def up(self) -> None:
        """Listen again, on the same port."""
        self._server.up()

    def recover(self) -> None:
        """End every fault."""
        self.flap(None)
        self.refuse(None)
        self.html(False)
        if self._emptied:
            self._emptied = False
            self.drop()
        self.slow(0.0)
        self.thaw()
        self.up()

    @property
    def frozen(self) -> bool:
        return not self._thawed.is_set()

    @property
    def events_posted(self) -> int:
        """How many times clients have sent events or diagnostics."""
        return self._events_posted

    def wait_streams(self, opened: int, timeout: float) -> bool:
        """Wait until so many streams were begun since the start; False where they were not in `timeout` seconds."""
        with self._state:
            return self._state.wait_for(lambda: self._streams_opened >= opened, timeout)

    def _publish(self, messages: Iterable[_Message]) -> None:
        for message in messages:
            for stream in self._streams:
                stream.put(time.monotonic() + self._latency, message)

    def _respond(self, connection: socket, request: HttpRequest) -> None:
        self._stopping.wait(self._latency)
        if self._refusal is not None:
            answer(connection, self._refusal)
        elif self._html:
            answer(connection, 200, HTML, **{"Content-Type": "text/html"})
        elif request.headers.get("Authorization", "").strip().startswith(_REFUSED_KEYS):
            answer(connection, 401)
        elif request[:2] in _STREAMS:
            self._serve_stream(connection, _STREAMS[request[:2]])
        elif request[:2] in _WHOLES:
            self._serve_whole(connection, request)
        elif request.method == "POST" and request.path in _EVENT_PATHS:
            self._events_posted += 1
            answer(connection, 202)
        else:
            answer(connection, 404)

    def _serve_stream(self, connection: socket, encode: Callable[[Change], bytes]) -> None:
        stream = self._open_stream(encode)
        try:
            connection.sendall(STREAM_HEAD)
            while (message := self._next(stream)) is not None:
                if message == _CUT:
                    return
                connection.sendall(chunk(encode(message) if isinstance(message, Change) else message))
            connection.sendall(STREAM_END)
        finally:
            with self._state:
                self._streams.discard(stream)

    def _open_stream(self, encode: Callable[[Change], bytes]) -> _EventStream:
        """Everything as of now and every change after it, none lost and none twice."""
        stream = _EventStream(encode)
        with self._state:
            stream.put(0.0, self._content.put() if encode is fdv1 else self._content.transfer())
            self._streams.add(stream)
            self._streams_opened += 1
            self._state.notify_all()
        return stream

    def _next(self, stream: _EventStream) -> _Message:
        due: float
        message: _Message
        try:
            due, message = stream.waiting.get(timeout=self._keep_alive)
        except Empty:
            due, message = 0.0, KEEP_ALIVE
        self._stopping.wait(due - time.monotonic())
        self._thawed.wait()
        return message

    def _serve_whole(self, connection: socket, request: HttpRequest) -> None:
        with self._state:
            body = self._content.whole() if request.path == "/sdk/latest-all" else self._content.polled()
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        if request.headers.get("If-None-Match") == etag:
            answer(connection, 304, ETag=etag)
        else:
            answer(connection, 200, body, ETag=etag)


def serve_file(
    path: Path,
    report: Callable[[str | None], object],
    *,
    port: int = 0,
    first_version: int = 1,
    poll: float = POLL_SECONDS,
    lease: Lease | None = None,
) -> Relay:
    """A relay of what LaunchDarkly's decoder takes from a flag file now and later; TornError where it is torn now.

    Later a torn file leaves the last good flags in force. `report` gets what is wrong, and None when all is good again.
    Each whole file renews `lease`.
    """
    followed = _Followed(path, lease)
    first = followed.take(followed.look())
    relay = Relay(first.flags, first.segments, port=port, first_version=first_version)
    if first.refused:
        report(_said(first))

    def look_again() -> None:
        if (seen := followed.look()) == followed.seen:
            followed.renew()
            return
        try:
            taken = followed.take(seen)
            relay.replace(taken.flags, taken.segments)
        except Exception as error:  # noqa: BLE001 - whatever is the matter with this file, the next one must be served
            report(str(error) or type(error).__name__)
        else:
            report(_said(taken))

    relay.every("relay.file", poll, look_again)
    return relay


def _said(taken: Taken) -> str | None:
    return "\n".join(lines_of(taken.mistakes)) or None


class _Followed:
    """A file that is looked at again and again, what was seen of it last, and the lease of what follows it."""

    def __init__(self, path: Path, lease: Lease | None) -> None:
        self.seen: bytes | str | None = None
        self._path, self._lease = path, lease
        self._is_whole = False
        self._began = 0.0

    def look(self) -> bytes | str:
        self._began = self._lease.clock() if self._lease is not None else 0.0
        return look(self._path)

    def take(self, seen: bytes | str) -> Taken:
        """What decodes of it; TornError where it is torn."""
        self.seen, self._is_whole = seen, False
        taken = taken_from(self._path, seen)
        self._is_whole = True
        self.renew()
        return taken

    def renew(self) -> None:
        if self._is_whole and self._lease is not None:
            self._lease.renew(self._began)


def beat(relay: Relay, every: float | None, lease: Lease | None = None) -> None:
    """Let the relay change the heartbeat flag now and every so many seconds, unless frozen; None: no more.

    With a lease it beats only while that is open: what it serves may be old otherwise.
    """
    beats = 0

    def change() -> None:
        nonlocal beats
        if not relay.frozen and (lease is None or lease.open()):
            beats += 1
            relay.set(heartbeat_flag(beats))

    if every is not None:
        change()
    relay.every("relay.beat", every, change)


class _Repeat:
    """Does one thing every so many seconds, on a thread of its own, until stopped."""

    def __init__(self, name: str, seconds: float, act: Callable[[], object], wait: Wait) -> None:
        self._stopped = Event()
        self._thread = Thread(target=self._run, args=(seconds, act, wait), name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self, seconds: float, act: Callable[[], object], wait: Wait) -> None:
        while not wait(self._stopped, seconds):
            act()
