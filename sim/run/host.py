"""What this host offers, found by trying: never by a version number."""

from __future__ import annotations

import errno
import functools
import importlib
import mmap
import os
import resource
import signal
import tempfile
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
from sim.node.cgroup import MemoryCgroup, hierarchies

_HUGE_POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB"
_FDS_PER_GUEST = 4
_NO_FD = -1
CALL_FILTER = "system call filter"
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
    """Whether a thing works here; LIMITED works, but not as one would wish."""

    YES = "yes"
    LIMITED = "limited"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found."""

    available: Available
    detail: str


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to try: `costs` says what its absence means, `needs` what would allow it."""

    name: str
    ask: Callable[[], Answer]
    costs: str
    needs: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """A question and its answer."""

    name: str
    available: Available
    required: bool
    detail: str
    costs: str
    needs: str


def find(question: Question) -> Finding:
    """Try it; a refusal by the kernel is an answer, with its errno."""
    try:
        answer = question.ask()
    except OSError as error:
        answer = Answer(Available.NO, f"{errno_name(error) or 'error'}: {error.strerror or error}")
    except ImportError as error:
        answer = Answer(Available.NO, str(error))
    return Finding(question.name, answer.available, question.required, answer.detail, question.costs, question.needs)


def findings() -> list[Finding]:
    """Everything, in the order in which it matters; under half a second."""
    return [find(question) for question in QUESTIONS]


def host() -> dict[str, Any]:
    """What a ledger keeps of the host: names and sizes (bytes), and what works as booleans."""
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
    """Of the package that is installed, whose files are read once."""
    return version("snapdrill")


@functools.cache
def _works() -> dict[str, bool]:
    """Tried once a process: it does not change while one lives."""
    asked = [each for each in QUESTIONS if each.name in _IN_LEDGER]
    return {_IN_LEDGER[each.name]: find(each).available is not Available.NO for each in asked}


@contextmanager
def _memfd(size: int, flags: int = 0) -> Iterator[int]:
    fd = os.memfd_create("snapdrill-probe", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags)
    try:
        os.ftruncate(fd, size)
        yield fd
    finally:
        os.close(fd)


def _sealed_memfd() -> Answer:
    wanted = linux.SEAL_SHRINK | linux.SEAL_GROW
    with _memfd(mmap.PAGESIZE) as fd:
        linux.add_seals(fd, wanted)
        if linux.seals_of(fd) & wanted != wanted:
            return Answer(Available.NO, "the seals were accepted and are not there")
    return Answer(Available.YES, "made, and sealed against resizing")


def _punch() -> Answer:
    """A punch counts when st_blocks fell, not when the call returned."""
    size = 16 * mmap.PAGESIZE
    with _memfd(size) as fd:
        os.pwrite(fd, b"x" * size, 0)
        before = os.fstat(fd).st_blocks * 512
        linux.punch_hole(fd, 0, size // 2)
        freed = before - os.fstat(fd).st_blocks * 512
    if freed < size // 2:
        return Answer(Available.NO, f"the call returned, but freed {freed} of {size // 2} bytes")
    return Answer(Available.YES, f"freed {freed} of {freed} bytes (st_blocks)")


def _pidfd() -> Answer:
    fd = os.pidfd_open(os.getpid())
    try:
        signal.pidfd_send_signal(fd, 0)
    finally:
        os.close(fd)
    return Answer(Available.YES, "opened and signalled")


def _write_protect_scan() -> Answer:
    """The way a guest is tracked, on memory of this very process: one page of four is written and must be told."""
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
    told = list(zip(found.starts.tolist(), found.ends.tolist(), strict=True))
    if told != [(page, 2 * page)]:
        return Answer(Available.NO, f"page 1 of 4 was written, the scan told {told}")
    return Answer(Available.YES, "userfaultfd write-protection and PAGEMAP_SCAN told the one page written")


def _cachestat() -> Answer:
    size = 2 * mmap.PAGESIZE
    with _memfd(size) as fd:
        os.pwrite(fd, b"x" * size, 0)
        counted = linux.cached_bytes(fd, 0, size)
    return Answer(Available.YES if counted == size else Available.NO, f"counted {counted} of {size} bytes")


def _pool(name: str) -> int:
    """Pages of 2 MiB; 0 where there is no such pool."""
    try:
        return int(Path(_HUGE_POOL, name).read_text())
    except OSError:
        return 0


def _hugetlb() -> Answer:
    """fallocate reserves a page; touching one of an empty pool would be SIGBUS."""
    pool = f"{_pool('free_hugepages')} of {_pool('nr_hugepages')} pages free"
    try:
        with _memfd(HUGE_PAGE, os.MFD_HUGETLB | os.MFD_HUGE_2MB) as fd:
            os.posix_fallocate(fd, 0, HUGE_PAGE)
    except OSError as error:
        return Answer(Available.NO, f"{errno_name(error)}: {error.strerror}; pool: {pool}")
    return Answer(Available.YES, f"one page taken and given back; pool: {pool}")


def _memory_cgroup() -> Answer:
    """Made as a run makes its own; where that is refused, asked once more for the reason."""
    name = f"probe-{os.getpid()}"
    made = MemoryCgroup.make(name, HUGE_PAGE)
    if made is not None:
        removed = made.remove()
        return Answer(Available.YES if removed else Available.LIMITED, f"made one with a limit in {made.folder.parent}")
    reasons = [f"{parent}: {_refusal(parent / f'snapdrill-{name}', limit)}" for parent, limit, _ in hierarchies()]
    return Answer(Available.NO, "; ".join(reasons) or "no memory cgroup hierarchy is mounted")


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
    return "it went away as it was tried"


def _shm() -> Answer:
    status = os.statvfs(_SHM)
    size, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
    available = Available.YES if free >= 256 << 20 else Available.LIMITED
    return Answer(available, f"{free >> 20} of {size >> 20} MiB free")


def _cache_filesystem() -> Answer:
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
    return Answer(Available.LIMITED if name in ("tmpfs", "nfs") else Available.YES, detail)


def _open_files() -> Answer:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    guests = soft // _FDS_PER_GUEST
    available = Available.YES if guests >= 1000 else Available.LIMITED
    return Answer(available, f"soft limit {soft}, hard limit {hard}: about {guests} guests")


def _memory() -> tuple[int, int]:
    """Bytes in all, and bytes that the kernel thinks can be had without swapping (/proc/meminfo)."""
    with open("/proc/meminfo", encoding="ascii") as file:
        fields = {line.split(":")[0]: int(line.split()[1]) << 10 for line in file}
    return fields["MemTotal"], fields["MemAvailable"]


def _free_memory() -> Answer:
    total, available = _memory()
    enough = Available.YES if available >= 1 << 30 else Available.LIMITED
    return Answer(enough, f"{available >> 20} of {total >> 20} MiB can be had")


def _private_tmpfs() -> Answer:
    """In a child: namespaces are entered, never left."""
    with tempfile.TemporaryDirectory(prefix="snapdrill-probe-") as folder:
        child = os.fork()
        if child == 0:
            os._exit(_mount_in_new_namespaces(folder))
        _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise OSError(code, os.strerror(code) if code > 0 else f"the child was killed by signal {-code}")
    return Answer(Available.YES, "mounted a small tmpfs in a private namespace")


def _mount_in_new_namespaces(folder: str) -> int:
    """0, or the errno that stopped it."""
    try:
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
        linux.mount_tmpfs(folder, 1 << 20)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _call_filter() -> Answer:
    """On a thread that ends with it: the kernel must answer a call by an errno that the call itself never has."""
    told: list[OSError] = []

    def try_it() -> None:
        try:
            linux.fail_calls("fallocate", _NO_FD, 0, errno.EXDEV)
            linux.punch_hole(_NO_FD, 0, mmap.PAGESIZE)
        except OSError as error:
            told.append(error)

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    if not told or told[0].errno != errno.EXDEV:
        raise told[0] if told else OSError(errno.ENOSYS, "the filter had no effect")
    return Answer(Available.YES, "a seccomp filter on one thread returned the errno that it was to return")


def _yama() -> Answer:
    path = Path("/proc/sys/kernel/yama/ptrace_scope")
    if not path.exists():
        return Answer(Available.YES, "Yama is not in this kernel")
    scope = int(path.read_text())
    return Answer(Available.YES if scope == 0 else Available.LIMITED, f"ptrace_scope is {scope}")


def _launchdarkly() -> Answer:
    importlib.import_module("flags.launchdarkly")
    return Answer(Available.YES, "the SDK is there: flags are evaluated by it")


def _cpus() -> Answer:
    count = len(os.sched_getaffinity(0))
    return Answer(Available.YES if count > 1 else Available.LIMITED, f"{count} of {os.cpu_count()} for this process")


QUESTIONS: tuple[Question, ...] = (
    Question("memfd and seals", _sealed_memfd, "no guest has memory: nothing runs", "Linux with memfd_create", True),
    Question("punch a memfd", _punch, "what is rehearsed cannot happen: nothing runs", "shmem in the kernel", True),
    Question("pidfd", _pidfd, "no guest's death can be confirmed: nothing runs", "Linux >= 5.3", True),
    Question(
        "write-protect scan",
        _write_protect_scan,
        "dirty blocks are not known: every resident block is copied",
        "Linux >= 6.7, and a seccomp profile that lets userfaultfd through (Docker's default does not)",
    ),
    Question(
        "LaunchDarkly SDK",
        _launchdarkly,
        "no flag can be evaluated",
        "pip install launchdarkly-server-sdk, or make demo",
    ),
    Question(
        "hugetlb 2 MiB pages",
        _hugetlb,
        "page_size: 2MiB cannot run; 4 KiB shmem stands in",
        "root: echo 64 > /proc/sys/vm/nr_hugepages",
    ),
    Question(
        "memory cgroup",
        _memory_cgroup,
        "the node's memory budget is checked, not enforced",
        "root, or a delegated cgroup with the memory controller",
    ),
    Question(
        "cachestat",
        _cachestat,
        "cache bytes on disk count as written, not as the page cache holds them",
        "Linux >= 6.5, and a seccomp profile that lets it through",
    ),
    Question(_SHM, _shm, "few caches fit with node: {cache: tmpfs}", "docker run --shm-size=1g"),
    Question(
        "cache filesystem",
        _cache_filesystem,
        "with node: {cache: disk} the caches take memory (tmpfs) or are slow and uncounted (nfs)",
        "--runs-dir on a local disk",
    ),
    Question("open files", _open_files, "fewer than 1,000 guests", "ulimit -n 65536"),
    Question("free memory", _free_memory, "large fleets are OOM-killed", "free memory, or smaller scenarios"),
    Question(
        "user namespace, tmpfs",
        _private_tmpfs,
        "no really full disk; faults are injected all the same",
        "kernel.unprivileged_userns_clone=1, or a seccomp profile that lets unshare and mount through",
    ),
    Question(
        CALL_FILTER,
        _call_filter,
        "no fault can come from the kernel itself (inject with by: kernel); faults are injected all the same",
        "x86_64 or aarch64, and seccomp filters (CONFIG_SECCOMP_FILTER)",
    ),
    Question(
        "Yama",
        _yama,
        "process_vm_readv of a guest is refused to all but its parents; a memfd is read all the same",
        "sysctl kernel.yama.ptrace_scope=0",
    ),
    Question("CPUs", _cpus, "the two workers of a copy share one CPU: figures of speed say little", "two CPUs"),
)

_IN_LEDGER = {
    CALL_FILTER: "call_filter",
    "punch a memfd": "punch",
    "write-protect scan": "write_protect_scan",
    "hugetlb 2 MiB pages": "hugetlb",
    "memory cgroup": "cgroup",
    "cachestat": "cachestat",
}
