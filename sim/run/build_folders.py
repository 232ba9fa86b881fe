"""Where the builds of one run lie: the folder of its cache, and of its spill where it has one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sim.files.fleet import NodeSpec
from sim.record.folder import make_cache, make_spill

SHM = Path("/dev/shm")  # noqa: S108 - tmpfs by name


@dataclass(frozen=True, slots=True)
class BuildFolders:
    """Made for one run, removed with it."""

    cache: Path
    spill: Path | None

    @classmethod
    def make(cls, node: NodeSpec, cache_parent: Path | None, run_dir: Path, run: str) -> Self:
        """Raises OSError, with nothing made."""
        asked = SHM if node.cache == "tmpfs" else run_dir
        cache = make_cache((cache_parent or asked).absolute(), run)
        try:
            return cls(cache, make_spill(spill_parent(node.spill), run) if node.spill is not None else None)
        except OSError:
            cache.rmdir()
            raise

    def remove(self) -> None:
        """What cannot be removed is found by the rule about leaks."""
        for folder in (self.cache, self.spill):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)


def spill_parent(spill: str) -> Path:
    """The folder that `node: {spill: ...}` names; a relative one starts at the current folder."""
    return SHM if spill == "tmpfs" else Path(spill).absolute()
