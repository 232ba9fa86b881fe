"""What this host offers, found by trying it, never by a version number."""

from __future__ import annotations

import errno
import functools
import importlib
import mmap
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine import linux
from engine.errors import errno_name
from sim.files.units import HUGE_PAGE
from sim.node import vm_trial
from sim.node.cgroup import MemoryCgroup, hierarchies
from sim.node.guest_link import FDS_PER_GUEST
from sim.run import own_limits, private_tmpfs

_HUGE_POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB"
_NO_FD = -1
CALL_FILTER = "system call filter"
KVM = "virtual machines"
_SHM = "/dev/shm"  # noqa: S108 - the mount itself is asked about, no file is made in it
_FILESYSTEMS = {
    linux.TMPFS_MAGIC: "tmpfs",
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x794C7630: "overlayfs",
    0xF2F52010: "f2fs",
    0x2FC12FC1: "zfs",
    0x6969: "nfs",
}
"""`f_type` of statfs(2)."""


class Available(StrEnum):
    """Whether something works here; LIMITED works with drawbacks."""

    YES = "yes"
    LIMITED = "limited"
    NO = "no"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe found."""

    available: Available
    detail: str


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing to try: `costs` says what its absence means, `needs` what would allow it."""

    name: str
    ask: Callable[[], ProbeResult]
    costs: str
    needs: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Capability:
    """A probe with its result."""

    name: str
    available: Available
    required: bool
    detail: str
    costs: str
    needs: str


def try_out(probe: Probe) -> Capability:
    """Try it; a refusal by the kernel is an answer, with its errno."""
    try:
        answer = probe.ask()
    except OSError as error:
        of = f"{error.filename}: " if error.filename else ""
        answer = ProbeResult(Available.NO, f"{errno_name(error) or 'error'}: {of}{error.strerror or error}")
    except ImportError as error:
        answer = ProbeResult(Available.NO, str(error))
    return Capability(probe.name, answer.available, probe.required, answer.detail, probe.costs, probe.needs)


def capabilities() -> list[Capability]:
    """Everything, the most important first; takes under half a second."""
    return [try_out(probe) for probe in PROBES]


def capability(name: str) -> Capability:
    """One of them, by its name."""
    return next(try_out(each) for each in PROBES if each.name == name)


@functools.cache
def required_ones() -> list[Capability]:
    """What every run needs; tried once."""
    return [try_out(probe) for probe in PROBES if probe.required]


def host() -> dict[str, Any]:
    """The host's part of a ledger: names, sizes (bytes), and a boolean for each capability."""
    system = os.uname()
    total, available = _memory()
    return {
        "kernel": system.release,
        "machine": system.machine,
        "cpus": len(os.sched_getaffinity(0)),
        "memory": total,
        "memory_available": available,
        "page_size": mmap.PAGESIZE,
        "hugetlb_free": _pool("free_hugepages") * HUGE_PAGE,
        **_works(),
    }


@functools.cache
def snapdrill_version() -> str:
    """Of the installed package, whose files are read once."""
    return version("snapdrill")


@functools.cache
def _works() -> dict[str, bool]:
    tried = {name: try_out(each) for each in PROBES if (name := _IN_LEDGER.get(each.name))}
    return {name: each.available is not Available.NO for name, each in tried.items()}


@contextmanager
def _memfd(size: int, flags: int = 0) -> Iterator[int]:
    fd = os.memfd_create("snapdrill-probe", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags)
    try:
        os.ftruncate(fd, size)
        yield fd
    finally:
        os.close(fd)


def _sealed_memfd() -> ProbeResult:
    wanted = linux.SEAL_SHRINK | linux.SEAL_GROW
    with _memfd(mmap.PAGESIZE) as fd:
        linux.add_seals(fd, wanted)
        if linux.seals_of(fd) & wanted != wanted:
            return ProbeResult(Available.NO, "the call accepted the seals but did not set them")
    return ProbeResult(Available.YES, "made, and sealed against resizing")


def _punch() -> ProbeResult:
    """A punch counts when st_blocks fell, not when the call returned."""
    size = 16 * mmap.PAGESIZE
    with _memfd(size) as fd:
        os.pwrite(fd, b"x" * size, 0)
        before = os.fstat(fd).st_blocks * 512
        linux.punch_hole(fd, 0, size // 2)
        freed = before - os.fstat(fd).st_blocks * 512
    if freed < size // 2:
        return ProbeResult(Available.NO, f"the call returned, but freed {freed} of {size // 2} bytes")
    return ProbeResult(Available.YES, f"freed {freed} of {freed} bytes (st_blocks)")


def _pidfd() -> ProbeResult:
    fd = os.pidfd_open(os.getpid())
    try:
        signal.pidfd_send_signal(fd, 0)
    finally:
        os.close(fd)
    return ProbeResult(Available.YES, "opened and signalled")


def _write_protect_scan() -> ProbeResult:
    """Tracks memory of this process as a guest's is tracked: one of four pages is written and must be reported."""
    size, page = 4 * mmap.PAGESIZE, mmap.PAGESIZE
    with _memfd(size) as fd, mmap.mmap(fd, size) as mapping:
        address = linux.address_of(mapping)
        uffd = linux.write_protect_tracking(address, size)
        pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            mapping[page] = 1
            found = linux.scan_written(pagemap, address, size, rearm=False)
        finally:
            os.close(pagemap)
            os.close(uffd)
    reported = list(zip(found.starts.tolist(), found.ends.tolist(), strict=True))
    if reported != [(page, 2 * page)]:
        return ProbeResult(Available.NO, f"page 1 of 4 was written, the scan reported {reported}")
    return ProbeResult(Available.YES, "userfaultfd write-protection and PAGEMAP_SCAN reported the one page written")


def _cachestat() -> ProbeResult:
    size = 2 * mmap.PAGESIZE
    with _memfd(size) as fd:
        os.pwrite(fd, b"x" * size, 0)
        counted = linux.cached_bytes(fd, 0, size)
    return ProbeResult(Available.YES if counted == size else Available.NO, f"counted {counted} of {size} bytes")


def _pool(name: str) -> int:
    """Pages of 2 MiB; 0 if there is no such pool."""
    try:
        return int(Path(_HUGE_POOL, name).read_text())
    except OSError:
        return 0


def _hugetlb() -> ProbeResult:
    """fallocate reserves a page; touching one of an empty pool would be SIGBUS."""
    pool = f"{_pool('free_hugepages')} of {_pool('nr_hugepages')} pages free"
    try:
        with _memfd(HUGE_PAGE, os.MFD_HUGETLB | os.MFD_HUGE_2MB) as fd:
            os.posix_fallocate(fd, 0, HUGE_PAGE)
    except OSError as error:
        return ProbeResult(Available.NO, f"{errno_name(error)}: {error.strerror}; pool: {pool}")
    return ProbeResult(Available.YES, f"one page taken and given back; pool: {pool}")


def _memory_cgroup() -> ProbeResult:
    """Makes a cgroup as a run does; if that is refused, tries again to learn the reason."""
    name = f"probe-{os.getpid()}"
    made = MemoryCgroup.make(name, HUGE_PAGE)
    if made is not None:
        removed = made.remove()
        return ProbeResult(
            Available.YES if removed else Available.LIMITED, f"made one with a limit in {made.folder.parent}"
        )
    reasons = [f"{parent}: {_refusal(parent / f'snapdrill-{name}', limit)}" for parent, limit, _ in hierarchies()]
    return ProbeResult(Available.NO, "; ".join(reasons) or "no memory cgroup hierarchy is mounted")


def _refusal(folder: Path, limit_file: str) -> str:
    """Why no cgroup with a memory limit can be made there."""
    try:
        folder.mkdir()
    except OSError as error:
        return f"{errno_name(error)}: {error.strerror}"
    try:
        (folder / limit_file).write_text(str(HUGE_PAGE))
    except OSError as error:
        return f"{limit_file}: {errno_name(error)}: {error.strerror}"
    finally:
        folder.rmdir()
    return "it was removed during the check"


def _shm() -> ProbeResult:
    status = os.statvfs(_SHM)
    size, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
    available = Available.YES if free >= 256 << 20 else Available.LIMITED
    return ProbeResult(available, f"{free >> 20} of {size >> 20} MiB free")


def _cache_filesystem() -> ProbeResult:
    """Caches lie in the run folder, and runs/ in the current folder."""
    folder = os.path.realpath("runs" if os.path.isdir("runs") else ".")
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        magic = linux.filesystem_magic(fd)
    finally:
        os.close(fd)
    name = _FILESYSTEMS.get(magic, f"filesystem {magic:#x}")
    status = os.statvfs(folder)
    detail = f"{name} in {folder}, {status.f_bavail * status.f_frsize >> 20} MiB free"
    return ProbeResult(Available.LIMITED if name in ("tmpfs", "nfs") else Available.YES, detail)


def _open_files() -> ProbeResult:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    guests = soft // FDS_PER_GUEST
    available = Available.YES if guests >= 1000 else Available.LIMITED
    return ProbeResult(available, f"soft limit {soft}, hard limit {hard}: about {guests} guests")


def _memory() -> tuple[int, int]:
    """Total bytes, and bytes available without swapping by the kernel's estimate (/proc/meminfo)."""
    with open("/proc/meminfo", encoding="ascii") as file:
        fields = {line.split(":")[0]: int(line.split()[1]) << 10 for line in file}
    return fields["MemTotal"], fields["MemAvailable"]


def _free_memory() -> ProbeResult:
    total, available = _memory()
    enough = Available.YES if available >= 1 << 30 else Available.LIMITED
    return ProbeResult(enough, f"{available >> 20} of {total >> 20} MiB available")


def _call_filter() -> ProbeResult:
    """On a thread of its own: the kernel must answer a call with an errno that the call itself never returns."""
    errors: list[OSError] = []

    def try_it() -> None:
        try:
            linux.fail_calls("fallocate", _NO_FD, 0, errno.EXDEV)
            linux.punch_hole(_NO_FD, 0, mmap.PAGESIZE)
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    if not errors or errors[0].errno != errno.EXDEV:
        raise errors[0] if errors else OSError(errno.ENOSYS, "the filter had no effect")
    return ProbeResult(Available.YES, "a seccomp filter on one thread returned the errno that it was set to return")


def _once_done(act: Callable[[], str]) -> Callable[[], ProbeResult]:
    """Of an act that says what it did, or raises OSError."""
    return lambda: ProbeResult(Available.YES, act())


def _yama() -> ProbeResult:
    path = Path("/proc/sys/kernel/yama/ptrace_scope")
    if not path.exists():
        return ProbeResult(Available.YES, "Yama is not in this kernel")
    scope = int(path.read_text())
    return ProbeResult(Available.YES if scope == 0 else Available.LIMITED, f"ptrace_scope is {scope}")


def _launchdarkly() -> ProbeResult:
    importlib.import_module("flags.launchdarkly")
    return ProbeResult(Available.YES, "the SDK is installed and evaluates the flags")


def _cpus() -> ProbeResult:
    count = len(os.sched_getaffinity(0))
    return ProbeResult(
        Available.YES if count > 1 else Available.LIMITED, f"{count} of {os.cpu_count()} for this process"
    )


def _proc() -> ProbeResult:
    why = own_limits.proc_refusal()
    return ProbeResult(Available.YES if why is None else Available.NO, why or "mounted, and of this PID namespace")


def _loopback() -> ProbeResult:
    why = own_limits.loopback_refusal()
    return ProbeResult(Available.YES if why is None else Available.NO, why or "listened and connected")


def _limits() -> ProbeResult:
    """What would end a run or one of its processes, as far as it can be seen."""
    told = own_limits.visible()
    return ProbeResult(Available.LIMITED if told else Available.YES, "; ".join(told) or "none is visible")


PROBES: tuple[Probe, ...] = (
    Probe("/proc", _proc, "no process can be looked at: nothing runs", "mount -t proc proc /proc", True),
    Probe("memfd and seals", _sealed_memfd, "no guest has memory: nothing runs", "Linux with memfd_create", True),
    Probe("punch a memfd", _punch, "no memory can be punched: nothing runs", "shmem in the kernel", True),
    Probe("pidfd", _pidfd, "no guest's death can be confirmed: nothing runs", "Linux >= 5.3", True),
    Probe(
        "write-protect scan",
        _write_protect_scan,
        "dirty blocks are not known: every resident block is copied",
        "Linux >= 6.7, and a seccomp profile that lets userfaultfd through (Docker's default does not)",
    ),
    Probe("LaunchDarkly SDK", _launchdarkly, "no flag can be evaluated", "pip install launchdarkly-server-sdk"),
    Probe(
        "hugetlb 2 MiB pages",
        _hugetlb,
        "page_size: 2MiB cannot run; 4 KiB shmem stands in",
        "root: echo 64 > /proc/sys/vm/nr_hugepages",
    ),
    Probe(
        "memory cgroup",
        _memory_cgroup,
        "the node's memory budget is checked, not enforced",
        "root, or a delegated cgroup with the memory controller",
    ),
    Probe(
        "cachestat",
        _cachestat,
        "cache bytes on disk count as written, not as the page cache holds them",
        "Linux >= 6.5, and a seccomp profile that lets it through",
    ),
    Probe(_SHM, _shm, "few caches fit with node: {cache: tmpfs}", "docker run --shm-size=1g"),
    Probe(
        "cache filesystem",
        _cache_filesystem,
        "with node: {cache: disk} the caches take memory (tmpfs) or are slow and uncounted (nfs)",
        "--runs-dir on a local disk",
    ),
    Probe("open files", _open_files, "fewer than 1,000 guests", "ulimit -n 65536"),
    Probe("free memory", _free_memory, "large fleets are OOM-killed", "free memory, or smaller scenarios"),
    Probe("limits", _limits, "what needs more is skipped", "a larger container, or ulimit"),
    Probe("loopback", _loopback, "no relay and no LaunchDarkly can serve flags", "ip link set lo up"),
    Probe(
        "huge-page caches",
        _once_done(private_tmpfs.try_huge),
        "node: {cache: tmpfs} puts caches into /dev/shm, in pages of 4 KiB, which takes more CPU",
        "Linux >= 5.2 with shmem_enabled (transparent_hugepage) not deny, and root or a user namespace",
    ),
    Probe(
        "user namespace, tmpfs",
        _once_done(private_tmpfs.try_out),
        "no test on a really full disk; faults are still injected",
        "kernel.unprivileged_userns_clone=1, or a seccomp profile that lets unshare and mount through",
    ),
    Probe(
        CALL_FILTER,
        _call_filter,
        "no fault can be returned by the kernel itself (inject with by: kernel); other faults are still injected",
        "x86_64 or aarch64, and seccomp filters (CONFIG_SECCOMP_FILTER)",
    ),
    Probe(
        KVM,
        _once_done(vm_trial.try_out),
        "guest: vm cannot run; guests are processes (guest: auto takes them)",
        "x86_64 and read and write access to /dev/kvm: root or group kvm; in a virtual machine its host must allow "
        "nested virtualization; docker run --device /dev/kvm",
    ),
    Probe(
        "Yama",
        _yama,
        "process_vm_readv of a guest is refused except to its parents; a memfd can still be read",
        "sysctl kernel.yama.ptrace_scope=0",
    ),
    Probe("CPUs", _cpus, "the two workers of a copy share one CPU: measured speeds mean little", "two CPUs"),
)

_IN_LEDGER = {
    CALL_FILTER: "call_filter",
    "punch a memfd": "punch",
    "write-protect scan": "write_protect_scan",
    "hugetlb 2 MiB pages": "hugetlb",
    "memory cgroup": "cgroup",
    "cachestat": "cachestat",
    KVM: "kvm",
}
