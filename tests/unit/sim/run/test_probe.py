"""A probe tries; what the kernel refuses is an answer with its errno, and a call that returned is not yet a proof."""

from __future__ import annotations

import errno
import json
import mmap
import os
import pathlib
import time

import numpy as np
import pytest

from engine import linux
from sim.node.cgroup import MemoryCgroup
from sim.run import host, own_limits
from sim.run import host as probe
from sim.run.host import Available, Capability, Probe, ProbeResult
from tests.descriptors import open_before


def answered(name: str) -> Capability:
    return host.try_out(next(probe for probe in host.PROBES if probe.name == name))


def test_a_refusal_is_an_answer_that_names_the_errno() -> None:
    def ask() -> ProbeResult:
        raise OSError(errno.EPERM, "Operation not permitted")

    found = host.try_out(Probe("thing", ask, "costs", "needs"))
    assert (found.available, found.detail) == (Available.NO, "EPERM: Operation not permitted")


def test_a_missing_package_is_an_answer() -> None:
    def ask() -> ProbeResult:
        raise ModuleNotFoundError("No module named 'ldclient'")

    assert host.try_out(Probe("thing", ask, "costs", "needs")).detail == "No module named 'ldclient'"


def test_what_no_run_can_do_without_works_here() -> None:
    required = [each.name for each in host.PROBES if each.required]
    assert required == ["/proc", "memfd and seals", "punch a memfd", "pidfd"]
    assert {answered(name).available for name in required} == {Available.YES}


def test_a_punch_that_returns_without_freeing_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "punch_hole", lambda *_: None)
    found = answered("punch a memfd")
    assert (found.available, found.detail) == (Available.NO, "the call returned, but freed 0 of 32768 bytes")


def test_seals_that_do_not_stick_are_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "seals_of", lambda *_: 0)
    assert answered("memfd and seals").available is Available.NO


def test_a_scan_that_misses_the_written_page_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = np.empty(0, dtype=np.uint64)
    fds: list[int] = []

    def armed(address: int, length: int) -> int:
        fds.append(os.open("/dev/null", os.O_RDONLY))
        return fds[-1]

    monkeypatch.setattr(linux, "write_protect_tracking", armed)
    monkeypatch.setattr(linux, "scan_written", lambda *_, **__: linux.WrittenRanges(nothing, nothing))
    found = answered("write-protect scan")
    assert (found.available, found.detail) == (Available.NO, "page 1 of 4 was written, the scan reported []")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fds[0])


def test_few_open_files_and_one_cpu_are_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.run.host.resource.getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr("sim.run.host.os.sched_getaffinity", lambda _: {0})
    assert answered("open files").available is Available.LIMITED
    assert "about 128 guests" in answered("open files").detail
    assert answered("CPUs").available is Available.LIMITED


def test_probing_leaves_no_fd_and_no_file_behind() -> None:
    host.capabilities()
    before = open_before()
    host.capabilities()
    assert len(os.listdir("/proc/self/fd")) == before


def test_every_finding_says_what_its_absence_costs_and_what_would_allow_it() -> None:
    assert all(each.name and each.detail and each.costs and each.needs for each in host.capabilities())


def test_the_hosts_description_is_plain_json_and_quick() -> None:
    began = time.process_time()
    found = host.host()
    assert time.process_time() - began < 0.5
    assert json.loads(json.dumps(found)) == found
    assert found["page_size"] == mmap.PAGESIZE
    assert isinstance(found["write_protect_scan"], bool)
    assert {"kernel", "machine", "cpus", "memory", "hugetlb", "cgroup", "cachestat", "punch"} <= set(found)


def test_a_refused_cgroup_is_told_with_the_folder_and_the_reason(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryCgroup, "make", lambda *_: None)
    monkeypatch.setattr(probe, "hierarchies", lambda: [(tmp_path / "gone", "memory.max", "memory.peak")])
    found = answered("memory cgroup")
    assert found.available is Available.NO
    assert found.detail == f"{tmp_path / 'gone'}: ENOENT: No such file or directory"


def test_no_hierarchy_at_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryCgroup, "make", lambda *_: None)
    monkeypatch.setattr(probe, "hierarchies", list)
    assert answered("memory cgroup").detail == "no memory cgroup hierarchy is mounted"


@pytest.mark.parametrize(("content", "said"), [("1\n", True), ("0\n", False), (None, False)])
def test_a_cgroup_that_the_kernel_ends_as_a_whole_is_named(
    content: str | None, *, said: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    if content is not None:
        (tmp_path / "memory.oom.group").write_text(content)
    monkeypatch.setattr(own_limits, "hierarchies", lambda: [(tmp_path / "mine", "memory.max", "memory.peak")])
    found = [each for each in own_limits.visible() if "memory.oom.group" in each]
    assert found == [f"memory.oom.group of {tmp_path}: out of memory, the kernel ends the runner with its run"] * said
