"""The host fails one read of a file: too many open files, an error of the disk. The next read succeeds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class FailingReads:
    """Counts every read below `folder`, by name or by file descriptor, and fails number `nth`, from 1, once."""

    def __init__(self, folder: Path, nth: int, number: int) -> None:
        self._folder = str(folder)
        self._nth = nth
        self._number = number
        self.reads = 0

    @property
    def has_failed(self) -> bool:
        """True once the read that was to fail did."""
        return self.reads >= self._nth

    def install(self, patched: pytest.MonkeyPatch) -> FailingReads:
        """From now on, until the patch is undone."""
        for name in ("open", "stat", "fstat", "pread"):
            patched.setattr(os, name, self._counted(getattr(os, name)))
        patched.setattr(Path, "read_bytes", self._counted(Path.read_bytes))
        return self

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(of: Any, *arguments: Any, **options: Any) -> Any:
            if self._is_below(of):
                self.reads += 1
                if self.reads == self._nth:
                    raise OSError(self._number, os.strerror(self._number))
            return real(of, *arguments, **options)

        return call

    def _is_below(self, of: Any) -> bool:
        try:
            name = os.readlink(f"/proc/self/fd/{of}") if isinstance(of, int) else os.fspath(of)
        except (OSError, TypeError):
            return False
        return isinstance(name, str) and name.startswith(f"{self._folder}/")
