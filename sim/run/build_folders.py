"""Where the builds of one run lie: the folder of its cache, and of its spill where it has one."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sim.files.fleet import NodeSpec
from sim.record.folder import make_cache, make_spill
from sim.run import private_tmpfs

SHM = Path("/dev/shm")  # noqa: S108 - tmpfs by name
_NONE = -1


@dataclass(frozen=True, slots=True)
class BuildFolders:
    """Made for one run, removed with it.

    `mount` is a fd of a tmpfs of huge pages that is mounted nowhere, -1 for none; the cache's path goes through it,
    so both end with this process. `is_choice`: it was for this host to say in which pages a tmpfs holds the cache.
    """

    cache: Path
    spill: Path | None
    mount: int = _NONE
    is_choice: bool = False

    @classmethod
    def make(cls, node: NodeSpec, cache_parent: Path | None, run_dir: Path, run: str, *, kept: bool = False) -> Self:
        """Raises OSError, with nothing made. A cache that may be `kept` needs a name, and so no huge pages."""
        tmpfs, mount = node.cache == "tmpfs", _NONE
        is_choice = tmpfs and cache_parent is None
        if is_choice and not kept:
            with contextlib.suppress(OSError):
                mount = private_tmpfs.open_huge()
        below = (cache_parent or (SHM if tmpfs else run_dir)).absolute()
        try:
            cache = make_cache(below if mount == _NONE else Path(f"/proc/{os.getpid()}/fd/{mount}"), run)
            try:
                spill = make_spill(spill_parent(node.spill), run) if node.spill is not None else None
            except OSError:
                cache.rmdir()
                raise
        except OSError:
            _close(mount)
            raise
        return cls(cache, spill, mount, is_choice)

    @property
    def huge(self) -> bool:
        """Whether the cache is in huge pages."""
        return self.mount != _NONE

    def facts(self) -> dict[str, bool]:
        """For the host's part of a ledger: in which pages, where that was for this host to say."""
        return {"huge_cache": self.huge} if self.is_choice else {}

    def remove(self) -> None:
        """What cannot be removed is found by the rule about leaks."""
        for folder in (self.cache, self.spill):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
        _close(self.mount)


def _close(mount: int) -> None:
    if mount != _NONE:
        os.close(mount)


def spill_parent(spill: str) -> Path:
    """The folder that `node: {spill: ...}` names; a relative one starts at the current folder."""
    return SHM if spill == "tmpfs" else Path(spill).absolute()
