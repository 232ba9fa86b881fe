"""Who owns a run: its runner, by a lock that it holds on a file of the run folder while it lives.

The kernel frees the lock with the runner, however that ends. Unlike a pid it means the same in every PID namespace,
and on every machine that shares the folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

OWNER_FILE = ".owner"
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def take(run_dir: Path) -> int:
    """Own a new run: gives the fd that holds the lock until it is closed. Raises OSError."""
    fd = os.open(run_dir / OWNER_FILE, _FLAGS | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def give_up(fd: int) -> None:
    """End the ownership: what the record says by then holds."""
    os.close(fd)


def watch(file: str) -> int | None:
    """An fd for `is_free`; None where the run has no such file."""
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None


def is_free(fd: int) -> bool:
    """Whether the runner has ended; the lock is not kept."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True


def await_free(fd: int) -> None:
    """Return once the runner has ended."""
    fcntl.flock(fd, fcntl.LOCK_SH)
    fcntl.flock(fd, fcntl.LOCK_UN)


@contextlib.contextmanager
def taken_over(run_dir: Path) -> Iterator[bool | None]:
    """Own a run whose runner has ended: True while this block lasts, False where it still has an owner.

    None for a run of an older version, which has no lock.
    """
    try:
        fd = os.open(run_dir / OWNER_FILE, _FLAGS)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.EACCES, errno.EISDIR, errno.EROFS}:
            raise
        yield False
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)
