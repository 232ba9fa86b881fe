from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from queue import SimpleQueue

import pytest

import flags.launchdarkly
from flags.catalog import CATALOG
from flags.client import SDK_KEY, FlagClient, FlagClientMisusedError
from flags.context import SandboxAttributes
from flags.inline import Rollout, flag_from
from flags.memory import MemoryFlags
from flags.relay import Relay
from flags.streaming import LaunchDarklyFlags

PUNCH = "memfd-punch-on-snapshot"
ON, OFF = flag_from(PUNCH, True), flag_from(PUNCH, False)
WEB = SandboxAttributes(sandbox="web-0", template="python", team="acme")
DEADLINE = 10.0
SECRET = "sdk-0123456789-secret"


@pytest.fixture(autouse=True)
def no_thread_outlives_its_test() -> Iterator[None]:
    yield
    for each in threading.enumerate():
        if each.name == "ldclient.datasource.streaming":
            each.join(DEADLINE)


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay({PUNCH: ON}) as serving:
        yield serving


@pytest.fixture
def client(relay: Relay) -> Iterator[LaunchDarklyFlags]:
    """Connected, and ready."""
    with closing(LaunchDarklyFlags(SECRET, stream_uri=relay.uri, initial_reconnect_delay=0.02)) as connected:
        assert connected.wait_ready(DEADLINE)
        yield connected


@pytest.fixture
def unanswered() -> Iterator[str]:
    """An address that takes connections and answers nobody."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def punches(client: FlagClient) -> bool:
    return client.decide(WEB).is_on(PUNCH)


def test_launchdarkly_flags_are_a_flag_client(client: LaunchDarklyFlags) -> None:
    source: FlagClient = client
    assert (source.status().state, source.status().error) == ("VALID", None)


def test_what_the_stream_puts_is_decided_with_its_version(client: LaunchDarklyFlags) -> None:
    found = client.decide(WEB).evaluation(PUNCH)
    assert (found.value, found.reason, found.version, found.source_state) == (True, "FALLTHROUGH", 1, "VALID")


def test_a_patch_reaches_subscribers_and_decisions(client: LaunchDarklyFlags, relay: Relay) -> None:
    told: SimpleQueue[tuple[str, bool]] = SimpleQueue()
    client.subscribe(lambda key: told.put((key, punches(client))))
    version = relay.set(OFF)
    assert told.get(timeout=DEADLINE) == (PUNCH, False)
    assert client.decide(WEB).evaluation(PUNCH).version == version == 2


def test_a_deleted_flag_serves_its_safe_value_and_comes_back(client: LaunchDarklyFlags, relay: Relay) -> None:
    relay.delete(PUNCH)
    assert client.wait_until(lambda: not punches(client), DEADLINE)
    assert client.decide(WEB).evaluation(PUNCH).reason == "ERROR:FLAG_NOT_FOUND"
    relay.set(ON)
    assert client.wait_until(lambda: punches(client), DEADLINE)


def test_a_flag_and_its_segment_that_come_together_are_obeyed(client: LaunchDarklyFlags, relay: Relay) -> None:
    clause = {"attribute": "", "op": "segmentMatch", "values": ["kept"]}
    segment = {"key": "kept", "includedContexts": [{"contextKind": "sandbox", "values": [WEB.sandbox]}]}
    relay.replace({PUNCH: {**ON, "rules": [{"variation": 0, "clauses": [clause]}]}}, {"kept": segment})
    assert client.wait_until(lambda: client.decide(WEB).evaluation(PUNCH).reason == "RULE_MATCH", DEADLINE)
    assert punches(client) is False


def test_stream_and_memory_agree_on_every_sandbox(client: LaunchDarklyFlags, relay: Relay) -> None:
    rollout = flag_from(PUNCH, Rollout(50, "sandbox"))
    version = relay.set(rollout)
    assert client.wait_until(lambda: client.version(PUNCH) == version, DEADLINE)
    inline = MemoryFlags({PUNCH: rollout})
    everybody = [SandboxAttributes(sandbox=f"web-{number}", template="python", team="acme") for number in range(200)]
    served = [client.decide(each).value(PUNCH) for each in everybody]
    assert served == [inline.decide(each).value(PUNCH) for each in everybody]
    assert set(served) == {True, False}


def test_the_key_of_the_environment_is_used(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SDK_KEY, SECRET)
    with closing(LaunchDarklyFlags(stream_uri=relay.uri)) as client:
        assert client.wait_ready(DEADLINE)


def test_before_the_first_flags_every_decision_is_the_safe_one(unanswered: str) -> None:
    with closing(LaunchDarklyFlags(SECRET, stream_uri=unanswered)) as client:
        found = client.decide(WEB).evaluations
    assert [each.value for each in found] == [flag.safe for flag in CATALOG]
    assert {(each.reason, each.source_state) for each in found} == {("ERROR:CLIENT_NOT_READY", "INITIALIZING")}


def test_neither_making_a_client_nor_waiting_nor_closing_hangs_on_a_service_that_is_silent(unanswered: str) -> None:
    began = time.monotonic()
    client = LaunchDarklyFlags(SECRET, stream_uri=unanswered)
    assert client.wait_ready(0.05) is False
    client.close()
    assert time.monotonic() - began < flags.launchdarkly.CLOSE_SECONDS
    assert client.status().state == "OFF"


def test_closing_twice_is_harmless_and_leaves_no_thread(relay: Relay) -> None:
    client = LaunchDarklyFlags(SECRET, stream_uri=relay.uri)
    assert client.wait_ready(DEADLINE)
    (reader,) = (each for each in threading.enumerate() if each.name == "ldclient.datasource.streaming")
    client.close()
    client.close()
    reader.join(DEADLINE)
    assert not reader.is_alive()


def test_nothing_is_sent_back(client: LaunchDarklyFlags, relay: Relay) -> None:
    client.decide(WEB)
    client.close()
    assert relay.events_posted == 0


def test_the_key_is_in_no_log_and_no_text(relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with closing(LaunchDarklyFlags(SECRET, stream_uri=relay.uri, initial_reconnect_delay=0.02)) as client:
        assert client.wait_ready(DEADLINE)
        relay.refuse(401)
        assert client.wait_until(lambda: client.status().error is not None, DEADLINE)
        told = [repr(client), str(client.status()), repr(client.decide(WEB))]
    told.append(caplog.text)
    assert "Starting StreamingUpdateProcessor" in caplog.text
    assert [text for text in told if SECRET in text] == []


def test_a_second_client_in_one_process_is_refused_until_the_first_is_closed(
    client: LaunchDarklyFlags, relay: Relay
) -> None:
    with pytest.raises(FlagClientMisusedError, match="close that one first"):
        LaunchDarklyFlags(SECRET, stream_uri=relay.uri)
    client.close()
    LaunchDarklyFlags(SECRET, stream_uri=relay.uri).close()


def test_a_client_that_a_fork_has_copied_decides_nothing(
    client: LaunchDarklyFlags, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would serve its copy for ever, with status VALID, and never hear of a kill switch."""
    with monkeypatch.context() as in_a_child:
        in_a_child.setattr(os, "getpid", lambda: -1)
        with pytest.raises(FlagClientMisusedError, match="made before a fork"):
            client.decide(WEB)
        assert client.status().state == "OFF"
        LaunchDarklyFlags(SECRET, stream_uri=relay.uri).close()  # the child's own
    assert punches(client) is True


def test_a_proxy_in_the_environment_is_not_asked_for_a_loopback_stream(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK would send even this through it, and never get ready."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "example.org")
    with closing(LaunchDarklyFlags(SECRET, stream_uri=relay.uri)) as client:
        assert client.wait_ready(DEADLINE)
    assert os.environ["no_proxy"] == "example.org,127.0.0.1"


def test_a_proxy_is_honoured_for_any_other_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(DEADLINE)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with closing(LaunchDarklyFlags(SECRET, stream_uri="http://flags.invalid")):
            connection, _ = proxy.accept()
            with connection:
                assert connection.recv(100).startswith(b"GET http://flags.invalid/all HTTP/1.1")


def test_waiting_for_what_does_not_come_ends_in_time(client: LaunchDarklyFlags) -> None:
    began = time.monotonic()
    assert client.wait_until(lambda: False, 0.05) is False
    assert 0.05 <= time.monotonic() - began < DEADLINE
