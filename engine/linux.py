"""The Linux calls that Python lacks: one small function each, its errno turned into an OSError.

The only module with `ctypes`. Numbers are those of x86_64 and aarch64 where they agree, else chosen by machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import platform
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # guests are forked from a process that never loads numpy: that keeps a fork near a millisecond
    import numpy as np

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
_libc.process_vm_readv.restype = ctypes.c_ssize_t
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]

_ARM = platform.machine() == "aarch64"
_NR_USERFAULTFD = 282 if _ARM else 323
_NR_CACHESTAT = 451
_PTRACE_SEIZE, _PTRACE_INTERRUPT = 0x4206, 0x4207
_PTRACE_CONT, _PTRACE_DETACH = 7, 17
WALL = 0x40000000  # waitpid(2): threads of other processes too
_TRAP_SECONDS = 2.0  # in which a traced thread reports that it is stopped

FALLOC_KEEP_SIZE = 1
FALLOC_PUNCH_HOLE = 2

F_ADD_SEALS = 1033
F_GET_SEALS = 1034
SEAL_SHRINK, SEAL_GROW, SEAL_WRITE, SEAL_FUTURE_WRITE = 2, 4, 8, 16

TMPFS_MAGIC = 0x01021994
HUGETLBFS_MAGIC = 0x958458F6

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME = 1, 4, 15
_PR_SET_PTRACER = 0x59616D61  # "Yama"

IOV_MAX = 1024

_NR_FSOPEN, _NR_FSCONFIG, _NR_FSMOUNT = 430, 431, 432
_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC = 1, 1
_FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 1, 6

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000

_UFFD_USER_MODE_ONLY = 1
_UFFD_FEATURES = (1 << 15) | (1 << 12) | (1 << 13)  # WP_ASYNC | WP_HUGETLBFS_SHMEM | WP_UNPOPULATED
_UFFDIO_API, _UFFDIO_REGISTER, _UFFDIO_WRITEPROTECT = 0xC018AA3F, 0xC020AA00, 0xC018AA06
_UFFD_REGISTER_MODE_WP = 2
_UFFD_WRITEPROTECT_MODE_WP = 1

_PAGEMAP_SCAN = 0xC0606610
_PAGE_IS_WRITTEN = 2
_PM_SCAN_WP_MATCHING, _PM_SCAN_CHECK_WPASYNC = 1, 2
_SCAN_VECTOR = 1 << 16  # ranges a call may return


def _raise() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def _check(result: int) -> int:
    if result < 0:
        _raise()
    return result


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Free the bytes [offset, offset+length) of a file, keeping its size; raises OSError.

    On hugetlb the kernel zeroes an unaligned part without freeing it (kernel commit 68d32527d340), so alignment is
    the caller's to check.
    """
    _check(_libc.fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, length))


def reserve_beyond_end(fd: int, length: int) -> None:
    """Allocate the file's first `length` bytes on its disk without changing its size; raises OSError(ENOSPC)."""
    _check(_libc.fallocate(fd, FALLOC_KEEP_SIZE, 0, length))


def add_seals(fd: int, seals: int) -> None:
    """Seal a memfd (F_SEAL_*); EPERM if it was made without MFD_ALLOW_SEALING, EINVAL if it is no memfd."""
    fcntl.fcntl(fd, F_ADD_SEALS, seals)


def seals_of(fd: int) -> int:
    """The F_SEAL_* bits of a memfd; EINVAL if the file cannot carry seals."""
    return int(fcntl.fcntl(fd, F_GET_SEALS))


class _CacheStatRange(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint64), ("length", ctypes.c_uint64)]


class _CacheStat(ctypes.Structure):
    _fields_ = [(n, ctypes.c_uint64) for n in ("cache", "dirty", "writeback", "evicted", "recently_evicted")]


def cached_bytes(fd: int, offset: int, length: int) -> int:
    """Bytes of [offset, offset+length) that the page cache holds (cachestat(2), Linux 6.5; not on hugetlb)."""
    span, stat = _CacheStatRange(offset, length), _CacheStat()
    _check(_libc.syscall(_NR_CACHESTAT, fd, ctypes.byref(span), ctypes.byref(stat), 0))
    return int(stat.cache) * mmap.PAGESIZE


def filesystem_magic(fd: int) -> int:
    """`f_type` of fstatfs(2): TMPFS_MAGIC, HUGETLBFS_MAGIC, ..."""
    buffer = ctypes.create_string_buffer(256)
    _check(_libc.fstatfs(fd, buffer))
    return int(struct.unpack_from("<Q", buffer.raw)[0])


def set_parent_death_signal(number: int) -> None:
    """Have the kernel send this process a signal when the thread that forked it dies (PR_SET_PDEATHSIG)."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0))


def set_process_name(name: str) -> None:
    """The name in /proc/PID/comm; 15 bytes are kept."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _check(_libc.prctl(PR_SET_NAME, ctypes.addressof(buffer), 0, 0, 0))


def stop_thread(tid: int) -> None:
    """Ask the kernel to stop one thread of another process (PTRACE_SEIZE, PTRACE_INTERRUPT) for as long as the calling
    thread lives; its process's other threads run on."""
    for request in (_PTRACE_SEIZE, _PTRACE_INTERRUPT):
        _trace(request, tid)


def _trace(request: int, tid: int) -> None:
    _check(_libc.ptrace(ctypes.c_long(request), ctypes.c_long(tid), None, None))


@contextlib.contextmanager
def running_traced(threads: Sequence[int]) -> Iterator[None]:
    """Let these threads of a stopped process run while the block lasts (PTRACE_SEIZE, PTRACE_CONT); no signal is sent,
    and the process counts as stopped all the while. PTRACE_DETACH stops them again.

    The block must stay in the calling thread, which is their tracer. Raises OSError: EPERM where Yama or a seccomp
    filter refuses it, ESRCH where a thread is gone, ETIMEDOUT where one does not stop for its tracer.
    """
    seized: list[int] = []
    try:
        for tid in threads:
            _trace(_PTRACE_SEIZE, tid)
            seized.append(tid)
            _await_trap(tid)
        for tid in seized:
            _trace(_PTRACE_CONT, tid)
        yield
    finally:
        for tid in seized:
            with contextlib.suppress(OSError):  # it is dead, or in a trap already
                _trace(_PTRACE_INTERRUPT, tid)
                _await_trap(tid)
        for tid in seized:
            with contextlib.suppress(OSError):
                _trace(_PTRACE_DETACH, tid)


def _await_trap(tid: int) -> None:
    end = time.monotonic() + _TRAP_SECONDS
    while os.waitpid(tid, os.WNOHANG | WALL)[0] == 0:
        if time.monotonic() > end:
            raise OSError(errno.ETIMEDOUT, f"thread {tid} does not stop for its tracer")
        time.sleep(20e-6)


def unshare(flags: int) -> None:
    """Move this process into new namespaces (CLONE_NEW*); CLONE_NEWUSER: EINVAL unless it has one thread only."""
    _check(_libc.unshare(flags))


def mount_tmpfs(folder: str, size: int) -> None:
    """Mount a tmpfs of `size` bytes on a folder; EPERM without CAP_SYS_ADMIN in the mount's user namespace."""
    options = f"size={size}".encode()
    _check(_libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(0), options))


def detached_tmpfs(options: Mapping[str, str]) -> int:
    """A fd of a new tmpfs that is mounted nowhere, and freed at its last close (fsmount(2), Linux 5.2).

    Like one of O_PATH: for paths through /proc/PID/fd. Raises OSError: EPERM without CAP_SYS_ADMIN over this process's
    mount namespace, EINVAL for an unknown option.
    """
    context = _check(_libc.syscall(_NR_FSOPEN, b"tmpfs", _FSOPEN_CLOEXEC))
    try:
        for name, value in options.items():
            _check(_libc.syscall(_NR_FSCONFIG, context, _FSCONFIG_SET_STRING, name.encode(), value.encode(), 0))
        _check(_libc.syscall(_NR_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0))
        return _check(_libc.syscall(_NR_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0))
    finally:
        os.close(context)


def address_of(mapping: mmap.mmap) -> int:
    """The address of a writable mapping in this process."""
    view = ctypes.c_char.from_buffer(mapping)
    address = ctypes.addressof(view)
    del view
    return address


def copy_memory(destination: int, source: int, length: int) -> None:
    """memmove(3) of `length` bytes between two addresses, without the GIL (an mmap slice assignment keeps it).

    Nothing is checked: both ranges must be mapped, and a file that was truncated under its mapping kills by SIGBUS.
    """
    ctypes.memmove(destination, source, length)


def write_protect_tracking(address: int, length: int) -> int:
    """Have the kernel note writes to [address, address+length) of this process; returns the userfaultfd to keep open.

    UFFD WP_ASYNC: no fault is delivered, writes only clear the protection (Linux 6.7). Raises OSError where refused:
    EPERM or ENOSYS under a seccomp profile, EINVAL on older kernels.
    """
    fd = _check(_libc.syscall(_NR_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK | _UFFD_USER_MODE_ONLY))
    try:
        fcntl.ioctl(fd, _UFFDIO_API, struct.pack("<3Q", 0xAA, _UFFD_FEATURES, 0))
        fcntl.ioctl(fd, _UFFDIO_REGISTER, struct.pack("<4Q", address, length, _UFFD_REGISTER_MODE_WP, 0))
        fcntl.ioctl(fd, _UFFDIO_WRITEPROTECT, struct.pack("<3Q", address, length, _UFFD_WRITEPROTECT_MODE_WP))
    except OSError:
        os.close(fd)
        raise
    return fd


@dataclass(frozen=True, slots=True)
class WrittenRanges:
    """Byte ranges relative to the start of a scan: `starts[i] <= written < ends[i]` (uint64 arrays)."""

    starts: np.ndarray[Any, np.dtype[np.uint64]]
    ends: np.ndarray[Any, np.dtype[np.uint64]]


def scan_written(pagemap_fd: int, address: int, length: int, *, rearm: bool) -> WrittenRanges:
    """What was written in [address, address+length) since protection was armed (PAGEMAP_SCAN on /proc/PID/pagemap).

    With `rearm` the returned pages are protected again atomically. Raises OSError(EPERM) where the range is not
    registered; an unmapped range or a dead process gives an empty list and no error.
    """
    import numpy as np

    flags = _PM_SCAN_CHECK_WPASYNC | (_PM_SCAN_WP_MATCHING if rearm else 0)
    vector = np.empty((_SCAN_VECTOR, 3), dtype=np.uint64)
    parts: list[np.ndarray[Any, np.dtype[np.uint64]]] = []
    start, end = address, address + length
    while start < end:
        argument = struct.pack(
            "<12Q", 96, flags, start, end, 0, vector.ctypes.data, _SCAN_VECTOR, 0, 0, _PAGE_IS_WRITTEN, 0,
            _PAGE_IS_WRITTEN,
        )  # fmt: skip
        buffer = bytearray(argument)
        count = fcntl.ioctl(pagemap_fd, _PAGEMAP_SCAN, buffer, True)
        parts.append(vector[:count, :2] - np.uint64(address))
        if count < _SCAN_VECTOR:  # walk_end may be stale on 6.18: a vector that is not full ends the walk
            break
        start = max(int(struct.unpack_from("<Q", buffer, 32)[0]), int(vector[count - 1, 1]))
    ranges = np.concatenate(parts) if parts else np.empty((0, 2), dtype=np.uint64)
    return WrittenRanges(ranges[:, 0], ranges[:, 1])


def resident_pages(fd: int, length: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which pages of a file are in memory, by mincore(2) through a mapping of our own that is never touched.

    Allocates nothing. Not on hugetlb, which it says nothing of; a swapped page counts as absent. Raises OSError.
    """
    import numpy as np

    address = _libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    if address == ctypes.c_void_p(-1).value:
        _raise()
    try:
        vector = np.empty(-(-length // mmap.PAGESIZE), dtype=np.uint8)
        _check(_libc.mincore(address, length, vector.ctypes.data))
    finally:
        _libc.munmap(address, length)
    return (vector & 1).astype(bool)


@dataclass(frozen=True, slots=True)
class SharedMapping:
    """One shared mapping of a file: [start, end); `name` as /proc/PID/maps has it, `/memfd:NAME (deleted)`."""

    start: int
    end: int
    inode: int
    writable: bool
    name: bytes


_PROCMAP = struct.Struct("<9Q4I2Q")  # size, flags, address, start, end, vma's flags, page size, offset, inode, ...
_PROCMAP_ASKED = struct.Struct("<3Q56xI4xQ8x")  # size, flags, address, ..., room for the name, ..., where it goes, ...
_PROCMAP_QUERY = 0xC0686611
_MAP_WRITABLE, _SHARED_FILES = 2, 0x38  # of a file, shared, at the address or the next one after it
_LONGEST_NAME = 4096


def shared_mappings(pid: int | str) -> list[SharedMapping]:
    """Of a process, in ascending order: by PROCMAP_QUERY (Linux 6.11), else from the text, at ten times the cost. Empty
    where it is gone or has no memory; raises OSError where it may not be looked at."""
    with open(f"/proc/{pid}/maps", "rb", buffering=0) as file:
        try:
            return _asked_for(file.fileno())
        except ProcessLookupError:
            return []
        except OSError as error:
            if error.errno not in {errno.ENOTTY, errno.EINVAL}:
                raise
        return _parsed(file.readall())


def _asked_for(fd: int) -> list[SharedMapping]:
    found: list[SharedMapping] = []
    name, address = ctypes.create_string_buffer(_LONGEST_NAME), 0
    where = ctypes.addressof(name)
    while True:
        query = bytearray(_PROCMAP_ASKED.pack(_PROCMAP.size, _SHARED_FILES, address, _LONGEST_NAME, where))
        try:
            fcntl.ioctl(fd, _PROCMAP_QUERY, query)
        except FileNotFoundError:
            return found
        _, _, _, start, address, flags, _, _, inode, _, _, length, _, _, _ = _PROCMAP.unpack(query)
        found.append(SharedMapping(start, address, inode, bool(flags & _MAP_WRITABLE), name.raw[: max(0, length - 1)]))


def _parsed(maps: bytes) -> list[SharedMapping]:
    found = []
    for span, rights, _, _, inode, *name in (line.split(maxsplit=5) for line in maps.splitlines()):
        if rights[3:4] == b"s" and name:
            start, end = (int(each, 16) for each in span.split(b"-"))
            found.append(SharedMapping(start, end, int(inode), rights[1:2] == b"w", name[0]))
    return found


FailableCall = Literal["preadv", "pwrite", "fallocate", "process_vm_readv"]


@dataclass(frozen=True, slots=True)
class _Failable:
    """A call as a filter knows it: its numbers, and which argument is the 64-bit offset; the first is fd or pid."""

    x86_64: tuple[int, ...]
    aarch64: tuple[int, ...]
    offset: int | None


_FAILABLE: dict[FailableCall, _Failable] = {
    "preadv": _Failable((327, 295), (286, 69), 3),  # os.preadv is preadv2 where libc has it
    "pwrite": _Failable((18,), (68,), 3),
    "fallocate": _Failable((285,), (47,), 2),
    "process_vm_readv": _Failable((310,), (270,), None),  # its addresses lie in memory that no filter can read
}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_SECCOMP_RET_ERRNO, _SECCOMP_RET_ALLOW = 0x00050000, 0x7FFF0000
_BPF_LOAD, _BPF_EQUAL, _BPF_RETURN = 0x20, 0x15, 0x06
_FILTER_INSTRUCTION = struct.Struct("<HBBI")


def fail_calls(call: FailableCall, target: int, offset: int | None, number: int) -> None:
    """Have the kernel answer this thread's `call` on fd (or pid) `target` at byte `offset` with errno `number`.

    A seccomp filter (SECCOMP_RET_ERRNO, no privilege needed): it is for the rest of this thread's life, and of threads
    that it starts later. `offset` counts where the call has one in its registers. Raises OSError where filters are
    refused, ENOSYS on a machine other than x86_64 and aarch64.
    """
    machine, failable = platform.machine(), _FAILABLE[call]
    if machine not in _AUDIT_ARCH:
        raise OSError(errno.ENOSYS, f"no system call numbers are known for {machine}: {os.strerror(errno.ENOSYS)}")
    wanted = [(16, target & 0xFFFFFFFF)]  # struct seccomp_data: nr, arch, instruction pointer, args[6]
    if offset is not None and failable.offset is not None:
        at = 16 + 8 * failable.offset
        wanted += [(at, offset & 0xFFFFFFFF), (at + 4, offset >> 32)]
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    for nr in failable.aarch64 if machine == "aarch64" else failable.x86_64:
        _install(_filter([(4, _AUDIT_ARCH[machine]), (0, nr), *wanted], number))


def _filter(words: list[tuple[int, int]], number: int) -> bytes:
    """ERRNO where every 32-bit word at its offset of seccomp_data has its value, else ALLOW."""
    program = b""
    for index, (at, value) in enumerate(words):
        to_the_end = 2 * (len(words) - index - 1) + 1
        program += _FILTER_INSTRUCTION.pack(_BPF_LOAD, 0, 0, at)
        program += _FILTER_INSTRUCTION.pack(_BPF_EQUAL, 0, to_the_end, value)
    program += _FILTER_INSTRUCTION.pack(_BPF_RETURN, 0, 0, _SECCOMP_RET_ERRNO | number)
    return program + _FILTER_INSTRUCTION.pack(_BPF_RETURN, 0, 0, _SECCOMP_RET_ALLOW)


def _install(program: bytes) -> None:
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("<HxxxxxxQ", len(program) // _FILTER_INSTRUCTION.size, ctypes.addressof(code))
    argument = ctypes.create_string_buffer(head, len(head))
    _check(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(argument), 0, 0))


def allow_tracer(pid: int) -> bool:
    """Let process `pid` read this one's memory where Yama restricts that to ancestors; False where Yama is absent."""
    return bool(_libc.prctl(_PR_SET_PTRACER, pid, 0, 0, 0) == 0)


class _IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def read_process(pid: int, buffer: memoryview, address: int, runs: Sequence[tuple[int, int]]) -> int:
    """Read `runs` of (offset, length) relative to `address` of a process into the same offsets of `buffer`.

    At most IOV_MAX runs and less than 2 GiB a call (process_vm_readv); gives the bytes read, which may be fewer. Raises
    OSError: ESRCH where it is gone, EPERM under Yama, EFAULT for unmapped memory, ENOMEM.
    """
    return _read_process(pid, buffer, runs, address, runs)


def read_process_packed(pid: int, buffer: memoryview, address: int, runs: Sequence[tuple[int, int]]) -> int:
    """The same, into the buffer's start, one run after the other."""
    return _read_process(pid, buffer, [(0, sum(length for _, length in runs))], address, runs)


def _read_process(
    pid: int, buffer: memoryview, places: Sequence[tuple[int, int]], address: int, runs: Sequence[tuple[int, int]]
) -> int:
    base = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    local = (_IoVec * len(places))(*(_IoVec(base + offset, length) for offset, length in places))
    remote = (_IoVec * len(runs))(*(_IoVec(address + offset, length) for offset, length in runs))
    into, count = ctypes.c_ulong(len(places)), ctypes.c_ulong(len(runs))
    return int(_check(_libc.process_vm_readv(pid, local, into, remote, count, ctypes.c_ulong(0))))
