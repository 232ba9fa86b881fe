"""A tmpfs in no mount table, made in a child process where it takes namespaces of its own: one that is entered cannot
be left."""

from __future__ import annotations

import errno
import functools
import os
import socket
import tempfile
from collections.abc import Callable

from engine import linux

_HUGE = {"huge": "within_size", "mode": "700"}
_TRIAL = 2 << 20


def try_out() -> str:
    """What was done; raises OSError where the kernel refuses it."""
    with tempfile.TemporaryDirectory(prefix="snapdrill-probe-") as folder:
        _in_a_child(lambda: _mount(folder))
    return "mounted a small tmpfs in a private namespace"


def try_huge() -> str:
    """What was done; raises OSError where this host has none."""
    os.close(open_huge())
    return "opened a tmpfs that is mounted nowhere and gives pages of 2 MiB"


def _mount(folder: str) -> None:
    linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
    linux.mount_tmpfs(folder, 1 << 20)


@functools.cache
def has_huge() -> bool:
    """Whether this host has one; tried once."""
    try:
        return bool(try_huge())
    except OSError:
        return False


def open_huge() -> int:
    """A fd of the root of a new tmpfs with huge pages, for this user; nothing of it is left after its last close.

    Raises OSError where this host has none: no user namespace and not root, or shmem without huge pages.
    """
    try:
        folder = linux.detached_tmpfs(_HUGE)
    except PermissionError:
        folder = _received()
    try:
        _check_pages(folder)
    except OSError:
        os.close(folder)
        raise
    return folder


def _received() -> int:
    """From a child, in namespaces in which this user may mount."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _in_a_child(lambda: _send(theirs, os.geteuid(), os.getegid()))
        _, fds, _, _ = socket.recv_fds(ours, 1, 1, socket.MSG_DONTWAIT)
    os.set_inheritable(fds[0], False)
    return fds[0]


def _send(to: socket.socket, user: int, group: int) -> None:
    linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
    for name, content in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(fd, content.encode())
        os.close(fd)
    socket.send_fds(to, [b"\0"], [linux.detached_tmpfs(_HUGE)])


def _check_pages(folder: int) -> None:
    """The kernel says by st_blksize what it will give; no memory is taken."""
    fd = os.open("trial", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        os.ftruncate(fd, _TRIAL)
        if os.fstat(fd).st_blksize < _TRIAL:
            raise OSError(errno.EOPNOTSUPP, "shmem has no huge pages (transparent_hugepage/shmem_enabled)")
    finally:
        os.close(fd)
        os.unlink("trial", dir_fd=folder)


def _in_a_child(act: Callable[[], None]) -> None:
    """Raise the OSError that it raised there."""
    child = os.fork()
    if child == 0:
        os._exit(_errno_of(act))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise OSError(code, os.strerror(code) if code > 0 else f"the child was killed by signal {-code}")


def _errno_of(act: Callable[[], None]) -> int:
    """0, or the errno that stopped it."""
    try:
        act()
    except OSError as error:
        return error.errno or errno.EIO
    return 0
