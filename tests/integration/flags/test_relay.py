from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from engine.errors import UserError
from flags.inline import flag_from
from flags.lease import HEARTBEAT
from flags.relay import Relay, beat, serve_file
from tests.descriptors import open_before

PUNCH = "memfd-punch-on-snapshot"
ON, OFF = flag_from(PUNCH, True), flag_from(PUNCH, False)
DEADLINE = 10.0
SILENCE = 0.05  # long enough for loopback to deliver what was sent


class Time:
    """Time that passes only when told: each step lets every waiter's interval end once."""

    def __init__(self) -> None:
        self._steps = threading.Semaphore(0)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        while not self._steps.acquire(timeout=0.01):
            if event.is_set():
                return True
        return event.is_set()

    def step(self) -> None:
        self._steps.release()


class Stream:
    """A client of the stream that reads it as it comes."""

    def __init__(self, relay: Relay) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port_of(relay), timeout=DEADLINE)
        self._connection.connect()
        self._socket = self._connection.sock
        self._connection.request("GET", "/all", headers={"Authorization": "sdk-test"})
        self.answer = self._connection.getresponse()

    def line(self) -> str:
        return self.answer.readline().decode().rstrip("\n")

    def event(self) -> str:
        """The next event's name."""
        while not (line := self.line()).startswith("event: "):
            assert not self.answer.isclosed()
        return line.removeprefix("event: ")

    def silent(self) -> bool:
        """True where nothing comes, not even the end."""
        self._socket.settimeout(SILENCE)
        try:
            self.answer.readline()
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self.answer.close()
        self._connection.close()


def port_of(relay: Relay) -> int:
    return int(relay.uri.rpartition(":")[2])


def relay_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("relay.")]


def ask(
    relay: Relay, path: str, method: str = "GET", body: bytes = b"", etag: str | None = None
) -> tuple[int, bytes, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(relay), timeout=DEADLINE)
    connection.request(method, path, body, {"If-None-Match": etag} if etag else {})
    answer = connection.getresponse()
    found = answer.status, answer.read(), answer.headers.get("ETag")
    connection.close()
    return found


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay({PUNCH: ON}) as serving:
        yield serving


@pytest.fixture
def stream(relay: Relay) -> Iterator[Stream]:
    """Has read the put."""
    opened = Stream(relay)
    assert opened.event() == "put"
    assert opened.line().startswith("data: ")
    assert opened.line() == ""
    yield opened
    opened.close()


def test_the_stream_is_one_the_sdk_takes(relay: Relay) -> None:
    stream = Stream(relay)
    assert stream.answer.status == 200
    assert stream.answer.headers["Content-Type"].startswith("text/event-stream")
    assert stream.answer.headers["Transfer-Encoding"] == "chunked"
    stream.close()


def test_polling_gets_everything_and_nothing_twice(relay: Relay) -> None:
    status, body, etag = ask(relay, "/sdk/latest-all")
    assert (status, json.loads(body)) == (200, {"flags": {PUNCH: {**ON, "version": 1}}, "segments": {}})
    assert etag is not None
    assert ask(relay, "/sdk/latest-all", etag=etag)[:2] == (304, b"")
    relay.set(OFF)
    assert ask(relay, "/sdk/latest-all", etag=etag)[0] == 200


def test_events_are_taken_and_counted_and_other_paths_are_not_found(relay: Relay) -> None:
    assert ask(relay, "/bulk", "POST", b"[]")[0] == 202
    assert ask(relay, "/diagnostic", "POST", b"{}")[0] == 202
    assert relay.events_posted == 2
    assert ask(relay, "/flags")[0] == 404


@pytest.mark.parametrize(
    "request_text", [b"\r\n", b"nonsense\r\n\r\n", b"GET /all HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
)
def test_what_is_no_request_is_answered_so_or_hung_up_on(relay: Relay, request_text: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port_of(relay)), DEADLINE) as connection:
        connection.sendall(request_text)
        assert connection.recv(12) in {b"", b"HTTP/1.1 400"}
    assert ask(relay, "/sdk/latest-all")[0] == 200


def test_only_loopback_is_listened_on(relay: Relay) -> None:
    port = f"{port_of(relay):04X}"
    listening = [
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    ]
    assert [address for address in listening if address.endswith(f":{port}")] == [f"0100007F:{port}"]


def test_a_port_that_is_taken_is_told(relay: Relay) -> None:
    with pytest.raises(UserError, match=r"cannot serve on 127.0.0.1:\d+: .*in use; choose another port"):
        Relay({}, port=port_of(relay))


def test_down_refuses_connections_and_up_serves_the_same_port_again(relay: Relay, stream: Stream) -> None:
    relay.down()
    with pytest.raises(ConnectionRefusedError):
        ask(relay, "/sdk/latest-all")
    with pytest.raises(http.client.IncompleteRead):
        stream.answer.read()
    relay.up()
    assert ask(relay, "/sdk/latest-all")[0] == 200


def test_down_and_up_may_be_told_twice(relay: Relay) -> None:
    relay.down()
    relay.down()
    relay.up()
    relay.up()
    assert ask(relay, "/sdk/latest-all")[0] == 200


def test_a_drop_ends_the_stream_properly(relay: Relay, stream: Stream) -> None:
    relay.drop()
    assert stream.answer.read() == b""


def test_a_malformed_patch_is_sent_as_it_is(relay: Relay, stream: Stream) -> None:
    relay.malformed()
    assert stream.event() == "patch"
    with pytest.raises(json.JSONDecodeError):
        json.loads(stream.line().removeprefix("data: "))


@pytest.mark.parametrize("status", [401, 503])
def test_a_refusal_ends_the_streams_and_answers_everything_with_its_status(
    relay: Relay, stream: Stream, status: int
) -> None:
    relay.refuse(status)
    assert stream.answer.read() == b""
    assert ask(relay, "/all")[0] == ask(relay, "/sdk/latest-all")[0] == status
    relay.refuse(None)
    assert ask(relay, "/sdk/latest-all")[0] == 200


def test_frozen_nothing_is_sent_and_the_connection_stays(relay: Relay, stream: Stream) -> None:
    relay.freeze()
    relay.set(OFF)
    relay.drop()
    assert stream.silent()


def test_frozen_nobody_new_is_answered_and_thawed_everybody_is(relay: Relay) -> None:
    relay.freeze()
    status: SimpleQueue[int] = SimpleQueue()
    asking = [threading.Thread(target=lambda: status.put(ask(relay, "/sdk/latest-all")[0])) for _ in range(3)]
    for each in asking:
        each.start()
    asking[0].join(SILENCE)
    assert status.empty()
    relay.thaw()
    assert [status.get(timeout=DEADLINE) for _ in asking] == [200, 200, 200]
    for each in asking:
        each.join()


def test_thawed_what_was_held_back_is_sent(relay: Relay, stream: Stream) -> None:
    relay.freeze()
    relay.set(OFF)
    relay.thaw()
    assert stream.event() == "patch"


def test_a_death_while_frozen_lets_nothing_out(relay: Relay, stream: Stream) -> None:
    relay.freeze()
    relay.set(OFF)
    relay.down()
    with pytest.raises(http.client.IncompleteRead) as cut:
        stream.answer.read()
    assert cut.value.partial == b""


def test_slow_delays_each_answer_and_each_event_but_not_one_by_the_other(relay: Relay, stream: Stream) -> None:
    relay.slow(0.2)
    began = time.monotonic()
    for flag in (OFF, ON, OFF, ON, OFF):
        relay.set(flag)
    assert [stream.event() for _ in range(5)] == ["patch"] * 5
    assert 0.2 <= time.monotonic() - began < 0.9
    began = time.monotonic()
    assert ask(relay, "/sdk/latest-all")[0] == 200
    assert time.monotonic() - began >= 0.2


def test_a_silent_stream_sends_comments() -> None:
    with Relay({}, keep_alive=0.01) as relay:
        stream = Stream(relay)
        assert stream.event() == "put"
        assert stream.line().startswith("data: ")
        assert [stream.line() for _ in range(3)] == ["", ":", ":"]
        stream.close()


def test_flapping_drops_the_streams_whenever_its_time_has_come() -> None:
    clock = Time()
    with Relay({}, wait=clock.wait) as relay:
        relay.flap(60.0)
        for _ in range(2):
            stream = Stream(relay)
            assert stream.event() == "put"
            clock.step()
            assert b"put" not in stream.answer.read()  # to its end
            stream.close()
        relay.flap(None)


def test_the_heartbeat_changes_whenever_its_time_has_come_unless_frozen() -> None:
    clock = Time()
    with Relay({}, wait=clock.wait) as relay:
        beat(relay, 0.5)
        stream = Stream(relay)
        assert stream.event() == "put"
        assert HEARTBEAT in stream.line()
        for version in (2, 3):
            clock.step()
            assert stream.event() == "patch"
            assert json.loads(stream.line().removeprefix("data: "))["data"]["version"] == version
        relay.freeze()
        clock.step()
        beat(relay, None)  # its thread has ended: the step was used up
        relay.thaw()
        relay.malformed()
        stream.event()
        assert HEARTBEAT not in stream.line()
        stream.close()


def test_recovering_ends_every_fault(relay: Relay) -> None:
    relay.flap(60.0)
    relay.refuse(503)
    relay.slow(3600.0)
    relay.freeze()
    relay.down()
    relay.recover()
    assert ask(relay, "/sdk/latest-all")[0] == 200


def test_stopping_leaves_no_thread_and_no_descriptor_whatever_goes_on() -> None:
    descriptors = open_before()
    relay = Relay({PUNCH: ON})
    beat(relay, 0.01)
    relay.flap(60.0)
    streams = [Stream(relay) for _ in range(3)]
    idle = socket.create_connection(("127.0.0.1", port_of(relay)))
    relay.slow(3600.0)
    relay.set(OFF)
    relay.freeze()
    waiting = socket.create_connection(("127.0.0.1", port_of(relay)))
    relay.stop()
    relay.stop()
    for stream in streams:
        stream.close()
    idle.close()
    waiting.close()
    assert relay_threads() == []
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_a_relay_of_a_file_serves_what_the_file_says_and_says_later(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    path.write_text(json.dumps({"flags": {PUNCH: ON}}))
    told: SimpleQueue[str | None] = SimpleQueue()
    with serve_file(path, told.put, poll=0.005) as relay:
        stream = Stream(relay)
        assert stream.event() == "put"
        path.with_suffix(".new").write_text(json.dumps({"flags": {PUNCH: OFF}}))
        path.with_suffix(".new").replace(path)
        assert stream.event() == "patch"
        assert told.get(timeout=DEADLINE) is None
        path.write_text(json.dumps({"flags": {}}))
        assert stream.event() == "delete"
        stream.close()


def test_a_file_gone_bad_leaves_the_last_good_flags_in_force_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    path.write_text(json.dumps({"flags": {PUNCH: ON}}))
    told: SimpleQueue[str | None] = SimpleQueue()
    with serve_file(path, told.put, poll=0.005) as relay:
        path.write_text('{"flags": {')
        assert "not JSON" in (told.get(timeout=DEADLINE) or "")
        assert PUNCH in json.loads(ask(relay, "/sdk/latest-all")[1])["flags"]
        path.unlink()
        while "No such file" not in (told.get(timeout=DEADLINE) or ""):
            pass


def test_a_file_that_is_bad_at_start_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        serve_file(tmp_path / "none.json", print)
    assert relay_threads() == []
