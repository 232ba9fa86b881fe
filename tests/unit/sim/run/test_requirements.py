"""What a scenario needs of its host, and the sentence that says why it cannot run there."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.files.scenario import Scenario, load_text
from sim.run.host import KVM, Available, Capability
from sim.run.needs import missing, needed_memory, planned_work
from sim.run.node_start import sandbox_configs

MIB = 1 << 20


def scenario(group: str = "count: 4, memory: 32MiB", more: str = "") -> Scenario:
    text = f"name: needs\nfleet:\n  - {{name: web, {group}}}\nsteps:\n  - tick: 1\n{more}"
    return load_text(text, Path("needs.yaml"))


@pytest.fixture(autouse=True)
def a_large_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.run.needs.free_memory", lambda: 1 << 40)
    monkeypatch.setattr("sim.run.needs._free_huge_pages", lambda: 16)
    monkeypatch.setattr("sim.run.needs.os.geteuid", lambda: 0)
    monkeypatch.setattr("sim.run.host.host", lambda: {"hugetlb": True, "cgroup": True, "write_protect_scan": True})


@pytest.mark.parametrize(
    ("group", "more", "needed"),
    [
        ("count: 4, memory: 32MiB", "", 256 * MIB),
        ("count: 4, memory: 32MiB", "node: {memory: 200MiB}\n", 200 * MIB),
        ("memory: 4MiB", "", 8 * MIB),
    ],
)
def test_every_guest_may_be_there_twice_but_never_more_than_the_nodes_budget(
    group: str, more: str, needed: int
) -> None:
    assert needed_memory(scenario(group, more)) == needed


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ("count: 4, memory: 32MiB", "4 sandboxes, 128MiB of guest memory in up to 64 chunks; at most 256MiB in all"),
        ("count: 3, memory: 3MiB", "3 sandboxes, 9MiB of guest memory in up to 6 chunks; at most 18MiB in all"),
        ("memory: 4KiB", "1 sandbox, 4KiB of guest memory in up to 1 chunk; at most 8KiB in all"),
    ],
)
def test_the_work_is_told_in_sandboxes_memory_and_chunks(group: str, words: str) -> None:
    assert planned_work(scenario(group)) == words


def test_a_host_that_has_everything_lacks_nothing() -> None:
    assert missing(scenario(more="requires: [hugetlb, cgroup, write_protect_scan, root]\n")) is None


def test_too_little_free_memory_is_told_with_both_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.run.needs.free_memory", lambda: 255 * MIB)
    assert missing(scenario()) == "it needs 256MiB of memory and 255 MiB are available"
    monkeypatch.setattr("sim.run.needs.free_memory", lambda: 256 * MIB)
    assert missing(scenario()) is None


def test_too_few_huge_pages_are_told_with_both_figures() -> None:
    assert missing(scenario("count: 2, memory: 16MiB, page_size: 2MiB")) is None
    reason = missing(scenario("count: 2, memory: 18MiB, page_size: 2MiB"))
    assert reason == "it needs 18 free huge pages of 2 MiB and 16 are free; see snapdrill doctor"


def test_a_scenario_for_root_is_not_run_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.run.needs.os.geteuid", lambda: 1000)
    assert missing(scenario(more="requires: [root]\n")) == "it requires root"
    assert missing(scenario()) is None


def test_everything_that_the_host_does_not_offer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.run.host.host", lambda: {"hugetlb": False, "write_protect_scan": True})
    wanted = scenario(more="requires: [cgroup, write_protect_scan, hugetlb]\n")
    assert missing(wanted) == "it requires cgroup, hugetlb; see snapdrill doctor"


@pytest.mark.parametrize(("group", "more"), [("memory: 4MiB, guest: vm", ""), ("memory: 4MiB", "requires: [kvm]\n")])
def test_without_kvm_machines_are_refused_with_what_would_allow_them(
    group: str, more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacks = Capability(KVM, Available.NO, False, "ENOENT: No such file or directory", "guest: vm cannot run", "a host")
    monkeypatch.setattr("sim.run.host.capability", lambda _: lacks)
    monkeypatch.setattr("sim.run.host.host", lambda: {"kvm": False})
    words = "it requires virtual machines: ENOENT: No such file or directory; needed is a host"
    assert missing(scenario(group, more)) == words
    monkeypatch.setattr("sim.run.host.host", lambda: {"kvm": True})
    assert missing(scenario(group, more)) is None


def test_auto_is_a_machine_where_one_can_be_had_and_a_process_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = scenario("memory: 4MiB, guest: auto")
    for kvm, kind in ((True, "vm"), (False, "process")):
        monkeypatch.setattr("sim.run.node_start.host", lambda kvm=kvm: {"kvm": kvm})
        assert missing(wanted) is None
        assert [each.guest for each in sandbox_configs(wanted, (), 0.0)] == [kind]


def test_a_host_is_not_probed_for_a_scenario_that_requires_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def probed() -> dict[str, bool]:
        raise AssertionError("probed")

    monkeypatch.setattr("sim.run.host.host", probed)
    assert missing(scenario()) is None


def test_free_memory_is_what_the_kernel_says_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    from sim.run.needs import free_memory

    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}
    assert 0 < free_memory() < fields["MemTotal"]
    assert abs(free_memory() - fields["MemAvailable"]) < fields["MemTotal"] / 4


def test_a_host_without_call_filters_does_not_run_faults_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.run.host.host", lambda: {"call_filter": False})
    steps = "steps:\n  - inject: {fault: copy.write, by: kernel}\n"
    text = f"name: s\nfleet:\n  - {{name: web, memory: 4MiB}}\n{steps}"
    wanted = load_text(text, Path("s.yaml"))
    assert missing(wanted) == "its faults by: kernel need a seccomp filter on one thread; see snapdrill doctor"


def test_a_host_that_refuses_ptrace_does_not_run_faults_that_trace_a_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.run.tracing.refusal", lambda: "Operation not permitted")
    steps = "steps:\n  - inject: {fault: condemn, how: trace-guest}\n"
    wanted = load_text(f"name: s\nfleet:\n  - {{name: web, memory: 4MiB}}\n{steps}", Path("s.yaml"))
    assert missing(wanted) == (
        "its faults how: trace-guest need one process to trace another (ptrace), which is refused: "
        "Operation not permitted"
    )
