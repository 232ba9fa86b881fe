"""What a relay lives through, and the protocols and clients that it serves."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from ldclient import Config, Context, LDClient
from ldclient.config import HTTPConfig
from ldclient.datasystem import streaming

import flags.relay_http
from flags.context import SandboxAttributes
from flags.inline import flag_from
from flags.relay import Relay
from flags.streaming import LaunchDarklyFlags

PUNCH = "memfd-punch-on-snapshot"
WEB = SandboxAttributes(sandbox="web-0", template="python", team="acme")
DEADLINE = 20.0
ON, OFF = flag_from(PUNCH, True), flag_from(PUNCH, False)


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay({PUNCH: ON}) as serving:
        yield serving


@pytest.fixture
def client(relay: Relay) -> Iterator[LaunchDarklyFlags]:
    with closing(LaunchDarklyFlags("sdk-test", stream_uri=relay.uri, initial_reconnect_delay=0.01)) as made:
        assert made.wait_ready(DEADLINE)
        yield made


def port_of(relay: Relay) -> int:
    return int(relay.uri.rpartition(":")[2])


def fetched(relay: Relay, path: str = "/sdk/latest-all", **headers: str) -> Any:
    request = urllib.request.Request(relay.uri + path, headers=headers)  # noqa: S310 - our own relay
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=DEADLINE) as answer:
        return json.loads(answer.read())


def answered(relay: Relay, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port_of(relay)), DEADLINE) as connection:
        connection.sendall(request)
        return connection.recv(64)


@pytest.mark.parametrize(
    ("length", "status"),
    [(b"x", b"400"), (b"-1", b"400"), (b"99999999999", b"413"), (b"1" * 5000, b"413"), (b"", b"400")],
)
def test_a_wrong_content_length_is_answered_and_serving_goes_on(relay: Relay, length: bytes, status: bytes) -> None:
    assert status in answered(relay, b"POST /bulk HTTP/1.1\r\nContent-Length: " + length + b"\r\n\r\n")
    assert PUNCH in fetched(relay)["flags"]


@pytest.mark.parametrize(
    "part", [b"", b"GET", b"GET /all HTTP/1.1\r\n", b"POST /bulk HTTP/1.1\r\nContent-Length: 9\r\n\r\nx"]
)
def test_half_a_request_is_given_up(relay: Relay, part: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flags.relay_http, "_READ_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", port_of(relay)), DEADLINE) as connection:
        connection.sendall(part)
        assert connection.recv(64) == b""
    assert PUNCH in fetched(relay)["flags"]


def test_more_connections_than_may_be_are_closed_and_the_others_served(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flags.relay_http, "_MOST_CONNECTIONS", 5)
    held = [socket.create_connection(("127.0.0.1", port_of(relay)), DEADLINE) for _ in range(5)]
    with socket.create_connection(("127.0.0.1", port_of(relay)), DEADLINE) as one_more, suppress(ConnectionError):
        one_more.sendall(b"GET /sdk/latest-all HTTP/1.1\r\n\r\n")
        assert one_more.recv(64) == b""
    for each in held:
        each.close()


FEW_DESCRIPTORS = """
import resource, sys, threading
from flags.inline import flag_from
from flags.relay import Relay
resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
with Relay({"use-memfd": flag_from("use-memfd", True)}) as relay:
    print(relay.uri, flush=True)
    sys.stdin.read()
"""


def test_it_survives_that_no_file_descriptor_is_left() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FEW_DESCRIPTORS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline().rpartition(":")[2])
        held = [socket.create_connection(("127.0.0.1", port), DEADLINE) for _ in range(40)]
        for each in held:
            each.close()
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as connection:
            connection.sendall(b"GET /sdk/latest-all HTTP/1.1\r\n\r\n")
            assert connection.recv(64).startswith(b"HTTP/1.1 200")
        server.communicate("", timeout=DEADLINE)


@pytest.mark.parametrize("key", ["mob-0123", "api-0123"])
def test_a_key_that_is_no_server_sdks_is_refused(relay: Relay, key: str) -> None:
    with pytest.raises(HTTPError) as refused:
        fetched(relay, Authorization=key)
    assert refused.value.code == 401
    assert PUNCH in fetched(relay, Authorization="sdk-0123")["flags"]


def test_after_a_stream_is_cut_in_the_middle_of_an_event_off_is_obeyed(client: LaunchDarklyFlags, relay: Relay) -> None:
    relay.cut()
    relay.set(OFF)
    assert client.wait_until(lambda: not client.decide(WEB).is_on(PUNCH), DEADLINE)
    assert relay.wait_streams(2, DEADLINE)


def test_an_empty_put_is_off_until_it_is_recovered_from(client: LaunchDarklyFlags, relay: Relay) -> None:
    relay.empty()
    assert client.wait_until(lambda: not client.decide(WEB).is_on(PUNCH), DEADLINE)
    relay.recover()
    assert client.wait_until(lambda: client.decide(WEB).is_on(PUNCH), DEADLINE)


def test_a_page_in_place_of_a_stream_is_an_outage_and_off_is_obeyed_after_it(
    client: LaunchDarklyFlags, relay: Relay
) -> None:
    relay.html()
    assert client.wait_until(lambda: client.status().state == "INTERRUPTED", DEADLINE)
    assert client.decide(WEB).is_on(PUNCH)
    relay.set(OFF)
    relay.recover()
    assert client.wait_until(lambda: not client.decide(WEB).is_on(PUNCH), DEADLINE)


def test_a_client_that_does_not_read_holds_up_nobody(client: LaunchDarklyFlags, relay: Relay) -> None:
    with socket.create_connection(("127.0.0.1", port_of(relay)), DEADLINE) as lazy:
        lazy.sendall(b"GET /all HTTP/1.1\r\n\r\n")
        assert relay.wait_streams(2, DEADLINE)
        padded = {**ON, "rules": [], "note": "x" * 20_000}
        for number in range(400):
            relay.set({**padded, "salt": str(number)})
        version = relay.set(OFF)
        assert client.wait_until(lambda: client.version(PUNCH) == version, DEADLINE)


def punches(client: LDClient) -> bool:
    return client.variation(PUNCH, Context.builder("web-0").kind("sandbox").build(), False) is True


def test_fdv2_is_served_beside_fdv1(relay: Relay) -> None:
    system = streaming()
    config = Config(
        "sdk-test",
        datasystem_config=system.build(),
        stream_uri=relay.uri,
        base_uri=relay.uri,
        events_uri=relay.uri,
        send_events=False,
        diagnostic_opt_out=True,
        http=HTTPConfig(connect_timeout=DEADLINE),
    )
    with closing(LDClient(config, start_wait=DEADLINE)) as client:
        assert punches(client)
        turned, changed = threading.Event(), client.flag_tracker
        changed.add_listener(lambda _: turned.set())
        relay.set(OFF)
        assert turned.wait(DEADLINE)
        assert not punches(client)
        turned.clear()
        relay.set(ON)
        assert turned.wait(DEADLINE)
        turned.clear()
        relay.delete(PUNCH)
        assert turned.wait(DEADLINE)
        assert not punches(client)


def test_a_hundred_clients_at_once_obey_off(relay: Relay) -> None:
    configs = [
        Config("sdk-test", stream_uri=relay.uri, base_uri=relay.uri, events_uri=relay.uri, send_events=False,
               diagnostic_opt_out=True)
        for _ in range(100)
    ]  # fmt: skip
    clients = [LDClient(each, start_wait=0) for each in configs]
    try:
        assert relay.wait_streams(100, 60)
        until(lambda: all(map(punches, clients)))
        relay.set(OFF)
        until(lambda: not any(map(punches, clients)))
    finally:
        for each in clients:
            each.close()  # type: ignore[no-untyped-call]


def until(holds: Any) -> None:
    for _ in range(6_000):
        if holds():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come")


NODE = """
const LaunchDarkly = require("@launchdarkly/node-server-sdk");
const uri = process.argv[1];
const options = {streamUri: uri, baseUri: uri, eventsUri: uri, sendEvents: false, diagnosticOptOut: true};
const client = LaunchDarkly.init("sdk-test", {...options, logger: LaunchDarkly.basicLogger({level: "none"})});
const web = {kind: "sandbox", key: "web-0"};
const punch = () => client.variation("memfd-punch-on-snapshot", web, false);
client.waitForInitialization({timeout: 20}).then(async () => {
  console.log(await punch());
  client.on("update", async () => { console.log(await punch()); client.close(); process.exit(0); });
  console.log("ready");
});
"""


def node_modules() -> Path | None:
    """Where the Node SDK is installed: outside the repository, in NODE_PATH or a folder above."""
    if shutil.which("node") is None:
        return None
    places = [Path(each) for each in os.environ.get("NODE_PATH", "").split(":") if each]
    places += [each / "node_modules" for each in Path(__file__).resolve().parents]
    return next((each for each in places if (each / "@launchdarkly" / "node-server-sdk").is_dir()), None)


@pytest.mark.skipif(node_modules() is None, reason="no @launchdarkly/node-server-sdk in NODE_PATH or a folder above")
def test_the_node_sdk_obeys_the_kill_switch(relay: Relay) -> None:
    modules = node_modules()
    assert modules is not None
    command = ["node", "-e", NODE, relay.uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=modules.parent) as node:
        assert node.stdout is not None
        assert [node.stdout.readline().strip() for _ in range(2)] == ["true", "ready"]
        relay.set(OFF)
        assert node.stdout.readline().strip() == "false"
