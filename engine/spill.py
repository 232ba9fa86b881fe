"""Where the rest of a stranded build goes when its cache takes no more: a file elsewhere, with the same offsets.

The build's folder links to it, from before anything is destroyed: the link takes space on the disk that fills up. Who
deletes such a folder deletes that file too: `remove_folder`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from engine import linux

LINK = "spill"
SUFFIX = ".spill"
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class Spill:
    """The file of one build in a folder for spills; it exists once something has to go there."""

    def __init__(self, folder: Path, build: str) -> None:
        self.path = folder / f"{build}{SUFFIX}"
        self.on_tmpfs = False
        self.fd = -1
        self.cached = 0
        """Bytes that the page cache was seen to hold, on disk."""

    def resident_bytes(self) -> int:
        """Memory that the file takes."""
        if self.fd < 0:
            return 0
        return os.fstat(self.fd).st_blocks * 512 if self.on_tmpfs else self.cached

    def link(self, home: Path) -> None:
        """Link to the file, there or not, from the build's folder; raises OSError."""
        with contextlib.suppress(FileExistsError):
            os.symlink(self.path, home / LINK)

    def open(self, home: Path) -> None:
        """Open the file, made where it is not there; raises OSError."""
        if self.fd >= 0:
            return
        self.link(home)  # a file that no folder links to would be forgotten
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self.on_tmpfs = linux.filesystem_magic(self.fd) == linux.TMPFS_MAGIC

    def close(self) -> None:
        """Harmless when it was never opened."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def remove(self, home: Path) -> None:
        """Nothing of the build lies in it: neither the file nor its link is needed. What cannot be deleted stays."""
        for each in (self.path, home / LINK):  # the link last: a file that no folder links to would be forgotten
            with contextlib.suppress(OSError):
                each.unlink()


def is_linked(folder: Path) -> bool:
    """Whether a build's folder links to a spill that is there."""
    return (folder / LINK).exists()


def open_linked(folder: Path) -> int:
    """The spill of a build in its folder, for reading; raises OSError where it is gone."""
    return os.open(folder / LINK, os.O_RDONLY | os.O_CLOEXEC)


def remove_folder(folder: Path, *, ignore_errors: bool = True) -> None:
    """Delete a build's folder, finished or not, and its spill; what cannot be deleted stays, or raises OSError."""
    with contextlib.suppress(OSError):
        linked = Path(os.readlink(folder / LINK))
        if linked.suffix == SUFFIX:
            linked.unlink()
    shutil.rmtree(folder, ignore_errors=ignore_errors)
