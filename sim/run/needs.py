"""The needs of a scenario, checked against its host before anything starts."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from engine.errors import UserError
from engine.ranges import SPAN
from sim.files.scenario import Scenario
from sim.files.steps import Inject
from sim.files.units import HUGE_PAGE, format_size
from sim.node.guest_link import FDS_PER_GUEST
from sim.report.words import plural

_FDS = 64
"""Open files of a node beside those of its guests."""
_LONGEST_SOCKET = 107  # bytes, unix(7)
_HUGE_FREE = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")


def needed_memory(scenario: Scenario) -> int:
    """Bytes at most: every guest, and every copy that may be in memory at once; the node's budget caps it."""
    guests = sum(each.memory for each in scenario.sandboxes())
    return min(scenario.node.memory, 2 * guests)


@dataclass(frozen=True, slots=True)
class PlannedWork:
    """What a scenario would run: `chunks` at most; memory in bytes, of its guests and at most in all."""

    name: str
    sandboxes: int
    chunks: int
    guest_memory: int
    memory: int


def planned(scenario: Scenario) -> PlannedWork:
    """Of its whole fleet."""
    sandboxes = scenario.sandboxes()
    chunks = sum(-(-each.memory // max(SPAN, each.page_size, each.block_size)) for each in sandboxes)
    guests = sum(each.memory for each in sandboxes)
    return PlannedWork(scenario.title, len(sandboxes), chunks, guests, needed_memory(scenario))


def planned_work(scenario: Scenario) -> str:
    """Sandboxes, chunks and memory, in words."""
    work = planned(scenario)
    fleet, chunks = plural(work.sandboxes, "sandbox", "sandboxes"), plural(work.chunks, "chunk")
    guests, most = format_size(work.guest_memory), format_size(work.memory)
    return f"{fleet}, {guests} of guest memory in up to {chunks}; at most {most} in all"


def missing(scenario: Scenario) -> str | None:
    """Why this host cannot run it; None if it can."""
    need, free = needed_memory(scenario), free_memory()
    if need > free:
        return f"it needs {format_size(need)} of memory and {free >> 20} MiB are available"
    huge = sum(each.memory // HUGE_PAGE for each in scenario.sandboxes() if each.page_size == HUGE_PAGE)
    if huge > _free_huge_pages():
        return f"it needs {huge} free huge pages of 2 MiB and {_free_huge_pages()} are free; see snapdrill doctor"
    if "root" in scenario.requires and os.geteuid() != 0:
        return "it requires root"
    if _has_machines(scenario) and (why := _no_machines()) is not None:
        return f"it requires virtual machines: {why}"
    return _unmet(scenario)


def _has_machines(scenario: Scenario) -> bool:
    return "kvm" in scenario.requires or any(each.guest == "vm" for each in scenario.sandboxes())


def _no_machines() -> str | None:
    """Why no virtual machine can run here, and what would allow it; None where one can."""
    from sim.run.host import KVM, Available, capability, host

    if host()["kvm"]:
        return None
    found = capability(KVM)
    return f"{found.detail}; needed is {found.needs}" if found.available is Available.NO else None


def _unmet(scenario: Scenario) -> str | None:
    from sim.run.host import host

    wanted = [each for each in scenario.requires if each not in {"root", "kvm"}]
    offered = host() if wanted or _by_kernel(scenario) else {}
    if _by_kernel(scenario) and not offered["call_filter"]:
        return "its faults by: kernel need a seccomp filter on one thread; see snapdrill doctor"
    unmet = [each for each in wanted if not offered.get(each)]
    return f"it requires {', '.join(unmet)}; see snapdrill doctor" if unmet else None


def _by_kernel(scenario: Scenario) -> bool:
    return any(isinstance(step, Inject) and step.by == "kernel" for step in scenario.steps)


def _free_huge_pages() -> int:
    return int(_HUGE_FREE.read_text()) if _HUGE_FREE.exists() else 0


def free_memory() -> int:
    """Bytes available on the host."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def check_limits(sandboxes: int, socket: Path) -> None:
    """Raise UserError for limits that would stop a node after it has started.

    The soft limit is raised: this process holds the side memfd of each guest with a heartbeat.
    """
    need, (_, limit) = _FDS + FDS_PER_GUEST * sandboxes, resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if limit != resource.RLIM_INFINITY and limit < need:
        raise UserError(f"{sandboxes} guests need {need} open files and the hard limit is {limit}: raise ulimit -Hn")
    if len(os.fsencode(socket)) > _LONGEST_SOCKET:
        raise UserError(f"{socket} is too long for a socket's path: set TMPDIR to a shorter folder")
