"""`no_leaks`: whatever carries the run's id after teardown is found, in any process that may be looked into."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from sim.node.cgroup import MemoryCgroup
from sim.record.events import NodeStarted
from sim.rules.no_leaks import NoLeaks

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Guests, Scene

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


def reasons(scene: Scene) -> list[str]:
    checker = NoLeaks()
    checker.observe(scene.evidence())
    assert checker.violations == [], "while the fleet lives it is there rightly"
    checker.conclude(scene.evidence())
    assert checker.checked == 1
    assert {each["sandbox"] for each in checker.violations} <= {"*"}
    return [each["reason"] for each in checker.violations]


@pytest.fixture
def torn_down(scene: Scene) -> Scene:
    scene.builds.rmdir()
    scene.sockets.rmdir()
    return scene


def test_a_run_that_was_torn_down_leaves_nothing(torn_down: Scene) -> None:
    assert reasons(torn_down) == []


def finished(scene: Scene, **settled: Any) -> NoLeaks:
    """What a checker sees at the barrier after a pause."""
    scene.freeze()
    scene.tell(NodeStarted(os.getpid(), 0, 1, 0, False), None)
    scene.settle(**settled)
    checker = NoLeaks()
    for _ in range(2):
        checker.observe(scene.evidence())
    return checker


def test_a_guest_that_is_still_there_when_its_pause_is_finished_is_a_leak(scene: Scene, guests: Guests) -> None:
    guest = guests.start()
    guest.stop()
    os.close(guest.memfd)
    guest.memfd = os.open(os.devnull, os.O_RDONLY)
    checker = finished(scene)
    (found,) = checker.violations
    assert found["reason"] == "its pause is finished, and its guest is still there (state T)"
    assert (found["sandbox"], found["incarnation"], found["pause"]) == ("web-0", "web-0.1", "web-0.p1")
    guest.kill()
    checker.conclude(scene.evidence())
    assert found in checker.violations


def test_a_node_that_holds_the_memory_of_a_finished_pause_is_a_leak(scene: Scene, guests: Guests) -> None:
    guest, next_one = guests.start(), guests.start("web-0.10")
    guest.kill()
    (found,) = finished(scene).violations
    assert found["reason"] == "its pause is finished, and the node still holds its memory"
    assert next_one.process.poll() is None


@pytest.mark.parametrize("settled", [{"checkpoint": True}, {"outcome": "rolled-back"}, {"outcome": "discarded"}])
def test_a_guest_that_goes_on_is_no_leak_and_a_failed_one_is_judged_elsewhere(
    scene: Scene, guests: Guests, settled: dict[str, object]
) -> None:
    guests.start()
    assert finished(scene, **settled).violations == []


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
    fd = os.memfd_create(f"snapdrill-{torn_down.run}-check")
    assert reasons(torn_down) == [f"process {os.getpid()} still holds memory of this run"]
    os.close(fd)
    assert reasons(torn_down) == []


def test_a_mapping_is_found_when_its_fd_is_closed(torn_down: Scene) -> None:
    command = [sys.executable, "-S", "-c", MAPS_ONLY, f"snapdrill-{torn_down.run}-web-0.1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "no fd is left\n"
        assert reasons(torn_down) == [f"process {process.pid} still holds memory of this run"]
        process.kill()
    assert reasons(torn_down) == []


def test_an_open_file_of_the_cache_is_found_though_it_was_deleted(torn_down: Scene) -> None:
    path = torn_down.folder / f"snapdrill-{torn_down.run}-cache.memfile"
    with path.open("w"):
        path.unlink()
        assert reasons(torn_down) == [f"process {os.getpid()} still holds memory of this run"]


def test_folders_that_are_left_are_found(scene: Scene) -> None:
    assert reasons(scene) == [f"{scene.builds} is still there", f"{scene.sockets} is still there"]


def test_a_cache_that_was_asked_for_is_no_leak(scene: Scene) -> None:
    scene.sockets.rmdir()
    scene.cache_kept = True
    assert reasons(scene) == []


def test_a_condemned_record_that_is_left_is_found(torn_down: Scene) -> None:
    record = torn_down.condemned / "web-0.1-4711-99.json"
    record.write_text("{}")
    assert reasons(torn_down) == [f"{record} is still there"]


def test_a_cgroup_that_is_left_is_found(torn_down: Scene) -> None:
    cgroup = MemoryCgroup.make(torn_down.run, 1 << 20)
    if cgroup is None:
        pytest.skip("no memory cgroup can be made here")
    try:
        assert reasons(torn_down) == [f"{cgroup.folder} is still there"]
    finally:
        assert cgroup.remove()
