"""The needs of a scenario, checked against its host before anything starts."""

from __future__ import annotations

import fnmatch
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import HostError, UserError, host_error
from engine.ranges import SPAN
from sim.files.scenario import Scenario
from sim.files.steps import Checkpoint, Inject, PauseStep
from sim.files.units import HUGE_PAGE, format_size
from sim.node.guest_link import FDS_PER_GUEST
from sim.report.words import plural
from sim.run import own_limits
from sim.run.build_folders import SHM, spill_parent
from sim.run.private_tmpfs import has_huge

_PROCESSES, _GUEST = 96 << 20, 2 << 20  # bytes: node and zygote, and each guest beside its memory
_ADDRESSES = 768 << 20  # bytes that a node maps, with the stacks of its threads
_THREADS = 80  # of a node with its zygote
_LEDGER, _LEDGER_OF_SANDBOX = 256 << 10, 32 << 10  # bytes reserved
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


def missing(scenario: Scenario, runs_dir: Path = Path("runs"), cache_dir: Path | None = None) -> str | None:
    """Why this host cannot run it, every reason in one line; None if it can."""
    return "; ".join(lacks(scenario, runs_dir, cache_dir)) or None


def lacks(scenario: Scenario, runs_dir: Path = Path("runs"), cache_dir: Path | None = None) -> list[str]:
    """The same, one sentence each."""
    if (why := own_limits.proc_refusal()) is not None:  # nothing else can be looked at
        return [why]
    found = (
        *_refused_calls(),
        _memory(scenario),
        _file_size(scenario),
        _address_space(scenario),
        _processes(scenario),
        _open_files(len(scenario.sandboxes())),
        *_disk(scenario, runs_dir, cache_dir),
        _loopback(scenario),
        _required(scenario),
    )
    return [each for each in found if each is not None]


def _refused_calls() -> list[str]:
    from sim.run.host import Available, required_ones

    return [f"{each.name}: {each.detail}; {each.costs}" for each in required_ones() if each.available is Available.NO]


def _memory(scenario: Scenario) -> str | None:
    need, free, room = needed_memory(scenario), free_memory(), own_limits.cgroup_room()
    if need > free:
        return f"it needs {format_size(need)} of memory and {free >> 20} MiB are available"
    ours = _PROCESSES + _GUEST * len(scenario.sandboxes())
    if room is not None and need + ours > room[0]:
        what = f"it needs {format_size(need)} of memory and {ours >> 20} MiB for its processes"
        return f"{what}, and {room[0] >> 20} MiB are left in the cgroup {room[1]}"
    return None


def _file_size(scenario: Scenario) -> str | None:
    need, most = max(each.memory for each in scenario.sandboxes()), own_limits.largest_file()
    if most is None or need <= most:
        return None
    return f"a guest needs a memfd of {format_size(need)} and files may have {most >> 10} KiB (ulimit -f)"


def _address_space(scenario: Scenario) -> str | None:
    need, most = _ADDRESSES + 2 * max(each.memory for each in scenario.sandboxes()), own_limits.address_space()
    if most is None or need <= most:
        return None
    return f"a process of it needs {need >> 20} MiB of address space and may have {most >> 20} MiB (ulimit -v)"


def _processes(scenario: Scenario) -> str | None:
    need = _THREADS + len(scenario.sandboxes())
    left = own_limits.processes_left()
    if left is None or need <= left:
        return None
    return f"it needs {need} processes and threads and {left} more may be started (ulimit -u)"


def _disk(scenario: Scenario, runs_dir: Path, cache_dir: Path | None) -> Iterator[str]:
    if (why := own_limits.refusal_to_write(runs_dir)) is not None:
        yield f"no run folder can be made in {why}; use --runs-dir"
        return
    sandboxes = scenario.sandboxes()
    copied = sum(int(each.memory * each.workload.dirty / 100) for each in sandboxes if _is_copied(each.name, scenario))
    ledger = _LEDGER + _LEDGER_OF_SANDBOX * len(sandboxes)
    caches = cache_dir or (SHM if scenario.node.cache == "tmpfs" else runs_dir)
    needed = {runs_dir: ledger}
    if caches is not SHM or not has_huge():  # else they are memory, which is looked at above
        needed[caches] = needed.get(caches, 0) + copied
    for folder, need in needed.items():
        room, there = own_limits.disk_room(folder)
        if folder == caches and scenario.node.spill is not None:  # what does not fit goes there
            room += own_limits.disk_room(spill_parent(scenario.node.spill))[0]
        if need > room:
            yield f"it writes {need / (1 << 20):.1f} MiB to {there} and {room / (1 << 20):.1f} MiB are free"
        elif (why := own_limits.reserve_refusal(there, need)) is not None:
            yield f"it writes {need / (1 << 20):.1f} MiB to {there}: {why} does not allow that"


def _is_copied(sandbox: str, scenario: Scenario) -> bool:
    steps = [each for each in scenario.steps if isinstance(each, PauseStep | Checkpoint)]
    return any(fnmatch.fnmatchcase(sandbox, each.sandboxes) for each in steps)


def _loopback(scenario: Scenario) -> str | None:
    if scenario.flag_source not in {"relay", "launchdarkly"}:
        return None
    why = own_limits.loopback_refusal()
    return None if why is None else f"its flags come over 127.0.0.1, which cannot be reached: {why}"


def _required(scenario: Scenario) -> str | None:
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

    if any(isinstance(step, Inject) and step.how == "trace-guest" for step in scenario.steps):
        from sim.run import tracing

        if (why := tracing.refusal()) is not None:
            return f"its faults how: trace-guest need one process to trace another (ptrace), which is refused: {why}"
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
    """Bytes available on the host, and below the memory limits that are visible here."""
    room = own_limits.cgroup_room()
    available = _available()
    return available if room is None else min(available, room[0])


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _open_files(sandboxes: int) -> str | None:
    need, (_, limit) = _FDS + FDS_PER_GUEST * sandboxes, resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= need:
        return None
    return f"{sandboxes} guests need {need} open files and the hard limit is {limit}: raise ulimit -Hn"


def set_up_error(error: OSError) -> UserError:
    """Why a run could not be set up; a HostError where this host refused something."""
    what = f"{error.filename}: {error.strerror}" if error.filename else error
    return (HostError if host_error(error) else UserError)(f"the run cannot be set up: {what}")


def check_limits(sandboxes: int, socket: Path) -> None:
    """Raise UserError for limits that would stop a node after it has started.

    The soft limit is raised: this process holds the side memfd of each guest with a heartbeat.
    """
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if (why := _open_files(sandboxes)) is not None:
        raise UserError(why)
    if len(os.fsencode(socket)) > _LONGEST_SOCKET:
        raise UserError(f"{socket} is too long for a socket's path: set TMPDIR to a shorter folder")
