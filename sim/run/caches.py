"""The folder of one run's caches."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from sim.record.folder import make_cache
from sim.run import private_tmpfs

SHM = Path("/dev/shm")  # noqa: S108 - asked for because it is tmpfs


class Caches:
    """A new folder: below `parent` where one is given, else on a disk or on a tmpfs. Raises OSError.

    `huge`: on a tmpfs of huge pages that is mounted nowhere. The path is by a fd of this process, which ends with it,
    so what is to be `kept` lies in /dev/shm.
    """

    def __init__(self, run: str, run_dir: Path, parent: Path | None, *, tmpfs: bool, kept: bool) -> None:
        self._mount, self._is_choice = -1, tmpfs and parent is None
        if self._is_choice and not kept:
            with contextlib.suppress(OSError):
                self._mount = private_tmpfs.open_huge()
        below = (parent or (SHM if tmpfs else run_dir)).absolute()
        self.path = make_cache(Path(f"/proc/{os.getpid()}/fd/{self._mount}") if self.huge else below, run)

    @property
    def huge(self) -> bool:
        """Whether they are in huge pages."""
        return self._mount >= 0

    def facts(self) -> dict[str, bool]:
        """For the host's part of a ledger: in which pages, where that was for this host to say."""
        return {"huge_cache": self.huge} if self._is_choice else {}

    def remove(self, *, kept: bool = False) -> None:
        """Harmless when it is done, or when it is `kept`."""
        if not kept:
            shutil.rmtree(self.path, ignore_errors=True)
        mount, self._mount = self._mount, -1
        if mount >= 0:
            os.close(mount)
