from __future__ import annotations

from dataclasses import replace

import pytest

from engine.errors import UserError
from flags.client import FlagClient
from flags.context import SandboxAttributes
from flags.inline import flag_from
from flags.lease import HEARTBEAT, LEASE_EXPIRED, Lease, LeasedFlags, heartbeat_flag
from flags.memory import MemoryFlags

PUNCH = "memfd-punch-on-snapshot"
WEB = SandboxAttributes(sandbox="web-0", template="python", team="acme")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lease(clock: Clock) -> Lease:
    return Lease(1.5, clock)


@pytest.fixture
def source() -> MemoryFlags:
    """Punches, and has had one heartbeat."""
    return MemoryFlags({PUNCH: flag_from(PUNCH, True), HEARTBEAT: heartbeat_flag(1)})


def test_a_lease_without_a_heartbeat_is_not_open(lease: Lease) -> None:
    assert (lease.open(), lease.age()) == (False, None)


def test_the_first_version_seen_tells_no_age_and_opens_nothing(lease: Lease) -> None:
    lease.saw(7)
    assert lease.open() is False


def test_a_rising_version_opens_it_for_its_duration_and_no_longer(lease: Lease, clock: Clock) -> None:
    lease.saw(7)
    lease.saw(8)
    assert lease.open() is True
    assert lease.open(clock.now + 1.49) is True
    assert lease.open(clock.now + 1.5) is False
    clock.now += 1.5
    assert (lease.open(), lease.age()) == (False, 1.5)


@pytest.mark.parametrize("version", [8, 7, 1, None])
def test_a_version_that_does_not_rise_is_no_heartbeat(lease: Lease, clock: Clock, version: int | None) -> None:
    lease.saw(7)
    lease.saw(8)
    clock.now += 2.0
    lease.saw(version)
    assert lease.open() is False
    lease.saw(9)
    assert lease.open() is True


@pytest.mark.parametrize("duration", [0.0, -1.0, float("nan")])
def test_a_lease_needs_a_duration(duration: float) -> None:
    with pytest.raises(UserError, match="out of range; use"):
        Lease(duration)


def test_leased_flags_are_a_flag_client(source: MemoryFlags, lease: Lease) -> None:
    client: FlagClient = LeasedFlags(source, lease)
    assert client.status().state == "VALID"


def test_without_a_fresh_heartbeat_nothing_is_punched_though_the_flag_says_so(
    source: MemoryFlags, lease: Lease
) -> None:
    client = LeasedFlags(source, lease)
    decision = client.decide(WEB)
    found = decision.evaluation(PUNCH)
    assert (found.value, found.reason, found.variation, found.version) == (False, LEASE_EXPIRED, None, 1)
    assert client.status().state == found.source_state == "VALID"


def test_every_other_flag_is_decided_as_without_a_lease(source: MemoryFlags, lease: Lease) -> None:
    with_lease, without = LeasedFlags(source, lease).decide(WEB), source.decide(WEB)
    assert without.value(PUNCH) is True
    assert [each for each in with_lease.evaluations if each.flag != PUNCH] == [
        each for each in without.evaluations if each.flag != PUNCH
    ]


def test_each_heartbeat_keeps_punching_on_and_its_absence_ends_it(
    source: MemoryFlags, lease: Lease, clock: Clock
) -> None:
    client = LeasedFlags(source, lease)
    for beat in range(2, 5):
        source.set(heartbeat_flag(beat))
        clock.now += 1.4
        assert client.decide(WEB) == source.decide(WEB)
    clock.now += 0.2
    assert client.decide(WEB).evaluation(PUNCH).reason == LEASE_EXPIRED
    source.set(heartbeat_flag(5))
    assert client.decide(WEB).value(PUNCH) is True


def test_an_open_lease_turns_nothing_on(source: MemoryFlags, lease: Lease) -> None:
    client = LeasedFlags(source, lease)
    source.set(heartbeat_flag(2))
    source.set(flag_from(PUNCH, False))
    found = client.decide(WEB).evaluation(PUNCH)
    assert (found.value, found.reason) == (False, "FALLTHROUGH")


def test_a_heartbeat_flag_that_is_deleted_or_another_flag_that_changes_is_no_heartbeat(
    source: MemoryFlags, lease: Lease
) -> None:
    client = LeasedFlags(source, lease)
    source.set(flag_from(PUNCH, False))
    source.set(flag_from(PUNCH, True))
    source.delete(HEARTBEAT)
    assert client.decide(WEB).evaluation(PUNCH).reason == LEASE_EXPIRED


def test_a_decision_outlives_the_lease_it_was_made_under(source: MemoryFlags, lease: Lease, clock: Clock) -> None:
    client = LeasedFlags(source, lease)
    source.set(heartbeat_flag(2))
    pinned = client.decide(WEB)
    clock.now += 10.0
    assert pinned.value(PUNCH) is True
    assert client.decide(WEB).value(PUNCH) is False


def test_only_the_punch_evaluation_is_replaced_and_keeps_its_version(source: MemoryFlags, lease: Lease) -> None:
    plain = source.decide(WEB).evaluation(PUNCH)
    leased = LeasedFlags(source, lease).decide(WEB).evaluation(PUNCH)
    assert leased == replace(plain, value=False, reason=LEASE_EXPIRED, variation=None, rule=None)


def test_subscribers_are_told_and_closing_closes_the_source(source: MemoryFlags, lease: Lease) -> None:
    client = LeasedFlags(source, lease)
    told: list[str] = []
    unsubscribe = client.subscribe(told.append)
    source.set(flag_from(PUNCH, False))
    unsubscribe()
    source.set(flag_from(PUNCH, True))
    assert told == [PUNCH]
    client.close()
    source.set(heartbeat_flag(2))
    assert (client.status().state, lease.open()) == ("OFF", False)
