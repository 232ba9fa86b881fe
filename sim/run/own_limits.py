"""The limits that this process and its children run under, as far as they are visible: cgroups, disks, rlimits.

Bytes. Quotas are found by trying; the ancestors of a cgroup namespace hide their limits.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from engine.linux import TMPFS_MAGIC, filesystem_magic, reserve_beyond_end
from sim.node.cgroup import hierarchies

_UNLIMITED = 1 << 60


def cgroup_room() -> tuple[int, Path] | None:
    """The least that is left below a memory limit of this process's cgroup or one above it, and which cgroup that is.

    None where none is visible.
    """
    found = [each for folder, limit, _ in hierarchies() for each in _rooms(folder, limit)]
    return min(found, default=None)


def _rooms(folder: Path, limit_file: str) -> Iterator[tuple[int, Path]]:
    usage_file = "memory.current" if limit_file == "memory.max" else "memory.usage_in_bytes"
    for each in (folder, *folder.parents):
        if not (each / "cgroup.procs").exists():
            return
        with contextlib.suppress(OSError, ValueError):  # "max", or the root, which has none
            limit = int((each / limit_file).read_text())
            if limit < _UNLIMITED:
                used = int((each / usage_file).read_text()) - _reclaimable(each)
                yield max(0, limit - used), each


def _reclaimable(folder: Path) -> int:
    """The page cache of files, which the kernel drops before it kills."""
    with contextlib.suppress(OSError, ValueError):
        lines = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return sum(int(value) for name, value in lines if name in {"inactive_file", "total_inactive_file"})
    return 0


def dies_with_its_run() -> Path | None:
    """The cgroup of this process, or one above it, that the kernel ends as a whole; cgroup v2's memory.oom.group."""
    for folder, limit, _ in hierarchies():
        for each in (folder, *folder.parents) if limit == "memory.max" else ():
            with contextlib.suppress(OSError):
                if (each / "memory.oom.group").read_text().strip() == "1":
                    return each
    return None


def visible() -> list[str]:
    """Every limit that is seen here, in words."""
    room = cgroup_room()
    sizes = {
        "address space": address_space(),
        "file size": largest_file(),
        f"memory left in {room[1] if room else ''}": room[0] if room else None,
    }
    told = [f"{name} {size >> 20} MiB" for name, size in sizes.items() if size is not None]
    told += [f"{left} more processes"] if (left := processes_left()) is not None else []
    if (whole := dies_with_its_run()) is not None:
        told.append(f"memory.oom.group of {whole}: out of memory, the kernel ends the runner with its run")
    return told


def proc_refusal() -> str | None:
    """Why /proc cannot be used: nothing is mounted there, or that of another PID namespace. None where it can."""
    try:
        seen = int(os.readlink("/proc/self"))
    except (OSError, ValueError):
        return "/proc is not mounted here, or is that of another PID namespace; mount it: mount -t proc proc /proc"
    if seen != os.getpid():
        return "/proc is that of another PID namespace; mount it anew: mount -t proc proc /proc"
    return None


def processes_left() -> int | None:
    """How many more processes and threads this user may have; None where RLIMIT_NPROC does not bind."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft == resource.RLIM_INFINITY or os.geteuid() == 0:
        return None
    used = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == os.geteuid():
                used += len(os.listdir(f"/proc/{name}/task"))
    return max(0, soft - used)


def largest_file() -> int | None:
    """RLIMIT_FSIZE, which limits a memfd too; None where there is none."""
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if soft == resource.RLIM_INFINITY else soft


def address_space() -> int | None:
    """RLIMIT_AS of each process; None where there is none."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def disk_room(folder: Path) -> tuple[int, Path]:
    """Free bytes on the disk of a folder that may not exist yet, and the part of its path that does."""
    there = folder.absolute()
    while not there.is_dir():
        there = there.parent
    disk = os.statvfs(there)
    return disk.f_bavail * disk.f_frsize, there


def refusal_to_write(folder: Path) -> str | None:
    """Why nothing can be made in a folder that may not exist yet; None where it can."""
    _, there = disk_room(folder)
    probe = there / f".snapdrill-probe-{os.getpid()}"
    try:
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        return f"{there}: {error.strerror}"
    os.close(fd)
    os.unlink(probe)
    return None


def reserve_refusal(folder: Path, size: int) -> str | None:
    """Why a disk does not take `size` bytes more, though it says that they are free: a quota. None where it does.

    Tried, since only that shows a quota, and given back at once. On tmpfs it is not: there it would take the memory.
    """
    most = largest_file()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if filesystem_magic(file.fileno()) != TMPFS_MAGIC:
                reserve_beyond_end(file.fileno(), size if most is None else min(size, most))
    except OSError as error:
        return "a quota" if error.errno == errno.EDQUOT else None
    return None


def loopback_refusal() -> str | None:
    """Why 127.0.0.1 cannot be spoken to; None where it can."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
            client.settimeout(1.0)
            client.connect(server.getsockname())
    except OSError as error:
        return error.strerror or str(error)
    return None
