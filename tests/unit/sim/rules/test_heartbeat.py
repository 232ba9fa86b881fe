"""The witness: what a guest's own clock said last, held beyond its death; and the rule that asks it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from engine import events as copying
from engine.events import Event
from sim.record import events
from sim.record.ledger import Entry
from sim.rules.heartbeat import Heartbeats, beat_at_freeze, ran_after_its_freeze
from tests.descriptors import open_before
from tests.story import MEMORY, spawned

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Scene

FROZEN, LATER = 0x01020304, 0x01020604


class Side:
    """The side memfd of a guest, which is this process: four bytes at its end are the beat."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("side")
        os.pwrite(self.fd, b"\xff" * 20, 0)

    def beat(self, microseconds: int) -> None:
        os.pwrite(self.fd, microseconds.to_bytes(4, "little"), 16)

    def born(self, incarnation: str = "web-0.1", heartbeat: float = 0.1) -> events.GuestSpawned:
        return spawned(incarnation, pid=os.getpid(), side_fd=self.fd, heartbeat=heartbeat)


@pytest.fixture
def side() -> Iterator[Side]:
    made = Side()
    yield made
    os.close(made.fd)


@pytest.fixture
def heartbeats() -> Iterator[Heartbeats]:
    made = Heartbeats()
    yield made
    made.close()


def entries(*told: tuple[Event, str | None]) -> list[Entry]:
    return [Entry(float(at), event, "web-0", pause) for at, (event, pause) in enumerate(told)]


def test_the_last_beat_is_read_while_there_is_memory_and_kept_when_it_is_given_back(
    side: Side, heartbeats: Heartbeats
) -> None:
    heartbeats.take(entries((side.born(), None), (events.GuestThawed("web-0.1"), None)))
    side.beat(FROZEN)
    assert heartbeats.beat("web-0.1") == FROZEN
    side.beat(LATER)
    assert (heartbeats.beat("web-0.1"), heartbeats.beat("web-0.2")) == (LATER, None)
    before = open_before()
    heartbeats.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1
    side.beat(FROZEN)
    assert heartbeats.beat("web-0.1") == LATER


def test_each_guest_that_beats_is_held_once_and_one_that_is_gone_hinders_no_other(
    side: Side, heartbeats: Heartbeats
) -> None:
    gone = spawned("web-0.2", pid=os.getpid(), side_fd=1 << 20, heartbeat=0.1)
    silent = side.born("web-0.3", heartbeat=0.0)
    before = open_before()
    for _ in range(2):
        heartbeats.take(entries((gone, None), (silent, None), (side.born(), None), (side.born("web-1.1"), None)))
    assert len(os.listdir("/proc/self/fd")) == before + 2
    side.beat(7)
    assert [heartbeats.beat(f"web-{name}") for name in ("0.1", "0.2", "0.3", "1.1")] == [7, None, None, 7]


def frozen(incarnation: str, beat: int | None) -> events.GuestFrozen:
    return events.GuestFrozen(incarnation, 0.1, beat=beat)


def test_the_beat_at_its_freeze_is_known_of_every_condemned_guest_that_had_one() -> None:
    told = entries(
        (frozen("web-0.1", 5), "web-0.p1"),
        (frozen("web-0.2", 0), "web-0.p2"),
        (frozen("web-0.3", None), "web-0.p3"),
        (frozen("web-0.4", 8), None),
        (frozen("web-0.5", 9), "web-0.p5"),
        *((copying.Condemned(f"web-0.p{number}"), f"web-0.p{number}") for number in (3, 1, 2)),
        (copying.Condemned("web-0.p4"), None),
    )
    assert beat_at_freeze(told) == {"web-0.1": ("web-0.p1", 5), "web-0.2": ("web-0.p2", 0)}


def test_a_clock_that_went_on_is_reported_with_how_far_also_over_its_end(side: Side, heartbeats: Heartbeats) -> None:
    told = entries(
        (spawned("web-0.9"), None),
        (frozen("web-0.9", 1), "web-0.p9"),
        (copying.Condemned("web-0.p9"), "web-0.p9"),
        (side.born(), None),
        (frozen("web-0.1", FROZEN), "web-0.p1"),
        (copying.Condemned("web-0.p1"), "web-0.p1"),
    )
    heartbeats.take(told)
    side.beat(FROZEN)
    assert ran_after_its_freeze(told, heartbeats) == []
    side.beat(LATER)
    assert ran_after_its_freeze(told, heartbeats) == [("web-0.1", "web-0.p1", LATER - FROZEN)]
    side.beat(FROZEN - 1)
    assert ran_after_its_freeze(told, heartbeats) == [("web-0.1", "web-0.p1", (1 << 32) - 1)]


# -- the rule


def condemned(scene: Scene, side: Side, *more: Event) -> Scene:
    """The guest's clock goes on after it was condemned."""
    scene.reality.heartbeats = Heartbeats()
    scene.tell(side.born()).go("created", "running", "pausing")
    scene.tell(frozen("web-0.1", FROZEN), pause="web-0.p1")
    for event in (copying.Condemned("web-0.p1"), *more):
        scene.tell(event, pause="web-0.p1")
    scene.reality.heartbeats.take(scene.entries)
    side.beat(LATER)
    scene.reality.torn_down = True  # this process is no guest to be looked at
    return scene


LOOKED = copying.GuestLooked("kill", {"7": [1, 1]}, "ran")
PUNCHED = copying.ChunkPunched(0, MEMORY)


@pytest.mark.parametrize(
    ("more", "codes"),
    [
        ((), ["heartbeat"]),
        ((LOOKED,), []),
        ((LOOKED, PUNCHED), ["heartbeat"]),
        ((PUNCHED, LOOKED), ["heartbeat"]),
        ((copying.GuestLooked("kill", {"7": [1, 1]}),), ["heartbeat"]),
        ((copying.GuestLooked("condemn", {"7": [1, 1]}, "ran"),), ["heartbeat"]),
    ],
)
def test_a_clock_that_went_on_is_a_violation_unless_it_was_seen_and_nothing_was_freed(
    scene: Scene, side: Side, more: tuple[Event, ...], codes: list[str]
) -> None:
    condemned(scene, side, *more).found("never_resumed")
    violations = scene.found("never_resumed").violations
    found = [each for each in violations if each["code"] == "heartbeat"]  # once, however often it is looked at
    assert [each["code"] for each in found] == codes
    for each in found:
        assert (each["sandbox"], each["incarnation"], each["pause"]) == ("web-0", "web-0.1", "web-0.p1")
        assert f" {LATER - FROZEN} us " in each["reason"]
    assert scene.reality.heartbeats is not None
    scene.reality.heartbeats.close()


def test_every_clock_that_went_on_is_reported(scene: Scene, side: Side) -> None:
    condemned(scene, side, LOOKED)
    for name in ("web-1", "web-2"):
        scene.tell(side.born(f"{name}.1"), name).tell(frozen(f"{name}.1", FROZEN), pause=f"{name}.p1")
        scene.tell(copying.Condemned(f"{name}.p1"), pause=f"{name}.p1")
    assert scene.reality.heartbeats is not None
    scene.reality.heartbeats.take(scene.entries)
    found = scene.found("never_resumed").violations
    assert [(each["sandbox"], each["pause"]) for each in found] == [("web-1", "web-1.p1"), ("web-2", "web-2.p1")]
    scene.reality.heartbeats.close()
