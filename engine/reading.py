"""The way in for files that other people wrote: regular files only, and at most so much of them.

A document of a few bytes can ask for a lot of memory and time, so its size, its depth and its number of values have a
limit each. They are far beyond any real document, and what exceeds one is refused in a sentence.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterable
from os import PathLike
from typing import Any

MOST_BYTES = 16 << 20
"""Bytes of one document that people write or export."""
MOST_TABLE_BYTES = 64 << 20
"""Bytes of a table with a row for each sandbox, and of a document that we wrote ourselves."""
MOST_LEDGER_BYTES = 256 << 20
"""Bytes of a stranger's ledger, which is read line by line."""
ANY_SIZE = sys.maxsize
"""Bytes of what this run writes itself, for as long as it lasts."""
MOST_DEPTH = 100
"""Lists and objects inside one another."""
MOST_VALUES = 1_000_000
"""Values in one JSON document or cells in one table."""
MOST_MISTAKES = 50
"""Mistakes of one document that are shown; the others are counted."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: str | PathLike[str], most: int = MOST_BYTES) -> int:
    """A file descriptor of a regular file of at most `most` bytes; never waits for a writer.

    OSError, whose `strerror` says why, for anything else.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError:  # Python passes no such name to the kernel
        raise OSError(errno.EINVAL, "its name holds a null byte or half a character") from None
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_size <= most:
        return fd
    os.close(fd)
    if stat.S_ISREG(status.st_mode):
        raise OSError(errno.EFBIG, _too_large(most))
    what = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
    raise OSError(errno.EINVAL, f"it is {what}, not a regular file")


def read_regular(path: str | PathLike[str], most: int = MOST_BYTES) -> bytes:
    """The bytes of a regular file; OSError, whose `strerror` says why, where there are none or more than `most`."""
    with os.fdopen(open_regular(path, most), "rb") as file:
        content = file.read(most + 1)  # it may grow, and files of /proc have no size
    if len(content) > most:
        raise OSError(errno.EFBIG, _too_large(most))
    return content


def _too_large(most: int) -> str:
    return f"it is larger than {most >> 20} MiB"


def too_much(value: Any) -> str | None:
    """Why a parsed document is refused: it is too deep, or holds too many values. None where it is neither."""
    level, count = [value], 1
    for _ in range(MOST_DEPTH):
        level = [each for part in level for each in _inside(part)]
        count += len(level)
        if count > MOST_VALUES:
            return f"more than {MOST_VALUES:,} values"
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return None
    return f"nested more than {MOST_DEPTH} levels deep"


def _inside(part: Any) -> Iterable[Any]:
    if isinstance(part, dict):
        return part.values()
    return part if isinstance(part, list) else ()
