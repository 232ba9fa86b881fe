"""`no_leaks`: whatever carries the run's id after teardown is found, in any process that may be looked into."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from engine import events as copying
from engine import linux
from sim.node.cgroup import MemoryCgroup
from sim.record import events
from sim.record.verdict import Verdict
from sim.rules import never_resumed, no_leaks
from tests.story import Story, judged

if TYPE_CHECKING:
    from sim.rules.finding import Finding
    from tests.unit.sim.rules.conftest import Guests, Scene

NAME = "no_leaks"


@pytest.fixture(autouse=True)
def _nobody_closes_anything_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(no_leaks, "_CLOSING", 0.01)
    monkeypatch.setattr(never_resumed, "_DYING", 0.01)


MAPS_ONLY = """
import mmap, os, sys
fd = os.memfd_create(sys.argv[1])
os.ftruncate(fd, mmap.PAGESIZE)
memory = mmap.mmap(fd, mmap.PAGESIZE)
for each in os.scandir("/proc/self/fd"):
    if "memfd:" in os.readlink(each.path):
        os.close(int(each.name))
print("no fd is left", flush=True)
sys.stdin.read()
"""


# -- by the ledger alone


def test_a_guest_without_an_end_is_left(ledger: Story) -> None:
    reason = "the ledger has no `guest_ended` for web-0.1"
    assert ledger.missing(NAME) == [f"the ledger ends before the run does, and {reason}"]
    assert ledger.end().reasons(NAME) == [reason]


def test_what_a_dead_node_could_not_record_is_missing(ledger: Story) -> None:
    ledger.begin_pause().tell(events.NodeCrashed(10), None).end()
    assert ledger.reasons(NAME) == []
    assert ledger.missing(NAME) == [
        "the node died, and the ledger has no `guest_ended` for web-0.1",
        "the node died, and the cache of web-0.p1 was neither finished nor deleted",
    ]


def test_what_the_run_itself_looked_for_in_vain_is_missing_not_left(ledger: Story) -> None:
    ledger.end(judged(NAME))
    assert ledger.reasons(NAME) == []
    assert ledger.missing(NAME) == ["the run's own leak check passed, but the ledger has no `guest_ended` for web-0.1"]


def test_a_cache_that_was_neither_finished_nor_deleted_is_left(ledger: Story) -> None:
    ledger.begin_pause().copy().discard().end()
    assert ledger.found(NAME).verdict is Verdict.HELD
    assert ledger.without(copying.CacheDeleted).reasons(NAME) == [
        "the cache of web-0.p1 was neither finished nor deleted"
    ]


def test_the_cache_of_a_pause_that_is_told_as_finished_is_a_build(sound: Story) -> None:
    assert sound.without(copying.BuildFinished).reasons(NAME) == []


# -- in reality


def reasons(scene: Scene) -> list[str]:
    """What is seen after teardown."""
    assert scene.found(NAME).violations == [], "while the fleet lives it is there rightly"
    scene.reality.torn_down = True
    found = scene.found(NAME)
    scene.reality.torn_down = False
    scene.reality.seen.clear()
    assert found.checked == 1
    assert {each["sandbox"] for each in found.violations} <= {"*"}
    return [each["reason"] for each in found.violations]


@pytest.fixture
def torn_down(scene: Scene) -> Scene:
    scene.reality.builds.rmdir()
    scene.reality.socket_dir.rmdir()
    return scene


def test_a_run_that_was_torn_down_leaves_nothing(torn_down: Scene) -> None:
    assert reasons(torn_down) == []


def finished(scene: Scene, **settled: Any) -> Finding:
    """What is seen at the barriers after a pause."""
    scene.freeze().tell(events.NodeStarted(os.getpid(), 0, 1, 0, False), None).settle(**settled)
    scene.found(NAME)
    return scene.found(NAME)


def test_a_guest_that_is_still_there_when_its_pause_is_finished_is_a_leak(scene: Scene, guests: Guests) -> None:
    guest = guests.start()
    guest.stop()
    os.close(guest.memfd)
    guest.memfd = os.open(os.devnull, os.O_RDONLY)
    (found,) = finished(scene).violations
    assert found["reason"] == "its pause is finished, and its guest is still there (state T)"
    assert (found["sandbox"], found["incarnation"], found["pause"]) == ("web-0", "web-0.1", "web-0.p1")
    guest.kill()
    assert found in scene.end().found(NAME).violations


def test_a_node_that_holds_the_memory_of_a_finished_pause_is_a_leak(scene: Scene, guests: Guests) -> None:
    guest, next_one = guests.start(), guests.start("web-0.10")
    guest.kill()
    (found,) = finished(scene).violations
    assert found["reason"] == "its pause is finished, and its memory is still held by node or zygote"
    assert found["code"] == "memory"
    assert next_one.process.poll() is None


@pytest.mark.parametrize("settled", [{"checkpoint": True, "consumed": False}, {"outcome": "rolled-back"}])
def test_a_guest_that_goes_on_is_no_leak_and_the_node_holds_its_memory(
    scene: Scene, guests: Guests, settled: dict[str, object]
) -> None:
    guests.start()
    assert finished(scene, **settled).violations == []


HELD = "its pause is over, and its memory is still held by the zygote"


@pytest.mark.parametrize(
    ("settled", "reason"),
    [
        ({"outcome": "rolled-back"}, HELD),
        ({"checkpoint": True, "consumed": False}, HELD),
        ({"outcome": "discarded"}, "its pause is discarded, and its memory is still held by node or zygote"),
        ({}, "its pause is finished, and its memory is still held by node or zygote"),
    ],
    ids=["rolled back", "in place", "discarded", "finished"],
)
def test_a_zygote_that_keeps_the_memory_of_a_pause_that_is_over_is_a_leak(
    scene: Scene, guests: Guests, monkeypatch: pytest.MonkeyPatch, settled: dict[str, Any], reason: str
) -> None:
    guests.start().kill()
    scene.freeze().tell(events.NodeStarted(1 << 30, 0, os.getpid(), 0, recovered=False), None).settle(**settled)
    (found,) = scene.found(NAME).violations
    assert (found["reason"], found["code"]) == (reason, "memory")
    assert scene.found(NAME).violations == [found], "it is looked for once"


def test_a_zygote_that_keeps_the_memory_for_the_next_pause_of_the_same_guest_is_no_leak(
    scene: Scene, guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    guests.start()
    scene.freeze().tell(events.NodeStarted(1 << 30, 0, os.getpid(), 0, recovered=False), None)
    scene.settle(outcome="rolled-back").freeze("web-0.p2").write(scene.reality.run_dir / "events.jsonl")
    assert scene.found(NAME).violations == []
    scene.settle("web-0.p2", outcome="rolled-back").write(scene.reality.run_dir / "events.jsonl")
    assert [each["pause"] for each in scene.found(NAME).violations] == ["web-0.p2"]


def test_what_belongs_to_another_run_is_not_ours(torn_down: Scene) -> None:
    fd = os.memfd_create("snapdrill-other-web-0.1")
    assert reasons(torn_down) == []
    os.close(fd)


def test_a_process_of_the_run_is_found_by_its_environment(torn_down: Scene, guests: Guests) -> None:
    process = guests.start_process()
    assert reasons(torn_down) == [f"process {process.pid} is still there"]
    process.kill()
    process.wait(20)
    assert reasons(torn_down) == []


def test_a_guest_is_found_with_its_memory_and_so_is_everyone_who_holds_it(torn_down: Scene, guests: Guests) -> None:
    guest = guests.start()
    found = reasons(torn_down)
    assert f"process {guest.process.pid} is still there" in found
    assert f"process {guest.process.pid} still holds memory of this run" in found
    assert f"process {os.getpid()} still holds memory of this run" in found
    guest.kill()
    assert reasons(torn_down) == [f"process {os.getpid()} still holds memory of this run"]


def test_an_open_fd_of_this_very_process_is_found(torn_down: Scene) -> None:
    fd = os.memfd_create(f"snapdrill-{torn_down.reality.run}-check")
    assert reasons(torn_down) == [f"process {os.getpid()} still holds memory of this run"]
    os.close(fd)
    assert reasons(torn_down) == []


def test_a_mapping_is_found_when_its_fd_is_closed(torn_down: Scene) -> None:
    command = [sys.executable, "-S", "-c", MAPS_ONLY, f"snapdrill-{torn_down.reality.run}-web-0.1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "no fd is left\n"
        assert reasons(torn_down) == [f"process {process.pid} still holds memory of this run"]
        process.kill()
    assert reasons(torn_down) == []


def test_a_private_mapping_of_this_very_process_is_found(torn_down: Scene) -> None:
    fd = os.memfd_create(f"snapdrill-{torn_down.reality.run}-web-0.1")
    os.ftruncate(fd, mmap.PAGESIZE)
    address = linux._libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_PRIVATE, fd, 0)
    os.close(fd)
    assert reasons(torn_down) == [f"process {os.getpid()} still holds memory of this run"]
    linux._libc.munmap(address, mmap.PAGESIZE)
    assert reasons(torn_down) == []


def test_an_open_file_of_the_cache_is_found_though_it_was_deleted(torn_down: Scene) -> None:
    path = torn_down.folder / f"snapdrill-{torn_down.reality.run}-cache.memfile"
    with path.open("w"):
        path.unlink()
        assert reasons(torn_down) == [f"process {os.getpid()} still holds memory of this run"]


def test_folders_that_are_left_are_found(scene: Scene) -> None:
    assert reasons(scene) == [f"{scene.reality.builds} is still there", f"{scene.reality.socket_dir} is still there"]


def test_a_cache_that_was_asked_for_is_no_leak(scene: Scene) -> None:
    scene.reality.socket_dir.rmdir()
    scene.reality.cache_kept = True
    assert reasons(scene) == []


def test_a_condemned_record_that_is_left_is_found(torn_down: Scene) -> None:
    record = torn_down.reality.condemned / "web-0.1-4711-99.json"
    record.write_text("{}")
    assert reasons(torn_down) == [f"{record} is still there"]


def test_a_cgroup_that_is_left_is_found(torn_down: Scene) -> None:
    cgroup = MemoryCgroup.make(torn_down.reality.run, 1 << 20)
    if cgroup is None:
        pytest.skip("no memory cgroup can be made here")
    try:
        assert reasons(torn_down) == [f"{cgroup.folder} is still there"]
    finally:
        assert cgroup.remove()


def test_a_virtual_machine_that_this_process_still_holds_is_a_leak(
    torn_down: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {os.getpid(): {"anon_inode:kvm-vm", "/dev/null"}}
    monkeypatch.setattr("sim.rules.no_leaks._links", lambda pid: held.get(pid, set()))
    assert reasons(torn_down) == [f"process {os.getpid()} still holds a virtual machine"]


def test_a_node_that_holds_a_machine_is_reported_once_however_often_it_is_looked_at(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.tell(events.NodeStarted(10, 1, 11, 1, recovered=False), None)
    monkeypatch.setattr(no_leaks, "_links", lambda *pids: {"anon_inode:kvm-vcpu:0"} if pids == (10, 11) else set())
    for number in (1, 2):
        found = scene.settle(f"web-0.p{number}", outcome="discarded").found(NAME).violations
        assert [(each["code"], each["sandbox"]) for each in found] == [("machine", "*")]


def test_a_guest_that_is_there_and_memory_that_is_held_are_two_leaks(scene: Scene, guests: Guests) -> None:
    guests.start()
    assert [each["code"] for each in finished(scene).violations] == ["guest", "memory"]
