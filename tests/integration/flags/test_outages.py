from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from flags.client import FlagClient
from flags.context import SandboxAttributes
from flags.inline import flag_from
from flags.lease import LEASE_EXPIRED, Lease, LeasedFlags
from flags.propagation import Way, kill_switch_times
from flags.relay import Relay, beat
from flags.streaming import LaunchDarklyFlags

PUNCH = "memfd-punch-on-snapshot"
ON, OFF = flag_from(PUNCH, True), flag_from(PUNCH, False)
WEB = SandboxAttributes(sandbox="web-0", template="python", team="acme")
DEADLINE = 10.0
LEASE = 0.3
BEAT = 0.05


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
    """Connected, punching, and quick to connect again."""
    with closing(connect(relay)) as connected:
        assert connected.wait_ready(DEADLINE)
        assert punches(connected)
        yield connected


def connect(relay: Relay) -> LaunchDarklyFlags:
    return LaunchDarklyFlags("sdk-test", stream_uri=relay.uri, initial_reconnect_delay=0.02)


def punches(client: FlagClient) -> bool:
    return client.decide(WEB).is_on(PUNCH)


def becomes(client: LaunchDarklyFlags, state: str, error: str = "") -> bool:
    def is_there() -> bool:
        status = client.status()
        return status.state == state and error in (status.error or "")

    return client.wait_until(is_there, DEADLINE)


def passes(holds: Callable[[], bool], within: float) -> bool:
    """What only time changes is asked every few milliseconds, until the deadline."""
    waiting = threading.Event()
    for _ in range(int(within / 0.005)):
        if holds():
            return True
        waiting.wait(0.005)
    return holds()


def test_a_dropped_stream_is_opened_again_and_what_changed_meanwhile_is_obeyed(
    client: LaunchDarklyFlags, relay: Relay
) -> None:
    relay.down()
    assert becomes(client, "INTERRUPTED")
    relay.set(OFF)
    assert punches(client) is True  # the last good flags stay in force
    assert client.decide(WEB).evaluation(PUNCH).source_state == "INTERRUPTED"
    relay.up()
    assert becomes(client, "VALID")
    assert punches(client) is False
    assert client.status().error is None


def test_a_stream_that_ends_properly_is_opened_again(client: LaunchDarklyFlags, relay: Relay) -> None:
    relay.drop()
    assert relay.wait_streams(2, DEADLINE)
    assert becomes(client, "VALID")


def test_a_change_during_a_drop_is_told_to_subscribers_when_the_stream_is_back(
    client: LaunchDarklyFlags, relay: Relay
) -> None:
    told = threading.Event()
    client.subscribe(lambda key: told.set() if key == PUNCH else None)
    relay.down()
    relay.set(OFF)
    relay.up()
    assert told.wait(DEADLINE)


def test_a_malformed_patch_keeps_the_last_good_flags_and_is_recovered_from(
    client: LaunchDarklyFlags, relay: Relay
) -> None:
    relay.malformed()
    assert becomes(client, "INTERRUPTED")
    assert punches(client) is True
    assert becomes(client, "VALID")
    relay.set(OFF)
    assert client.wait_until(lambda: not punches(client), DEADLINE)


def test_a_service_that_answers_503_is_waited_for(client: LaunchDarklyFlags, relay: Relay) -> None:
    relay.refuse(503)
    assert becomes(client, "INTERRUPTED", "HTTP 503 from LaunchDarkly")
    assert punches(client) is True
    relay.refuse(None)
    assert becomes(client, "VALID")


def test_a_refused_key_leaves_the_safe_values_and_says_what_to_do(relay: Relay) -> None:
    relay.refuse(401)
    with closing(connect(relay)) as client:
        assert becomes(client, "INITIALIZING", "refused the SDK key (HTTP 401); correct the key and start again")
        assert client.decide(WEB).evaluation(PUNCH).reason == "ERROR:CLIENT_NOT_READY"
        assert punches(client) is False


def test_a_service_down_at_start_means_safe_values_until_it_is_up(relay: Relay) -> None:
    relay.down()
    with closing(connect(relay)) as client:
        assert becomes(client, "INITIALIZING", "refused")
        assert punches(client) is False
        relay.up()
        assert client.wait_ready(DEADLINE)
        assert punches(client) is True


def test_a_slow_service_is_late_and_obeyed(client: LaunchDarklyFlags, relay: Relay) -> None:
    relay.slow(0.1)
    relay.set(OFF)
    assert punches(client) is True
    assert client.wait_until(lambda: not punches(client), DEADLINE)


def test_half_open_the_sdk_says_valid_and_goes_on_punching(client: LaunchDarklyFlags, relay: Relay) -> None:
    """For 300 s, its read timeout; here only for longer than a lease would take to close."""
    relay.freeze()
    relay.set(OFF)
    assert client.wait_until(lambda: not punches(client), 2 * LEASE) is False
    assert client.status().state == client.decide(WEB).evaluation(PUNCH).source_state == "VALID"
    relay.thaw()
    assert client.wait_until(lambda: not punches(client), DEADLINE)


def test_half_open_a_lease_ends_the_punching_and_a_thaw_lets_it_go_on(client: LaunchDarklyFlags, relay: Relay) -> None:
    lease = Lease(LEASE)
    leased = LeasedFlags(client, lease)
    assert punches(leased) is False
    beat(relay, BEAT)
    assert client.wait_until(lambda: punches(leased), DEADLINE)
    relay.freeze()
    assert passes(lambda: not punches(leased), DEADLINE)
    assert leased.decide(WEB).evaluation(PUNCH).reason == LEASE_EXPIRED
    assert (leased.status().state, punches(client)) == ("VALID", True)
    age = lease.age()
    assert age is not None
    assert LEASE <= age < LEASE + 2.0
    relay.thaw()
    assert client.wait_until(lambda: punches(leased), DEADLINE)


def test_a_heartbeat_that_stops_on_a_healthy_stream_ends_the_punching_too(
    client: LaunchDarklyFlags, relay: Relay
) -> None:
    leased = LeasedFlags(client, Lease(LEASE))
    beat(relay, BEAT)
    assert client.wait_until(lambda: punches(leased), DEADLINE)
    beat(relay, None)
    assert passes(lambda: not punches(leased), DEADLINE)
    assert client.status().state == "VALID"


def test_a_lease_survives_an_outage_and_opens_again(client: LaunchDarklyFlags, relay: Relay) -> None:
    leased = LeasedFlags(client, Lease(LEASE))
    beat(relay, BEAT)
    assert client.wait_until(lambda: punches(leased), DEADLINE)
    relay.down()
    assert passes(lambda: not punches(leased), DEADLINE)
    relay.up()
    assert client.wait_until(lambda: punches(leased), DEADLINE)


@pytest.mark.parametrize(("way", "give_up"), [("file", 5.0), ("stream", 5.0), ("half-open with lease", 5.0)])
def test_every_way_but_one_obeys_the_kill_switch_each_round(way: Way, give_up: float) -> None:
    times = kill_switch_times(way, 2, give_up=give_up, lease=LEASE)
    assert len(times) == 2
    assert all(each is not None and 0 <= each < give_up for each in times)


def test_half_open_without_a_lease_the_kill_switch_is_not_obeyed() -> None:
    assert kill_switch_times("half-open", 2, give_up=2 * LEASE) == [None, None]
